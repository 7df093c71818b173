package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An entry is an element of a list whose elements have keys of their own. In a
// file it is a mapping, in a variable or a flag the whole list is YAML on one line.

// isEntries tells whether a key of that type is a list of entries.
func isEntries(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// newEntry returns an entry with its defaults, and its keys bound to it.
func newEntry(t reflect.Type, name string) (reflect.Value, *section) {
	v := reflect.New(t).Elem()
	s := sectionOf(name, name, "", v, "")
	for _, m := range s.members {
		if m.leaf == nil {
			panic(fmt.Sprintf("BUG: %s.%s: an entry has no sections", t, m.name))
		}
		if d := m.leaf.tag.Get("default"); d != "" {
			if err := m.leaf.setText(d); err != nil {
				panic("BUG: bad default in a configuration tag: " + err.Error())
			}
		}
	}
	return v, s
}

// members returns the keys of an entry of k, for the reference.
func (k key) members() []key {
	if !isEntries(k.value.Type()) {
		return nil
	}
	_, s := newEntry(k.value.Type().Elem(), k.name+"[]")
	var ks []key
	for _, m := range s.members {
		m.leaf.member, m.leaf.probe = true, k.probe
		m.leaf.tag += reflect.StructTag(fmt.Sprintf(" reload:%q", k.tag.Get("reload")))
		ks = append(ks, *m.leaf)
	}
	return ks
}

// entries sets k from a sequence of mappings.
func (f *file) entries(k *key, n *yaml.Node) {
	list := reflect.MakeSlice(k.value.Type(), 0, len(n.Content))
	for i, e := range n.Content {
		name := fmt.Sprintf("%s[%d]", k.name, i)
		v, s := newEntry(k.value.Type().Elem(), name)
		f.section(s, name, e)
		list = reflect.Append(list, v)
	}
	if list.Len() == 0 {
		list = reflect.Zero(k.value.Type())
	}
	k.value.Set(list)
}

// setEntries sets v from the text of a variable or a flag.
func setEntries(v reflect.Value, text string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return fmt.Errorf("%s: write a list in YAML on one line, like [{name: …}]", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if doc.Kind == 0 { // nothing
		v.SetZero()
		return nil
	}
	n := resolve(doc.Content[0])
	if n.Kind != yaml.SequenceNode {
		return errors.New("expected a list in YAML on one line, like [{name: …}]")
	}
	f := file{origin: map[string]string{}}
	list := reflect.New(v.Type()).Elem()
	f.entries(&key{name: "entry", value: list}, n)
	if len(f.errs) > 0 {
		return errors.Join(f.errs...)
	}
	v.Set(list)
	return nil
}

// formatEntries is the inverse of setEntries; it leaves out what is empty.
func formatEntries(v reflect.Value) string {
	entries := make([]string, v.Len())
	for i := range entries {
		s := sectionOf("", "", "", v.Index(i), "")
		var parts []string
		for _, m := range s.members {
			if w := (&writer{}); !m.leaf.value.IsZero() {
				parts = append(parts, m.name+": "+w.yaml(m.leaf))
			}
		}
		entries[i] = "{" + strings.Join(parts, ", ") + "}"
	}
	return "[" + strings.Join(entries, ", ") + "]"
}

// checkEntries checks each member of each entry.
func (k key) checkEntries() error {
	var errs []error
	for i := range k.value.Len() {
		s := sectionOf("", "", "", k.value.Index(i), "")
		for _, m := range s.members {
			if m.leaf.value.IsZero() && m.leaf.tag.Get("enum") == "" {
				continue // not set
			}
			if err := m.leaf.check(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", nameOf(k.value.Index(i), i), m.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// nameOf tells which entry is meant, by its name when it has one.
func nameOf(v reflect.Value, i int) string {
	if n := v.FieldByName("Name"); n.IsValid() && n.Kind() == reflect.String && n.String() != "" {
		return fmt.Sprintf("entry %q", n.String())
	}
	return fmt.Sprintf("entry %d", i+1)
}

// checkKnownIssues checks what the tags cannot tell.
func (c *Config) checkKnownIssues() []error {
	var errs []error
	seen := map[string]bool{}
	kinds := c.eventFields()
	for i, k := range c.KnownIssues {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("known_issues (%s): %s: %w", c.Origin("known_issues"), nameOf(reflect.ValueOf(k), i), fmt.Errorf(format, args...)))
		}
		switch {
		case k.Name == "":
			fail("it has no name")
		case strings.Trim(k.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
			fail("a name has lower-case letters, digits and _ only")
		case seen[k.Name]:
			fail("there are two of that name")
		}
		seen[k.Name] = true
		if k.Action != "off" && k.Title == "" && k.Stack == "" && k.Process == "" && len(k.Fields) == 0 {
			fail("it would match every event: name at least one of title, stack, process and fields")
		}
		for _, kind := range k.Kinds {
			if kinds[kind] == nil {
				fail("there is no event %q%s", kind, didYouMean(kind, slices.Sorted(maps.Keys(kinds))))
			}
		}
		for _, f := range k.Fields {
			if err := checkField(f, k.Kinds, kinds); err != nil {
				fail("fields: %w", err)
			}
		}
	}
	return errs
}

// eventFields returns the names of the members of each kind of event.
func (c *Config) eventFields() map[string][]string {
	kinds := map[string][]string{}
	for _, p := range c.probes {
		for _, s := range p.spec.Emits {
			if s.NewBody() == nil {
				continue
			}
			names := []string{}
			for _, f := range s.Fields {
				names = append(names, f.Name)
			}
			kinds[s.Name] = names
		}
	}
	return kinds
}

// checkField checks "name=expression": the kinds that are looked at, or one of
// all, must have such a member.
func checkField(f string, want []string, kinds map[string][]string) error {
	name, expr, ok := strings.Cut(f, "=")
	if !ok {
		return fmt.Errorf("%q: write name=regular expression", f)
	}
	if err := compiles(expr); err != nil {
		return err
	}
	if len(want) == 0 {
		for _, names := range kinds {
			if slices.Contains(names, name) {
				return nil
			}
		}
		return fmt.Errorf("no event has a member %q", name)
	}
	for _, kind := range want {
		if names := kinds[kind]; names != nil && !slices.Contains(names, name) {
			return fmt.Errorf("%s has no member %q%s", kind, name, didYouMean(name, names))
		}
	}
	return nil
}
