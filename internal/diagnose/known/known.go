// Package known recognises events whose cause is known: a hung task that waits
// for a dead file server tells of the server, not of the kernel.
//
// What is known is data (Builtin, and the configuration's known_issues), compiled
// once. An event of a kind that no issue is about costs one look into a map.
package known

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// What is done with an event that is an instance of an issue.
const (
	Label    = "label"    // it is marked
	Suppress = "suppress" // it is not reported
	Off      = "off"      // nothing: the issue of that name is not looked for
)

// Issue is something that is known. All that it names must match.
type Issue struct {
	Name    string   // what events are marked with
	Kinds   []string // kinds of events that are looked at; empty: all
	Title   string   // regular expression on the title
	Stack   string   // regular expression on any function of any stack
	Process string   // regular expression on the command name of the process
	Fields  []string // name=regular expression, on members of the body
	Label   string   // what is known, a sentence
	URL     string   // where more is told
	Action  string   // Label when empty
}

// List is what is known, ready for use. It is safe for concurrent use.
type List struct {
	byKind map[string][]*matcher // "" has those of all kinds
}

// matcher is one issue.
type matcher struct {
	name                  string
	suppress              bool
	title, stack, process *regexp.Regexp
	fields                []field
}

// field is a member of the body and what it must be like.
type field struct {
	name string
	want *regexp.Regexp
}

// Compile makes a List of lists of issues. Of two with one name the later counts.
func Compile(lists ...[]Issue) (*List, error) {
	var all []Issue
	for _, list := range lists {
		for _, is := range list {
			all = slices.DeleteFunc(all, func(old Issue) bool { return old.Name == is.Name })
			all = append(all, is)
		}
	}
	l := &List{byKind: map[string][]*matcher{}}
	for _, is := range all {
		if is.Action == Off {
			continue
		}
		m, err := compile(is)
		if err != nil {
			return nil, fmt.Errorf("known issue %q: %w", is.Name, err)
		}
		kinds := is.Kinds
		if len(kinds) == 0 {
			kinds = []string{""}
		}
		for _, k := range kinds {
			l.byKind[k] = append(l.byKind[k], m)
		}
	}
	return l, nil
}

func compile(is Issue) (*matcher, error) {
	m := &matcher{name: is.Name, suppress: is.Action == Suppress}
	for _, e := range []struct {
		name, expr string
		to         **regexp.Regexp
	}{{"title", is.Title, &m.title}, {"stack", is.Stack, &m.stack}, {"process", is.Process, &m.process}} {
		if e.expr == "" {
			continue
		}
		re, err := regexp.Compile(e.expr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		*e.to = re
	}
	for _, f := range is.Fields {
		name, expr, _ := strings.Cut(f, "=")
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		m.fields = append(m.fields, field{name, re})
	}
	if m.title == nil && m.stack == nil && m.process == nil && m.fields == nil {
		return nil, fmt.Errorf("it names nothing that an event must be like")
	}
	return m, nil
}

// Look adds to r.Known the issues that r is an instance of. It returns false when
// one of them is not to be reported.
func (l *List) Look(r *signal.Record) bool {
	report := true
	for _, kind := range [...]string{r.Schema.Name, ""} {
		for _, m := range l.byKind[kind] {
			if m.matches(r) {
				r.Known = append(r.Known, m.name)
				report = report && !m.suppress
			}
		}
	}
	return report
}

func (m *matcher) matches(r *signal.Record) bool {
	switch {
	case m.title != nil && !m.title.MatchString(r.Title),
		m.process != nil && !m.process.MatchString(r.Process.Comm):
		return false
	}
	for _, f := range m.fields {
		v, ok := member(r.Body, f.name)
		if !ok || !f.want.MatchString(v) {
			return false
		}
	}
	return m.stack == nil || m.inStacks(r)
}

// inStacks looks at the stacks of the record and of the others in it.
func (m *matcher) inStacks(r *signal.Record) bool {
	if m.inStack(r.KernelStack) || m.inStack(r.UserStack) {
		return true
	}
	return slices.ContainsFunc(r.Parties, func(p *signal.Party) bool {
		return m.inStack(p.KernelStack) || m.inStack(p.UserStack)
	})
}

func (m *matcher) inStack(frames []signal.Frame) bool {
	return slices.ContainsFunc(frames, func(f signal.Frame) bool { return m.stack.MatchString(f.Function) })
}

// member returns the member of a body that has that name in JSON, as text; a
// list's elements are joined by commas.
func member(body any, name string) (string, bool) {
	v := reflect.ValueOf(body)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return memberOf(v, name)
}

func memberOf(v reflect.Value, name string) (string, bool) {
	if v.Kind() != reflect.Struct {
		return "", false
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if s, ok := memberOf(v.Field(i), name); ok {
				return s, true
			}
			continue
		}
		if n, _, _ := strings.Cut(f.Tag.Get("json"), ","); n == name {
			return text(v.Field(i))
		}
	}
	return "", false
}

func text(v reflect.Value) (string, bool) {
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Pointer, reflect.Interface:
		return "", false
	case reflect.Slice, reflect.Array:
		parts := make([]string, v.Len())
		for i := range parts {
			s, ok := text(v.Index(i))
			if !ok {
				return "", false
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), true
	default:
		return fmt.Sprint(v), true
	}
}
