package kernlog

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// recorded reads records of a file in the form of /dev/kmsg.
func recorded(t testing.TB, path string) []kmsg.Record {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []kmsg.Record
	for i, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		if bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		r, err := kmsg.Parse(line)
		if err != nil {
			t.Fatalf("%s:%d: %v", path, i+1, err)
		}
		out = append(out, r)
	}
	return out
}

// lines are records of the kernel with these texts.
func lines(text string) []kmsg.Record {
	var out []kmsg.Record
	for _, l := range strings.Split(strings.Trim(text, "\n"), "\n") {
		out = append(out, kmsg.Record{Text: l, SinceBoot: time.Duration(len(out)) * time.Millisecond})
	}
	return out
}

// parse reads records as far apart as they were written, and then waits until nothing more is open.
func parse(records []kmsg.Record) []*report {
	p := &parser{tick: 4 * time.Millisecond}
	now := time.Unix(0, 0)
	for i := range records {
		now = time.Unix(0, 0).Add(records[i].SinceBoot)
		p.due(now)
		p.push(&records[i], now)
	}
	p.due(now.Add(longest))
	if len(p.open) > 0 {
		panic("BUG: a report is open for ever")
	}
	return p.take()
}

// TestRecorded: reports of several kernels and architectures.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/*.kmsg")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			var docs []*signal.Document
			for _, r := range parse(recorded(t, f)) {
				rec := r.record()
				rec.Time = time.Unix(0, int64(r.stamp))
				d, err := rec.Document()
				if err != nil {
					t.Fatal(err)
				}
				docs = append(docs, d)
			}
			golden(t, strings.TrimSuffix(f, ".kmsg")+".golden.json", docs)
		})
	}
}

func golden(t *testing.T, path string, docs []*signal.Document) {
	t.Helper()
	got, err := json.MarshalIndent(docs, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as in %s; run with -update and look at the difference:\n%s", path, got)
	}
	if m := regexp.MustCompile(`(?:ff[0-9a-f]{2})[0-9a-f]{12}`).FindAll(got, -1); m != nil {
		for _, a := range m {
			if isKernel(string(a)) {
				t.Errorf("kernel address %s", a)
			}
		}
	}
}

func short(fs []signal.Frame) string {
	var s []string
	for _, f := range fs {
		x := f.Function
		if f.Offset != 0 {
			x += fmt.Sprintf("+%#x", f.Offset)
		}
		if f.Module != "" {
			x += "[" + f.Module + "]"
		}
		s = append(s, x)
	}
	return strings.Join(s, " ")
}
