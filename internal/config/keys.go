package config

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
)

const envPrefix = "HUATUO_"

// EnvPath is the variable that names the configuration file. It is no key.
const EnvPath = envPrefix + "CONFIG"

// key is one leaf of a configuration, addressable for setting.
type key struct {
	name  string // dotted
	tag   reflect.StructTag
	value reflect.Value
	probe string // set below probes.

	member bool // of an entry of a list: it has no variable of its own
}

func (k key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func (k key) flag() string {
	if f := k.tag.Get("flag"); f != "" {
		return "--" + f
	}
	return "--set"
}

// reloads: a probe is restarted with its new configuration by itself, so every
// key of a probe reloads.
func (k key) reloads() bool { return k.probe != "" || k.tag.Get("reload") == "true" }

func (k key) setText(text string) error { return setText(k.value, k.tag, text) }

// text is the value as flags and variables have it, masked when secret.
func (k key) text() string {
	if k.tag.Get("secret") == "true" && !k.value.IsZero() {
		return masked
	}
	return formatText(k.value, k.tag)
}

const masked = "<secret>"

// section is one mapping of the file: its members in order, each a leaf or
// another section.
type section struct {
	name    string // last part of the dotted name; empty for the whole
	help    string
	members []member
}

type member struct {
	name string
	leaf *key
	sub  *section
}

// tree returns the whole configuration, bound to c's values.
func (c *Config) tree() *section {
	root := sectionOf("", "", "", reflect.ValueOf(c).Elem(), "")
	probes := &section{name: "probes", help: "The probes: each can be turned off, and has its own keys."}
	for _, p := range c.probes {
		s := &section{name: p.spec.Name, help: p.spec.Help}
		if p.value != nil {
			s = sectionOf("probes."+p.spec.Name, p.spec.Name, p.spec.Help, reflect.ValueOf(p.value).Elem(), p.spec.Name)
		}
		on := &key{
			name: "probes." + p.spec.Name + ".enabled", probe: p.spec.Name,
			tag:   `help:"Run this probe."`,
			value: reflect.ValueOf(&p.enabled).Elem(),
		}
		s.members = append([]member{{name: "enabled", leaf: on}}, s.members...)
		probes.members = append(probes.members, member{name: p.spec.Name, sub: s})
	}
	root.members = append(root.members, member{name: "probes", sub: probes})
	return root
}

func sectionOf(prefix, name, help string, v reflect.Value, probe string) *section {
	s := &section{name: name, help: help}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		n := f.Tag.Get("yaml")
		if !f.IsExported() || n == "-" {
			continue
		}
		if n == ",inline" && f.Type.Kind() == reflect.Struct {
			s.members = append(s.members, sectionOf(prefix, name, help, v.Field(i), probe).members...)
			continue
		}
		full := n
		if prefix != "" {
			full = prefix + "." + n
		}
		if n == "" || f.Tag.Get("help") == "" {
			panic(fmt.Sprintf("BUG: %s.%s: a configuration key needs a yaml and a help tag", v.Type(), f.Name))
		}
		if f.Type.Kind() == reflect.Struct {
			s.members = append(s.members, member{name: n, sub: sectionOf(full, n, f.Tag.Get("help"), v.Field(i), probe)})
			continue
		}
		if !readable(f.Type) {
			panic(fmt.Sprintf("BUG: %s.%s: a configuration key cannot be a %s", v.Type(), f.Name, f.Type))
		}
		s.members = append(s.members, member{name: n, leaf: &key{name: full, tag: f.Tag, value: v.Field(i), probe: probe}})
	}
	return s
}

// keys returns every leaf, in the order of the reference.
func (c *Config) keys() []key {
	var ks []key
	var walk func(*section)
	walk = func(s *section) {
		for _, m := range s.members {
			if m.leaf != nil {
				ks = append(ks, *m.leaf)
			} else {
				walk(m.sub)
			}
		}
	}
	walk(c.tree())
	return ks
}

func copyOf(cfg any) any {
	if cfg == nil {
		return nil
	}
	p := reflect.New(reflect.TypeOf(cfg))
	p.Elem().Set(reflect.ValueOf(cfg))
	return p.Interface()
}

func deref(p any) any {
	if p == nil {
		return nil
	}
	return reflect.ValueOf(p).Elem().Interface()
}

func sortedKeys(m map[string]string) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// didYouMean returns `: did you mean "x"?` for the nearest of names, and
// nothing when none is near enough to be a slip of the keyboard.
func didYouMean(s string, names []string) string {
	best, dist := "", len(s)/3+2
	for _, n := range names {
		if d := distance(s, n); d < dist {
			best, dist = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// distance is the edit distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
