package store

import (
	"context"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{" \t", ""},
		{"-- ** ()", ""},
		{"oom", `"oom" *`},
		{"oom kill ", `"oom" AND "kill" *`},
		{`"out of memory"`, `"out of memory"`},
		{`kill "out of`, `"kill" AND "out of" *`},
		{`a"b"c`, `"a" AND "b" AND "c" *`},
		{"NEAR(a b, 3)", `"NEAR(a" AND "b," AND "3)" *`},
		{"a\x00b", `"a b" *`},
		{"\xff\xfea", `"a" *`},
	} {
		if got := match(tt.in); got != tt.want {
			t.Errorf("match(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
	if got := match(strings.Repeat("word ", 1000)); strings.Count(got, "AND") != maxQueryWords-1 {
		t.Errorf("a long text makes %d terms", 1+strings.Count(got, "AND"))
	}
}

// FuzzText asks for any text: the answer may be empty, but is no error.
func FuzzText(f *testing.F) {
	for _, s := range []string{"oom", `"a b`, "a*", "NEAR(a)", "^a", "title:x", "a AND NOT b", `""`, `"*`, "\x00", "\xff", "内存 不足", "{a b}:c", "a+b", "-a", "'", ";--"} {
		f.Add(s)
	}
	s, err := Open(f.TempDir(), Options{}, discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	appendDocs(f, s, library(time.Now().Add(-time.Hour))...)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := s.Events(context.Background(), signal.EventFilter{Text: text}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		// Whatever a document says, it can be kept and found by its own words.
		if _, err := s.Events(context.Background(), signal.EventFilter{Where: []signal.Condition{{Path: text, Op: signal.Equal, Text: text}, {Path: "field.seq", Op: signal.Contains, Text: text}}, Comm: text, Kinds: []string{text}, Container: text, Before: text}); err != nil {
			t.Errorf("%q in other filters: %v", text, err)
		}
	})
}

func FuzzDocument(f *testing.F) {
	f.Add("title", `{"a":"b"}`)
	f.Add("\x00", `[1,{"x":null}]`)
	s, err := Open(f.TempDir(), Options{}, discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	n := 0
	f.Fuzz(func(t *testing.T, title, fields string) {
		n++
		d := doc("x", time.Now(), n, func(d *signal.Document) { d.Title, d.Fields = title, []byte(fields) })
		if err := s.AppendEvents(context.Background(), []*signal.Document{d}); err != nil {
			return // fields that are no JSON
		}
		if _, err := s.Event(context.Background(), d.ID); err != nil {
			t.Error(err)
		}
	})
}
