package config

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// stall is the body of an event that a known issue may be about.
type stall struct {
	Device string `json:"device" help:"which"`
}

// issueSpecs is a probe that makes an event.
func issueSpecs() []probe.Spec {
	return []probe.Spec{probe.New(probe.Meta{Name: "disk", Help: "Watches.", Emits: []*signal.Schema{
		signal.EventOf[stall]("io_stall", signal.AreaBlock, signal.Warning, "It waits."),
		{Name: "huatuo_x", Kind: signal.Metric},
	}}, struct{}{}, func(context.Context, *probe.Env, struct{}) error { return nil })}
}

func TestKnownIssues(t *testing.T) {
	yaml := `
known_issues:
  - name: backup
    kinds: [io_stall]
    process: ^restic$
    fields: ["device=^sd[ab]$"]
    label: "the backup, which may wait"
  - {name: fuse_server, action: off}
`
	want := []KnownIssue{
		{Name: "backup", Kinds: []string{"io_stall"}, Process: "^restic$", Fields: []string{"device=^sd[ab]$"}, Label: "the backup, which may wait", Action: "label"},
		{Name: "fuse_server", Action: "off"},
	}
	c, err := parse("huatuo.yaml", []byte(yaml), nil, nil, issueSpecs())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.KnownIssues, want) {
		t.Errorf("%+v, want %+v", c.KnownIssues, want)
	}
	if o := c.Origin("known_issues"); o != "huatuo.yaml:3" {
		t.Errorf("origin %q", o)
	}
	// What is printed, and the form of a variable, give the same again.
	again, err := parse("again.yaml", c.Print(), nil, nil, issueSpecs())
	if err != nil || !reflect.DeepEqual(again.KnownIssues, want) {
		t.Errorf("printed and read: %v, %+v\n%s", err, again, c.Print())
	}
	text := ""
	for _, k := range c.keys() {
		if k.name == "known_issues" {
			text = k.text()
		}
	}
	env, err := parse("", nil, []string{"HUATUO_KNOWN_ISSUES=" + text}, nil, issueSpecs())
	if err != nil || !reflect.DeepEqual(env.KnownIssues, want) || env.Origin("known_issues") != "HUATUO_KNOWN_ISSUES" {
		t.Errorf("as a variable: %v, %s", err, text)
	}
	d := Diff(Default(issueSpecs()), c)
	if len(d) != 1 || d[0].Key != "known_issues" || d[0].Old != "[]" || d[0].New != text || !d[0].Reload {
		t.Errorf("difference %+v", d)
	}
}

func TestKnownIssueErrors(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"bad title", `[{name: a, title: "("}]`, `known_issues (huatuo.yaml:1): entry "a": title: "(" is not a regular expression`},
		{"bad stack", `[{name: ok, title: x}, {name: b, stack: "["}]`, `entry "b": stack: "[" is not a regular expression`},
		{"bad field expression", `[{name: a, fields: ["device=("]}]`, `entry "a": fields: "(" is not a regular expression`},
		{"no field expression", `[{name: a, fields: [device]}]`, `entry "a": fields: "device": write name=regular expression`},
		{"unknown field", `[{name: a, kinds: [io_stall], fields: ["devise=x"]}]`, `entry "a": fields: io_stall has no member "devise": did you mean "device"?`},
		{"unknown field of all", `[{name: a, fields: ["zzz=x"]}]`, `no event has a member "zzz"`},
		{"unknown kind", `[{name: a, title: x, kinds: [io_stal]}]`, `entry "a": there is no event "io_stal": did you mean "io_stall"?`},
		{"a metric as kind", `[{name: a, title: x, kinds: [huatuo_x]}]`, `there is no event "huatuo_x"`},
		{"no name", `[{title: x}]`, `known_issues (huatuo.yaml:1): entry 1: it has no name`},
		{"odd name", `[{name: "A b", title: x}]`, `a name has lower-case letters, digits and _ only`},
		{"two of a name", `[{name: a, title: x}, {name: a, title: y}]`, `entry "a": there are two of that name`},
		{"matches all", `[{name: a, kinds: [io_stall]}]`, `entry "a": it would match every event`},
		{"action", `[{name: a, title: x, action: drop}]`, `entry "a": action: "drop" is not one of label, suppress, off`},
		{"empty action", `[{name: a, title: x, action: ""}]`, `action: "" is not one of`},
		{"unknown member", `[{name: a, titel: x}]`, `huatuo.yaml:1: unknown key "titel" in known_issues[0]: did you mean "title"?`},
		{"not a list", `{name: a}`, `known_issues: expected a list of entries`},
		{"not entries", `[a]`, `known_issues[0]: expected keys below it`},
		{"a scalar", `a`, `known_issues: expected a list of entries`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse("huatuo.yaml", []byte("known_issues: "+tt.yaml+"\n"), nil, nil, issueSpecs())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not say %q", err, tt.want)
			}
		})
	}
	for text, want := range map[string]string{
		"{name: a}": "expected a list in YAML on one line", "[": "write a list in YAML on one line", "[{nam: a}]": `unknown key "nam" in entry[0]`,
	} {
		_, err := parse("", nil, []string{"HUATUO_KNOWN_ISSUES=" + text}, nil, issueSpecs())
		if err == nil || !strings.Contains(err.Error(), "HUATUO_KNOWN_ISSUES: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("variable %q: error %v does not say %q", text, err, want)
		}
	}
	if _, err := parse("", nil, []string{"HUATUO_KNOWN_ISSUES="}, nil, issueSpecs()); err != nil {
		t.Errorf("an empty variable: %v", err)
	}
}

// TestEntryReference: the reference has a row for each member of an entry.
func TestEntryReference(t *testing.T) {
	rows := map[string]Entry{}
	for _, e := range Reference(issueSpecs()) {
		rows[e.Key] = e
	}
	if e := rows["known_issues"]; e.Type != "list of entries" || e.Default != "[]" || !e.Reload || e.Env != "HUATUO_KNOWN_ISSUES" {
		t.Errorf("%+v", e)
	}
	if e := rows["known_issues[].action"]; e.Default != "label" || e.Legal != "label,suppress,off" || e.Env != "" || !e.Reload {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(string(Sample(issueSpecs())), "#   for example: [{name: ") {
		t.Error("the sample has no example of an entry")
	}
}
