package probes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/config"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// carries are the kinds of event that must have more than a title and fields.
// An example without it shows that something is broken.
var carries = map[string][]string{
	"direct_reclaim_stall": {"process", "kernel_stack"},
	"compaction_stall":     {"process", "kernel_stack"},
	"fs_error":             {"process", "kernel_stack"},
	"hung_task":            {"process", "kernel_stack"},
	"io_stall":             {"process"},
	"kernel_bug":           {"kernel_stack", "registers"},
	"kernel_warning":       {"kernel_stack", "registers"},
	"lock_contention":      {"process", "kernel_stack"},
	"oom_kill":             {"process"},
	"packet_drop":          {"kernel_stack"},
	"process_crash":        {"process", "user_stack", "registers"},
	"process_exec":         {"process"},
	"sched_stall":          {"process", "kernel_stack"},
	"soft_lockup":          {"process", "kernel_stack", "registers"},
	"softirq_stall":        {"kernel_stack"},
	"tick_gap":             {"kernel_stack"},
}

// TestExamples: each kind of event has a captured document that fits what the
// kind is today.
func TestExamples(t *testing.T) {
	for _, s := range All() {
		for _, e := range s.Emits {
			if e.Kind != signal.Event {
				continue
			}
			t.Run(e.Name, func(t *testing.T) {
				doc, err := os.ReadFile(filepath.Join(s.Name, probetest.ExampleFile(e.Name)))
				if err != nil {
					t.Fatalf("%v: run `make examples P=%s`", err, s.Name)
				}
				source, err := os.ReadFile(filepath.Join(s.Name, probetest.ExampleSource(e.Name)))
				if err != nil || !sentence.Match(bytes.TrimSuffix(source, []byte("\n"))) {
					t.Errorf("where the example comes from is no sentence: %q, %v", source, err)
				}
				for _, b := range checkExample(e, doc, carries[e.Name]) {
					t.Errorf("%s: run `make examples P=%s`", b, s.Name)
				}
			})
		}
	}
	for kind := range carries {
		if !slices.ContainsFunc(All(), func(s probe.Spec) bool {
			return slices.ContainsFunc(s.Emits, func(e *signal.Schema) bool { return e.Name == kind })
		}) {
			t.Errorf("carries names %s, which no probe makes", kind)
		}
	}
}

var (
	address = regexp.MustCompile(`\bffff[0-9a-f]{12}\b`)
	folder  = regexp.MustCompile(`/(go-build[0-9]|work/|root/|home/[^u])`)
)

// checkExample holds a captured document to its schema.
func checkExample(e *signal.Schema, text []byte, more []string) (bad []string) {
	want := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	var d signal.Document
	if err := strict(text, &d); err != nil {
		return []string{"no document: " + err.Error()}
	}
	want(d.Kind == e.Name, "it is a %s", d.Kind)
	want(d.ID != "" && !d.Time.IsZero() && d.Title != "", "id, time or title is empty")
	want(slices.Contains([]signal.Severity{signal.Info, signal.Warning, signal.Critical}, d.Severity), "its severity is %q", d.Severity)
	want(d.Host == "node-1", "its host is %q, not node-1", d.Host)
	for _, a := range address.FindAll(text, -1) {
		want(bytes.HasPrefix(a, []byte("ffffffffffff")), "it has an address of the kernel: %s", a) // else a small negative number
	}
	want(!folder.Match(text), "it has a folder of the machine where it was captured: %s", folder.Find(text))
	has := map[string]bool{
		"process": d.Process != nil && d.Process.PID != 0, "kernel_stack": len(d.KernelStack) > 0,
		"user_stack": len(d.UserStack) > 0, "registers": len(d.Registers) > 0,
	}
	for _, m := range more {
		want(has[m], "it has no %s", m)
	}
	body := e.NewBody()
	if err := strict(d.Fields, body); err != nil {
		return append(bad, "its fields are not those of the schema: "+err.Error())
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(d.Fields, &members); err != nil {
		return append(bad, "its fields are no object: "+err.Error())
	}
	optional := omitted(reflect.TypeOf(body).Elem())
	for _, f := range e.Fields {
		_, ok := members[f.Name]
		want(ok || optional[f.Name], "it lacks the field %s", f.Name)
	}
	return bad
}

// strict decodes JSON that has no member which the value lacks.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// omitted are the members of a body that may be absent.
func omitted(t reflect.Type) map[string]bool {
	m := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			for n := range omitted(f.Type) {
				m[n] = true
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		m[name] = strings.Contains(options, "omit")
	}
	return m
}

// TestExampleRules breaks one rule at a time.
func TestExampleRules(t *testing.T) {
	_, e, _ := goodSpec()
	const good = `{"id":"1","time":"2026-01-02T03:04:05Z","kind":"good_event","severity":"info","title":"It is.","host":"node-1","fields":{"pid":1}}`
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"fields"`, `"felds"`, "no document"},
		{`"pid":1`, `"pid":1,"more":2`, "fields are not those"},
		{`"pid":1`, ``, "lacks the field pid"},
		{`node-1`, `db7`, "its host"},
		{`It is.`, ``, "title is empty"},
		{`info`, `loud`, "severity"},
		{`It is.`, `at ffffffff81000000`, "an address"},
		{`It is.`, `/root/x`, "a folder"},
		{`good_event`, `other`, "it is a other"},
	} {
		bad := checkExample(e, []byte(strings.Replace(good, tt.old, tt.new, 1)), nil)
		if tt.want == "" && len(bad) == 0 {
			continue
		}
		if tt.want == "" || !slices.ContainsFunc(bad, func(b string) bool { return strings.Contains(b, tt.want) }) {
			t.Errorf("%s: got %q, want %q", tt.new, bad, tt.want)
		}
	}
	if bad := checkExample(e, []byte(good), []string{"user_stack"}); len(bad) != 1 {
		t.Errorf("an example without its stack: %q", bad)
	}
}

// threshold is a key of the configuration with its value, in a Trigger.
var threshold = regexp.MustCompile("`([a-z_]+)` \\(([^)]+)\\)")

// TestTriggers: each kind says when it is made and what is normal, and each value
// that it names is the default of the configuration.
func TestTriggers(t *testing.T) {
	defaults := map[string]string{}
	for _, o := range config.Reference(All()) {
		defaults[o.Key] = o.Default
	}
	for _, s := range All() {
		for _, e := range s.Emits {
			if e.Kind == signal.Event {
				for _, b := range checkTrigger(s.Name, e, defaults) {
					t.Errorf("%s: %s", e.Name, b)
				}
			}
		}
	}
}

func checkTrigger(probe string, e *signal.Schema, defaults map[string]string) (bad []string) {
	if !sentence.MatchString(e.Trigger) || !sentence.MatchString(e.Normal) {
		return []string{fmt.Sprintf("when it is made (%q) and what is normal (%q) are not sentences: give its schema When", e.Trigger, e.Normal)}
	}
	for _, m := range threshold.FindAllStringSubmatch(e.Trigger, -1) {
		key := "probes." + probe + "." + m[1]
		if v, ok := defaults[key]; !ok || v != m[2] {
			bad = append(bad, fmt.Sprintf("it says that %s is %s, the default is %q", key, m[2], v))
		}
	}
	return bad
}

func TestTriggerRules(t *testing.T) {
	defaults := map[string]string{"probes.p.stall": "50ms"}
	for _, tt := range []struct {
		trigger, normal string
		bad             bool
	}{
		{"A wait of `stall` (50ms).", "None.", false},
		{"A wait of `stall` (40ms).", "None.", true},
		{"A wait of `gone` (50ms).", "None.", true},
		{"A wait.", "", true},
		{"", "None.", true},
	} {
		e := &signal.Schema{Name: "e", Trigger: tt.trigger, Normal: tt.normal}
		if got := checkTrigger("p", e, defaults); len(got) > 0 != tt.bad {
			t.Errorf("%q, %q: %q", tt.trigger, tt.normal, got)
		}
	}
}
