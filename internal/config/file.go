package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// applyFile walks the document itself instead of unmarshalling into the
// structs: so each value keeps its line, a size or duration is read by the
// same code as in a variable, and a mistake is told with the nearest key.
func (c *Config) applyFile(path string, data []byte) []error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // empty, or comments only
	} else if err != nil {
		return []error{fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return []error{fmt.Errorf("%s: more than one document: remove the second ---", path)}
	}
	f := file{path: path, origin: c.origin}
	f.section(c.tree(), "", doc.Content[0])
	return f.errs
}

// file is one file being applied.
type file struct {
	path   string
	origin map[string]string
	errs   []error
}

func (f *file) fail(n *yaml.Node, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if f.path != "" { // else it is a variable or a flag, which has no lines
		err = fmt.Errorf("%s:%d: %w", f.path, n.Line, err)
	}
	f.errs = append(f.errs, err)
}

func (f *file) section(s *section, at string, n *yaml.Node) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // every key below it is commented out
	}
	if n.Kind != yaml.MappingNode {
		f.fail(n, "%s: expected keys below it", orWhole(at))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if line, dup := seen[k.Value]; dup {
			f.fail(k, "%s is set twice, first in line %d", join(at, k.Value), line)
			continue
		}
		seen[k.Value] = k.Line
		m, ok := find(s, k.Value)
		switch {
		case !ok:
			f.fail(k, "unknown key %q in %s%s", k.Value, orWhole(at), didYouMean(k.Value, names(s)))
		case m.sub != nil:
			f.section(m.sub, join(at, m.name), v)
		default:
			f.leaf(m.leaf, v)
		}
	}
}

func (f *file) leaf(k *key, n *yaml.Node) {
	origin := fmt.Sprintf("%s:%d", filepath.Base(f.path), n.Line)
	n = resolve(n)
	list := k.value.Kind() == reflect.Slice
	var err error
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null" && list:
		err = errors.New("no value: write [] for an empty list, or remove the line")
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		err = errors.New("no value: write one, or remove the line")
	case n.Kind == yaml.SequenceNode && isEntries(k.value.Type()):
		f.entries(k, n)
	case isEntries(k.value.Type()):
		err = errors.New("expected a list of entries: a line that begins with - for each")
	case n.Kind == yaml.SequenceNode && list:
		var parts []string
		if parts, err = scalars(n); err == nil {
			err = setList(k.value, k.tag, parts)
		}
	case n.Kind == yaml.ScalarNode && list:
		err = fmt.Errorf("expected a list: write [%s]", n.Value)
	case n.Kind == yaml.ScalarNode:
		err = setScalar(k.value, k.tag, n.Value)
	default:
		err = errors.New("expected one value")
	}
	if err != nil {
		f.fail(n, "%s: %w", k.name, err)
		return
	}
	f.origin[k.name] = origin
}

func scalars(n *yaml.Node) ([]string, error) {
	parts := make([]string, 0, len(n.Content))
	for _, e := range n.Content {
		e = resolve(e)
		if e.Kind != yaml.ScalarNode || e.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: expected a plain value", e.Line)
		}
		parts = append(parts, e.Value)
	}
	return parts, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func find(s *section, name string) (member, bool) {
	for _, m := range s.members {
		if m.name == name {
			return m, true
		}
	}
	return member{}, false
}

func names(s *section) []string {
	ns := make([]string, len(s.members))
	for i, m := range s.members {
		ns[i] = m.name
	}
	return ns
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func orWhole(at string) string {
	if at == "" {
		return "the configuration"
	}
	return at
}
