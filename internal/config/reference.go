package config

import (
	"reflect"

	"huatuo/internal/probe"
)

// Entry describes one key for the docs and the command line.
type Entry struct {
	Key     string
	Type    string // string, boolean, integer, number, duration, size, or list of one of them
	Default string // as in a variable
	Help    string
	Legal   string // legal values or bounds; empty when every value of the type is
	Env     string
	Flag    string // with its dashes; empty for none
	Reload  bool   // takes effect on SIGHUP
	Probe   string // the probe whose key it is
}

// Reference describes every key, in order.
func Reference(specs []probe.Spec) []Entry {
	var es []Entry
	var keys []key
	for _, k := range Default(specs).keys() {
		keys = append(append(keys, k), k.members()...)
	}
	for _, k := range keys {
		e := Entry{
			Key: k.name, Type: typeName(k.value.Type(), k.tag), Default: k.text(), Help: k.tag.Get("help"),
			Legal: legal(k.tag), Env: k.env(), Reload: k.reloads(), Probe: k.probe,
		}
		if k.tag.Get("flag") != "" {
			e.Flag = k.flag()
		}
		if k.member {
			e.Env, e.Default = "", k.tag.Get("default")
		}
		es = append(es, e)
	}
	return es
}

func typeName(t reflect.Type, tag reflect.StructTag) string {
	switch {
	case isEntries(t):
		return "list of entries"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem(), tag)
	case t == durationType:
		return "duration"
	case t.Kind() == reflect.String && tag.Get("check") == "regexp":
		return "regular expression"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Float64:
		return "number"
	case tag.Get("unit") == "bytes":
		return "size"
	default:
		return "integer"
	}
}

func legal(tag reflect.StructTag) string {
	lo, hi := tag.Get("min"), tag.Get("max")
	switch {
	case tag.Get("enum") != "":
		return tag.Get("enum")
	case lo != "" && hi != "":
		return lo + " … " + hi
	case lo != "":
		return "≥ " + lo
	case hi != "":
		return "≤ " + hi
	default:
		return ""
	}
}

// Change is one key whose value differs between two configurations.
type Change struct {
	Key      string
	Old, New string // as in a variable; secrets masked
	Reload   bool   // takes effect without a restart
	Probe    string // the probe whose key it is
}

// Diff lists the keys that differ, in the order of the reference. Both must
// have been made with the same probes.
func Diff(old, new *Config) []Change {
	var cs []Change
	a, b := old.keys(), new.keys()
	for i := range a {
		if reflect.DeepEqual(a[i].value.Interface(), b[i].value.Interface()) {
			continue
		}
		cs = append(cs, Change{Key: a[i].name, Old: a[i].text(), New: b[i].text(), Reload: a[i].reloads(), Probe: a[i].probe})
	}
	return cs
}

// ProbeValues returns the keys of one probe without the prefix, as text,
// secrets masked: what the console shows.
func (c *Config) ProbeValues(name string) map[string]string {
	m := map[string]string{}
	for _, k := range c.keys() {
		if k.probe == name {
			m[k.name[len("probes."+name+"."):]] = k.text()
		}
	}
	return m
}
