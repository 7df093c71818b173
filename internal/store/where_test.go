package store

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// whereDocs have a member of every form.
func whereDocs(t0 time.Time) []*signal.Document {
	with := func(i int, fields string, more func(*signal.Document)) *signal.Document {
		return doc("k", t0.Add(time.Duration(i)*time.Second), i, func(d *signal.Document) {
			d.Fields = json.RawMessage(fields)
			if more != nil {
				more(d)
			}
		})
	}
	return []*signal.Document{
		with(0, `{"seconds":0.05,"n":3,"what":"Disk /dev/sda","ok":true,"none":null}`, func(d *signal.Document) {
			d.Verdict, d.Known = "The group's quota was used up.", []string{"bug-1", "bug-2"}
		}),
		with(1, `{"seconds":0.0499999,"n":30,"what":"","ok":false,"list":[1,2.5,"x"]}`, func(d *signal.Document) {
			d.KernelStack = []signal.Frame{{Function: "schedule"}, {Function: "io_schedule", Line: 7}}
		}),
		with(2, `{"culprit":{"process":{"comm":"stress \"x\"","pid":7},"list":[{"a":1},{"a":2}]},"n":"3"}`, func(d *signal.Document) {
			d.Process = &signal.Process{PID: 9, Comm: "nginx", Exe: "/usr/sbin/nginx"}
			d.Resources = &signal.Resources{Host: &signal.HostResources{Load1: 12.5}}
		}),
		with(3, `{"n":1e3,"big":9007199254740993,"empty":[],"obj":{}}`, nil),
		with(4, `{}`, nil),
	}
}

// TestWhere holds what SQLite selects to what signal.MatchAll, which filters
// the live stream, lets through; want is the second opinion on both.
func TestWhere(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	docs := whereDocs(time.Now().Add(-time.Hour).Truncate(time.Minute))
	appendDocs(t, s, docs...)
	for _, tt := range []struct{ where, want string }{
		{"field.seconds >= 50ms", "0"},
		{"field.seconds < 0.05", "1"},
		{"field.seconds = 50ms", "0"},
		{"field.seconds != 50ms", "4321"},
		{"field.seconds > 1us", "10"},
		{"field.n = 3", "20"}, // a number, and a text of the same look
		{"field.n > 3", "31"},
		{"field.n <= 3", "0"},
		{"field.n = 1000", "3"},
		{"field.n = 1k", "3"},
		{"field.big = 9007199254740993", "3"},
		{"field.what contains disk", "0"},
		{"field.what contains SDA", "0"},
		{`field.what = "Disk /dev/sda"`, "0"},
		{`field.what = ""`, "4321"},
		{`field.what != ""`, "0"},
		{"field.ok = true", "0"},
		{"field.ok != true", "4321"},
		{"field.ok = 1", ""},
		{`field.none = ""`, "43210"},
		{"field.list = 2.5", "1"},
		{"field.list = x", "1"},
		{"field.list > 2", "1"},
		{`field.empty = ""`, "43210"},
		{`field.obj != ""`, "3"},
		{"field.obj = x", ""},
		{`field.culprit.process.comm = "stress \"x\""`, "2"},
		{"field.culprit.process.pid < 8", "2"},
		{"field.culprit.list.a = 2", "2"},
		{"field.culprit.process.comm.more = 1", ""},
		{"verdict contains QUOTA", "0"},
		{`verdict = ""`, "4321"},
		{"known = bug-2", "0"},
		{"known != bug-2", "4321"},
		{"kernel_stack.function = schedule", "1"},
		{"kernel_stack.function contains io_", "1"},
		{"kernel_stack.line >= 7", "1"},
		{"process.exe contains nginx", "2"},
		{"resources.host.load1 > 12", "2"},
		{"field.n = 3 and process.comm = nginx", "2"},
		{"title contains %", ""},
		{"fields.n = 30", "1"},
	} {
		t.Run(tt.where, func(t *testing.T) {
			list, err := signal.ParseWhere(tt.where)
			if err != nil {
				t.Fatal(err)
			}
			p, err := s.Events(context.Background(), signal.EventFilter{Where: list})
			if err != nil {
				t.Fatal(err)
			}
			sql, live := "", ""
			for i, d := range slices.Backward(docs) {
				digit := string(rune('0' + i))
				if slices.ContainsFunc(p.Events, func(e *signal.Document) bool { return e.ID == d.ID }) {
					sql += digit
				}
				if signal.MatchAll(list, d) {
					live += digit
				}
			}
			if sql != tt.want || live != tt.want {
				t.Errorf("SQL selects %q, MatchAll %q, want %q", sql, live, tt.want)
			}
		})
	}
}

// TestOldest: the other order, and its pages.
func TestOldest(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	docs := whereDocs(time.Now().Add(-time.Hour))
	appendDocs(t, s, docs...)
	f := signal.EventFilter{Oldest: true, Limit: 2}
	var got []string
	for range 3 {
		p, err := s.Events(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range p.Events {
			got = append(got, d.ID)
		}
		f.After = p.Next
	}
	for i, d := range docs {
		if i >= len(got) || got[i] != d.ID {
			t.Fatalf("order %v", got)
		}
	}
}
