package probetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// Examples are the documents that docs/reference/events.md shows: one of each
// kind of event, captured when a test provoked it. `make examples` starts an
// agent, runs the kernel tests beside it with ExamplesURL set, and each event
// that a test has waited for is looked up there: the agent has the whole
// document, with process, container, symbols, resources and links. What the
// agent cannot have seen, because the test replays a record of another machine,
// comes from the test itself.
const (
	// ExamplesURL names, in a test's environment, where the agent serves.
	ExamplesURL = "HUATUO_EXAMPLES"
	// ExamplesNote is what the sources of the examples say besides.
	ExamplesNote = "HUATUO_EXAMPLES_NOTE"
)

// exampleHost is the host of every example.
const exampleHost = "node-1"

// lag bounds how far apart the agent's event and the test's may be: both are
// stamped when it happened, but an agent that polls sees it later.
const lag = 6 * time.Second

// ExampleFile is the file of a kind's example below a probe's folder; the
// source stands beside it, in ExampleSource.
func ExampleFile(kind string) string { return filepath.Join("testdata", "example_"+kind+".json") }

// ExampleSource is the file that tells in one sentence where a kind's example
// comes from.
func ExampleSource(kind string) string { return filepath.Join("testdata", "example_"+kind+".txt") }

// Example keeps r, which the test has made of what another machine has
// recorded, as the example of its kind. source says what and where that was:
// "Recorded in a virtual machine with Linux 6.1.". Without ExamplesURL in the
// environment it does nothing.
func Example(t testing.TB, r *signal.Record, source string) {
	t.Helper()
	x := examplesOf(t)
	if x == nil {
		return
	}
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	if d.ID == "" {
		d.ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV" // a record gets its id in the agent
	}
	x.keep(d, source)
}

// keep keeps the document that the agent has of r. A record that needs no
// enrichment may be kept as it is.
func keep(t testing.TB, r *signal.Record) {
	t.Helper()
	x := examplesOf(t)
	if x == nil {
		return
	}
	if have, whole := x.kept(r.Schema.Name); have && whole {
		return
	}
	var d *signal.Document
	for end := time.Now().Add(lag); d == nil && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		d = x.find(r)
	}
	switch {
	case d != nil:
		x.keep(d, Captured("by "+t.Name()))
	case strings.Contains(t.Name(), "Replay"):
		Example(t, r, Captured("by "+t.Name()+", which calls the BPF program with a record as the kernel's definitions lay it out"))
	case r.Process.PID == 0 && len(r.KernelIPs) == 0 && len(r.Parties) == 0:
		Example(t, r, Captured("by "+t.Name()+", without an agent"))
	default:
		t.Logf("the agent has no %s like %q", r.Schema.Name, r.Title)
	}
}

// Captured is the source of an example that was captured here.
func Captured(how string) string {
	var u unix.Utsname
	release := "?"
	if unix.Uname(&u) == nil {
		release, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	}
	s := fmt.Sprintf("Captured on Linux %s (%s) %s", release, runtime.GOARCH, how)
	if note := os.Getenv(ExamplesNote); note != "" {
		s += ", " + note
	}
	return s + "."
}

// examples is a running agent.
type examples struct {
	t     testing.TB
	url   string
	began time.Time
}

func examplesOf(t testing.TB) *examples {
	t.Helper()
	x := &examples{t: t, url: os.Getenv(ExamplesURL)}
	if x.url == "" {
		return nil
	}
	var node struct{ Started time.Time }
	x.get("/api/v1/node", &node)
	x.began = node.Started
	return x
}

func (x *examples) get(path string, into any) {
	x.t.Helper()
	r, err := http.Get(x.url + path)
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(into); err != nil || r.StatusCode != http.StatusOK {
		x.t.Fatalf("GET %s: %s %v", path, r.Status, err)
	}
}

// keep writes d unless there is an example that is as good.
func (x *examples) keep(d *signal.Document, source string) {
	x.t.Helper()
	if have, whole := x.kept(d.Kind); have && (whole || !isWhole(d)) {
		return
	}
	if err := WriteExample(".", d, source); err != nil {
		x.t.Fatal(err)
	}
}

// kept tells whether this run of the agent has an example of that kind already,
// and a whole one.
func (x *examples) kept(kind string) (have, whole bool) {
	st, err := os.Stat(ExampleFile(kind))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false
	}
	if err != nil {
		x.t.Fatal(err)
	}
	text, err := os.ReadFile(ExampleFile(kind))
	if err != nil {
		x.t.Fatal(err)
	}
	var d signal.Document
	if json.Unmarshal(text, &d) != nil || !st.ModTime().After(x.began) {
		return false, false
	}
	return true, isWhole(&d)
}

// isWhole tells whether nothing is missing in a document that could be there.
func isWhole(d *signal.Document) bool {
	lacks := func(f signal.Frame) bool { return f.Missing != "" }
	return len(d.Unresolved) == 0 && !slices.ContainsFunc(d.KernelStack, lacks) && !slices.ContainsFunc(d.UserStack, lacks)
}

// find returns the agent's document of r: of the same process, and next in
// time among those that say the same.
func (x *examples) find(r *signal.Record) *signal.Document {
	q := url.Values{"kind": {r.Schema.Name}, "limit": {"500"}}
	q.Set("from", r.Time.Add(-lag).UTC().Format(time.RFC3339Nano))
	q.Set("to", r.Time.Add(lag).UTC().Format(time.RFC3339Nano))
	if r.Process.PID != 0 {
		q.Set("pid", strconv.FormatUint(uint64(r.Process.PID), 10))
	}
	var page signal.EventPage
	x.get("/api/v1/events?"+q.Encode(), &page)
	if len(page.Events) == 0 {
		return nil
	}
	far := func(d *signal.Document) time.Duration {
		away := d.Time.Sub(r.Time).Abs()
		if d.Title != r.Title {
			away += lag
		}
		return away
	}
	d := slices.MinFunc(page.Events, func(a, b *signal.Document) int { return cmp.Compare(far(a), far(b)) })
	if r.Process.PID == 0 && d.Title != r.Title {
		return nil
	}
	return d
}

// private is what an example says of this machine and of this run, and no more
// of it than a reader needs.
var private = []struct{ old, new string }{
	{`/tmp/go-build\d+/b\d+/`, "/tmp/"},
	{`/tmp/Test\w+/\d+`, "/tmp/test"},
	{`/tmp/huatuo-\w+-\d+/`, "/tmp/"},
	{`/(root|home/[^/"]+)/`, "/home/user/"},
}

// WriteExample writes d and its source as an example of the probe in dir. The
// host's name, the folder of the sources and the names of temporary folders are
// replaced.
func WriteExample(dir string, d *signal.Document, source string) error {
	c := *d
	c.Host = exampleHost
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(&c); err != nil {
		return fmt.Errorf("write example: %w", err)
	}
	text := b.String()
	for _, p := range private {
		text = regexp.MustCompile(p.old).ReplaceAllString(text, p.new)
	}
	_, here, _, ok := runtime.Caller(0)
	if root, _, found := strings.Cut(here, "/internal/probes/"); ok && found && root != "" {
		text = strings.ReplaceAll(text, root+"/", "/src/huatuo/")
	}
	if err := os.MkdirAll(filepath.Join(dir, "testdata"), 0o755); err != nil {
		return fmt.Errorf("write example: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ExampleSource(d.Kind)), []byte(source+"\n"), 0o644); err != nil {
		return fmt.Errorf("write example: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ExampleFile(d.Kind)), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write example: %w", err)
	}
	return nil
}
