package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"huatuo/internal/probe"
)

// Print returns c as a configuration file that would give c again, apart from
// secrets, which are masked. Each value is followed by its origin.
func (c *Config) Print() []byte {
	w := writer{mask: true, note: func(k *key) string { return c.Origin(k.name) }}
	w.section(c.tree(), 0)
	return w.Bytes()
}

// Sample returns a file that lists every key with its help and its default,
// commented out: what a new user edits.
func Sample(specs []probe.Spec) []byte {
	w := writer{help: true, comment: "# "}
	w.WriteString("# Configuration of huatuo. Every key is optional; the values shown are the defaults.\n" +
		"# `huatuo config print` shows the configuration in force and where each value comes from.\n" +
		"# store.dir is also the variable HUATUO_STORE_DIR; some keys have a flag as well.\n")
	w.section(Default(specs).tree(), 0)
	return w.Bytes()
}

type writer struct {
	bytes.Buffer
	mask    bool
	help    bool
	comment string // before each leaf
	note    func(*key) string
}

func (w *writer) section(s *section, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, m := range s.members {
		if w.help {
			if depth == 0 {
				w.WriteByte('\n')
			}
			fmt.Fprintf(w, "%s# %s\n", indent, m.describe())
		}
		if m.sub == nil && w.help && m.leaf.tag.Get("example") != "" {
			fmt.Fprintf(w, "%s#   for example: %s\n", indent, m.leaf.tag.Get("example"))
		}
		if m.sub != nil {
			fmt.Fprintf(w, "%s%s:\n", indent, m.name)
			w.section(m.sub, depth+1)
			continue
		}
		note := ""
		if w.note != nil {
			note = "  # " + w.note(m.leaf)
		}
		fmt.Fprintf(w, "%s%s%s: %s%s\n", indent, w.comment, m.name, w.yaml(m.leaf), note)
	}
}

func (w *writer) yaml(k *key) string {
	if w.mask && k.tag.Get("secret") == "true" && !k.value.IsZero() {
		return quote(masked)
	}
	if isEntries(k.value.Type()) {
		return formatEntries(k.value)
	}
	if k.value.Kind() != reflect.Slice {
		return yamlScalar(k.value, k.tag)
	}
	parts := make([]string, k.value.Len())
	for i := range parts {
		parts[i] = yamlScalar(k.value.Index(i), k.tag)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func yamlScalar(v reflect.Value, tag reflect.StructTag) string {
	s := formatText(v, tag)
	if v.Kind() == reflect.String {
		return quote(s)
	}
	return s
}

// quote writes s as a YAML scalar that also stands inside a flow list.
func quote(s string) string {
	plain := s != "" && !strings.ContainsAny(s, ",[]{}#&*!|>'\"%@`\n\r\t ")
	if plain {
		var back any
		if yaml.Unmarshal([]byte(s), &back) == nil && back == s {
			return s
		}
	}
	n := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
	out, err := yaml.Marshal(&n)
	if err != nil {
		panic("BUG: encode a string: " + err.Error())
	}
	return strings.TrimSuffix(string(out), "\n")
}

func (m member) describe() string {
	if m.sub != nil {
		return m.sub.help
	}
	s := m.leaf.tag.Get("help")
	if e := m.leaf.tag.Get("enum"); e != "" {
		s += " One of: " + strings.ReplaceAll(e, ",", ", ") + "."
	}
	return s
}
