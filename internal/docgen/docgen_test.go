package docgen

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type stall struct {
	WaitSeconds float64           `json:"wait_seconds" unit:"seconds" help:"how long"`
	CPU         uint32            `json:"cpu" help:"where | which"`
	Ran         []ran             `json:"ran" help:"who ran"`
	Extra       map[string]string `json:"extra,omitempty" help:"more"`
	Never       []string          `json:"never" help:"nil here, so null in JSON"`
	Self        *stall            `json:"self,omitempty" help:"a struct in itself"`
}

type ran struct {
	PID int `json:"pid" help:"process"`
	//lint:ignore U1000 shows that unexported members are left out
	hidden string
}

func sample() In {
	event := signal.EventOf[stall]("demo_stall", signal.AreaSched, signal.Warning, "A task waited.").When("A wait of `stall` (5ms).", "Short waits.")
	odd := signal.EventOf[stall]("demo_odd", signal.AreaSched, signal.Info, "Something odd was seen.")
	wait := &signal.Schema{
		Name: "huatuo_demo_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds", Area: signal.AreaSched, Scope: signal.Host,
		Help: "Time waited.", Read: "High is bad.", Fields: []signal.Field{{Name: "kind", Help: "what for", Values: []string{"a", "b"}}},
	}
	own := &signal.Schema{
		Name: "huatuo_agent_start_seconds", Kind: signal.Metric, Type: signal.Gauge, Unit: "seconds", Area: signal.AreaAgent, Scope: signal.Host, Help: "When the agent started.",
	}
	m := probe.Meta{
		Name: "demo", Help: "Shows.", Readme: "# demo\n\n## What it shows\n\nThings.\n", Since: "5.8", Source: "sched:sched_switch", Emits: []*signal.Schema{wait, event, odd},
	}
	root := &cobra.Command{Use: "huatuo", Short: "Observes.", Example: "  huatuo --listen :1\n    # indented"}
	root.Run = func(*cobra.Command, []string) {}
	root.Flags().StringP("listen", "l", "127.0.0.1:19704", "listen on `ADDRESS`, not on <all>")
	root.Flags().Bool("secret", false, "not shown")
	if err := root.Flags().MarkHidden("secret"); err != nil {
		panic(err)
	}
	sub := &cobra.Command{Use: "doctor", Short: "Checks.", Run: root.Run}
	sub.Flags().Bool("json", false, "as JSON")
	sub.Flags().AddFlagSet(root.Flags())
	sub.Flags().StringP("data", "d", "", "only here")
	root.AddCommand(sub, &cobra.Command{Use: "gen-docs", Hidden: true, Run: root.Run})
	return In{
		Probes: []probe.Spec{probe.New(m, struct{}{}, func(context.Context, *probe.Env, struct{}) error { return nil })},
		Agent:  []*signal.Schema{own},
		Options: []Option{
			{Key: "listen", Type: "string", Default: "127.0.0.1:19704", Help: "Address.", Env: "HUATUO_LISTEN", Flag: "--listen"},
			{Key: "log.level", Type: "string", Default: "info", Help: "Level.", Legal: "debug,info", Reload: true},
			{Key: "probes.demo.stall", Type: "duration", Default: "5ms", Help: "a wait of this length is a demo_stall event", Probe: "demo"},
			{Key: "probes.demo.rate", Type: "integer", Default: "5", Help: "events per second", Probe: "demo"},
			{Key: "probes.demo.exec_rate", Type: "integer", Default: "7", Help: "demo_odd events per second", Probe: "demo"},
			{Key: "probes.demo.enabled", Type: "boolean", Default: "true", Help: "Run it.", Reload: true, Probe: "demo"},
		},
		Examples: map[string]Example{"demo_stall": {
			[]byte(`{"id":"1","kernel_stack":[{"function":"schedule"},{"function":"a <b>"}],"fields":{"long":[` + strings.Repeat(`"some text, a: b",`, 9) + `"end"],"none":[],"wait_seconds":1.50}}`),
			"Captured on Linux 6.18.",
		}},
		Sample:  []byte("# listen: 127.0.0.1:19704\n"),
		Command: root,
		OpenAPI: []byte(`{"info":{"description":"All of it."},"paths":{"/b":{"post":{"summary":"Do b"},"get":{"summary":"Get b.","description":"Slowly",
			"parameters":[{"name":"q","in":"query","required":true,"description":"what","schema":{"type":["string","null"],"enum":["x","y"],"default":"x"}}]}},"/a":{"get":{"summary":"Get a"}}}}`),
	}
}

// TestFiles compares the rendered sample with the files in testdata/want.
func TestFiles(t *testing.T) {
	files, err := Files(sample())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := Write("testdata/want", files); err != nil {
			t.Fatal(err)
		}
	}
	diffs, err := Compare("testdata/want", files)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		t.Errorf("testdata/want/%s (rewrite with -update)", d)
	}
}

// TestBadExample: an example that is no JSON is an error, not a page without it.
func TestBadExample(t *testing.T) {
	in := sample()
	in.Examples["demo_stall"] = Example{Document: []byte(`{"id":`)}
	if _, err := Files(in); err == nil || !strings.Contains(err.Error(), "demo_stall") {
		t.Errorf("%v", err)
	}
}

// TestExamples reads those of a tree.
func TestExamples(t *testing.T) {
	tree := fstest.MapFS{"demo/testdata/example_demo_stall.json": {Data: []byte("{}")}}
	if _, err := Examples(tree, sample().Probes); err == nil {
		t.Error("an example without a source is read")
	}
	tree["demo/testdata/example_demo_stall.txt"] = &fstest.MapFile{Data: []byte("Seen.\n")}
	got, err := Examples(tree, sample().Probes)
	if err != nil || len(got) != 1 || string(got["demo_stall"].Document) != "{}" || got["demo_stall"].Source != "Seen." {
		t.Errorf("%v, %v", got, err)
	}
}

// TestCompact: the layout changes, the value does not.
func TestCompact(t *testing.T) {
	for _, doc := range []string{`1`, `"a,b:c"`, `[]`, `{}`, `{"a":{"b":[1,2,3]},"c":"` + strings.Repeat(`x\"y,`, 40) + `","\u00e4<":[` + strings.Repeat(`{"k":[true,null]},`, 20) + `1e3]}`} {
		got, err := compact([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := errors.Join(json.Unmarshal([]byte(doc), &a), json.Unmarshal([]byte(got), &b)); err != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%v: %s became %s", err, doc, got)
		}
	}
}

func TestBadOpenAPI(t *testing.T) {
	for _, doc := range []string{"{", `{"paths":{"/a":{"get":[]}}}`, `{"paths":[]}`} {
		in := sample()
		in.OpenAPI = []byte(doc)
		if _, err := Files(in); err == nil {
			t.Errorf("Files accepts %s", doc)
		}
	}
}

// TestCompare: every kind of difference is found, and Write removes all.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{"a.md": []byte("a\n"), "probes/p.md": []byte("p\n"), "schema/s.json": []byte("{}\n")}
	compare := func(want ...string) {
		t.Helper()
		got, err := Compare(dir, files)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Compare = %q, %v; want %q", got, err, want)
		}
	}
	compare("a.md is missing", "probes/p.md is missing", "schema/s.json is missing")
	put("a.md", "a")
	put("probes/p.md", "p\n")
	put("probes/gone.md", "x")
	put("cost.md", "written by hand")
	compare("a.md is stale", "schema/s.json is missing", "probes/gone.md is no longer made")
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	compare()
	if _, err := os.Stat(filepath.Join(dir, "cost.md")); err != nil {
		t.Error("Write removed a file that is not its own: ", err)
	}
	if err := os.Remove(filepath.Join(dir, "a.md")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "a.md"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(dir, files); err == nil {
		t.Error("Compare is silent about a file that it cannot read")
	}
}

// TestSchemaFits holds a real document to its schema: no member is missing
// from the schema, and no required member from the document.
func TestSchemaFits(t *testing.T) {
	in := sample()
	now := time.Now()
	r := &signal.Record{
		ID: "01", Schema: in.Probes[0].Emits[1], Time: now, Severity: signal.Critical, Title: "t", Host: "h", Region: "r", Suppressed: 1,
		Process:     signal.Process{PID: 1, TID: 2, Comm: "c", Exe: "e", Cmdline: "l", StartTime: &now, ParentPID: 3, Parent: "p"},
		Container:   signal.Container{ID: "i", Labels: map[string]string{"a": "b"}, Gone: true},
		Body:        &stall{Ran: []ran{{PID: 1}}, Extra: map[string]string{"k": "v"}},
		KernelStack: []signal.Frame{{Function: "f", Line: 1}}, Unresolved: []string{"x"},
	}
	doc, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(eventSchema(r.Schema))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	if bad := check("", schema, value); len(bad) > 0 {
		t.Error(strings.Join(bad, "\n"))
	}
	value.(map[string]any)["surprise"] = 1.0
	value.(map[string]any)["title"] = 1.0
	delete(value.(map[string]any), "time")
	if bad := check("", schema, value); len(bad) != 3 {
		t.Errorf("three mistakes, found %q", bad)
	}
}

// check is as much of a JSON Schema validator as these schemas need.
func check(at string, schema map[string]any, value any) (bad []string) {
	kinds := map[string]bool{}
	switch v := value.(type) {
	case map[string]any:
		kinds["object"] = true
		props, _ := schema["properties"].(map[string]any)
		for name, m := range v {
			sub, ok := props[name].(map[string]any)
			if !ok {
				sub, ok = schema["additionalProperties"].(map[string]any)
			}
			if !ok {
				bad = append(bad, at+"/"+name+" is not in the schema")
				continue
			}
			bad = append(bad, check(at+"/"+name, sub, m)...)
		}
		required, _ := schema["required"].([]any)
		for _, n := range required {
			if _, ok := v[n.(string)]; !ok {
				bad = append(bad, at+"/"+n.(string)+" is missing")
			}
		}
	case []any:
		kinds["array"] = true
		for _, m := range v {
			bad = append(bad, check(at+"[]", schema["items"].(map[string]any), m)...)
		}
	case string:
		kinds["string"] = schema["const"] == nil || schema["const"] == v
	case float64:
		kinds["number"], kinds["integer"] = true, v == float64(int64(v))
	case bool:
		kinds["boolean"] = true
	case nil:
		kinds["null"] = true
	}
	legal, isList := schema["type"].([]any)
	if !isList {
		legal = []any{schema["type"]}
	}
	if !slices.ContainsFunc(legal, func(k any) bool { return kinds[k.(string)] }) {
		bad = append(bad, fmt.Sprintf("%s is not a %v", at, legal))
	}
	return bad
}
