package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

func TestEventRoundTrip(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	start := time.Now().UTC().Truncate(time.Second)
	d := doc("oom_kill", time.Now().Add(123*time.Nanosecond), 1, func(d *signal.Document) {
		d.Host, d.Region, d.Suppressed = "node", "r", 7
		d.Process = &signal.Process{PID: 12, TID: 13, Comm: "a\"b", StartTime: &start}
		d.Container = &signal.Container{ID: "ab12", Name: "web", Pod: "p", Namespace: "n", Labels: map[string]string{"k": "v"}}
		d.KernelStack = []signal.Frame{{Function: "out_of_memory"}, {Function: "f", Line: 3}}
		d.Registers = map[string]string{"rip": "x"}
		d.Unresolved = []string{"symbols"}
	})
	appendDocs(t, s, d)
	got, err := s.Event(context.Background(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Event(context.Background(), "none"); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown id: %v", err)
	}
}

// library is a set of events in which every filter has something to select.
func library(t0 time.Time) []*signal.Document {
	proc := func(pid uint32, comm string) func(*signal.Document) {
		return func(d *signal.Document) { d.Process = &signal.Process{PID: pid, Comm: comm} }
	}
	in := func(c signal.Container) func(*signal.Document) {
		return func(d *signal.Document) { d.Container = &c }
	}
	return []*signal.Document{
		doc("oom_kill", t0, 0, proc(100, "mysqld"), in(signal.Container{ID: "deadbeef01", Name: "db", Pod: "db-0", Namespace: "prod"})),
		doc("io_stall", t0.Add(time.Minute), 1, proc(100, "mysqld"), in(signal.Container{ID: "deadbeef01", Name: "db", Pod: "db-0", Namespace: "prod"})),
		doc("io_stall", t0.Add(2*time.Minute), 2, proc(7, "kworker/0:1"), func(d *signal.Document) {
			d.Severity = signal.Critical
			d.KernelStack = []signal.Frame{{Function: "blk_mq_submit_bio"}, {Function: "do_sys_openat2"}}
		}),
		doc("packet_drop", t0.Add(3*time.Minute), 3, in(signal.Container{ID: "dbdbdb0002", Name: "web", Pod: "web-1", Namespace: "dev"}), func(d *signal.Document) {
			d.Title = "TCP packet of 10.0.0.1 dropped: NO_SOCKET"
			d.Fields = json.RawMessage(`{"seq":3,"reason":"NO_SOCKET","addr":"10.0.0.1","ratio":1.5,"ok":false,"tuple":{"sport":8080}}`)
		}),
		doc("packet_drop", t0.Add(4*time.Minute), 4, in(signal.Container{Unit: "ssh.service"}), func(d *signal.Document) {
			d.Title = `weird "title" with 100% of Ünïcode 内存不足`
		}),
	}
}

func TestFilters(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Hour).Truncate(time.Minute)
	docs := library(t0)
	appendDocs(t, s, docs...)
	fields := func(kv ...string) signal.EventFilter {
		return signal.EventFilter{Where: []signal.Condition{{Path: "field." + kv[0], Op: signal.Equal, Text: kv[1]}}}
	}
	tests := []struct {
		name string
		f    signal.EventFilter
		want string // sequence numbers, newest first
	}{
		{"all", signal.EventFilter{}, "43210"},
		{"from", signal.EventFilter{From: t0.Add(time.Minute)}, "4321"},
		{"to is exclusive", signal.EventFilter{To: t0.Add(time.Minute)}, "0"},
		{"from and to", signal.EventFilter{From: t0.Add(time.Minute), To: t0.Add(3 * time.Minute)}, "21"},
		{"far times", signal.EventFilter{From: time.Unix(-1e12, 0), To: time.Unix(1e12, 0)}, "43210"},
		{"kind", signal.EventFilter{Kinds: []string{"io_stall"}}, "21"},
		{"kinds", signal.EventFilter{Kinds: []string{"oom_kill", "packet_drop"}}, "430"},
		{"kind twice", signal.EventFilter{Kinds: []string{"oom_kill", "oom_kill"}}, "0"},
		{"unknown kind", signal.EventFilter{Kinds: []string{"x' OR 1=1 --"}}, ""},
		{"severity", signal.EventFilter{Severities: []signal.Severity{signal.Critical}}, "2"},
		{"severities", signal.EventFilter{Severities: []signal.Severity{signal.Critical, signal.Warning}}, "43210"},
		{"namespace", signal.EventFilter{Namespace: "prod"}, "10"},
		{"pod", signal.EventFilter{Pod: "web-1"}, "3"},
		{"container", signal.EventFilter{Container: "db"}, "10"}, // not the id that begins with db
		{"container id", signal.EventFilter{Container: "deadbeef01"}, "10"},
		{"container id prefix", signal.EventFilter{Container: "dbdb"}, "3"},
		{"container, no prefix of a name", signal.EventFilter{Container: "we"}, ""},
		{"unit", signal.EventFilter{Unit: "ssh.service"}, "4"},
		{"comm", signal.EventFilter{Comm: "kworker/0:1"}, "2"},
		{"pid", signal.EventFilter{PID: 100}, "10"},
		{"pid and kind", signal.EventFilter{PID: 100, Kinds: []string{"io_stall"}}, "1"},
		{"string field", fields("reason", "NO_SOCKET"), "3"},
		{"number field", fields("seq", "2"), "2"},
		{"float field", fields("ratio", "1.5"), "3"},
		{"boolean field", fields("ok", "false"), "3"},
		{"other value", fields("reason", "NO"), ""},
		{"unknown field", fields("nope", "1"), ""},
		{"hostile field", fields(`x" OR 1`, "1"), ""},
		{"quotes in value", fields("reason", `"`), ""},
		{"word", signal.EventFilter{Text: "oom_kill"}, "0"},
		{"beginning of a word", signal.EventFilter{Text: "kil"}, "0"},
		{"field value", signal.EventFilter{Text: "10.0.0.1"}, "3"},
		{"nested field value", signal.EventFilter{Text: "8080"}, "3"},
		{"function", signal.EventFilter{Text: "do_sys_openat2"}, "2"},
		{"part of a function", signal.EventFilter{Text: "openat"}, "2"},
		{"command", signal.EventFilter{Text: "mysqld io_stall"}, "1"},
		{"pod by text", signal.EventFilter{Text: "web-1"}, "3"},
		{"all words", signal.EventFilter{Text: "packet dropped nothere"}, ""},
		{"case", signal.EventFilter{Text: "TCP PACKET"}, "3"},
		{"phrase", signal.EventFilter{Text: `"packet of 10"`}, "3"},
		{"phrase in another order", signal.EventFilter{Text: `"of packet"`}, ""},
		{"closed phrase is no prefix", signal.EventFilter{Text: `"mysq"`}, ""},
		{"open phrase is one", signal.EventFilter{Text: `"mysq`}, "10"},
		{"no word", signal.EventFilter{Text: ` " - * `}, "43210"},
		{"operators are words", signal.EventFilter{Text: "mysqld OR kworker"}, ""},
		{"column syntax", signal.EventFilter{Text: "title:mysqld"}, ""},
		{"accents", signal.EventFilter{Text: "unicode"}, "4"},
		{"chinese", signal.EventFilter{Text: "内存"}, "4"},
		{"before", signal.EventFilter{Before: docs[2].ID}, "10"},
		{"after", signal.EventFilter{After: docs[2].ID}, "43"},
		{"between", signal.EventFilter{After: docs[0].ID, Before: docs[3].ID}, "21"},
		{"everything", signal.EventFilter{From: t0, Kinds: []string{"io_stall", "oom_kill"}, Severities: []signal.Severity{signal.Warning}, Text: "mysqld",
			Namespace: "prod", Pod: "db-0", Container: "db", Comm: "mysqld", PID: 100, Where: []signal.Condition{{Path: "field.device", Op: signal.Equal, Text: "sda"}, {Path: "field.seq", Op: signal.Equal, Text: "1"}}, Limit: 5}, "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := s.Events(context.Background(), tt.f)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, d := range p.Events {
				for i := range docs {
					if docs[i].ID == d.ID {
						got += fmt.Sprint(i)
					}
				}
			}
			if got != tt.want || p.Next != "" {
				t.Errorf("got %q (next %q), want %q", got, p.Next, tt.want)
			}
			// The timeline counts what the list shows.
			bs, err := s.Timeline(context.Background(), tt.f, 7)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, b := range bs {
				for _, c := range b.Count {
					n += c
				}
			}
			if n != len(tt.want) {
				t.Errorf("the timeline counts %d, want %d", n, len(tt.want))
			}
		})
	}
}

func TestPages(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Hour)
	var all []*signal.Document
	for i := range 250 {
		all = append(all, doc([]string{"a", "b", "c"}[i%3], t0.Add(time.Duration(i/10)*time.Second), i))
	}
	appendDocs(t, s, all...)
	for _, f := range []signal.EventFilter{{}, {Kinds: []string{"a"}}, {Kinds: []string{"c", "a"}}, {From: t0, To: t0.Add(time.Hour)}, {Text: "event"}} {
		want, err := s.Events(context.Background(), signal.EventFilter{Limit: 1000, Kinds: f.Kinds})
		if err != nil {
			t.Fatal(err)
		}
		f.Limit = 7
		var got []string
		for {
			p, err := s.Events(context.Background(), f)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, titles(p)...)
			if p.Next == "" {
				break
			}
			if len(p.Events) != 7 {
				t.Fatalf("a page of %d with a next one", len(p.Events))
			}
			f.Before = p.Next
		}
		if d := cmp.Diff(titles(want), got); d != "" {
			t.Errorf("%+v: %s", f, d)
		}
	}
	if p, err := s.Events(context.Background(), signal.EventFilter{}); err != nil || len(p.Events) != defaultPage || p.Events[0].ID != all[249].ID {
		t.Errorf("default page: %d events, %v", len(p.Events), err)
	}
}

// Events may come late or with a clock that was set meanwhile: a time range
// must still find them.
func TestNewestEventID(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if id := s.NewestEventID(context.Background()); id != "" {
		t.Errorf("an empty store has %q", id)
	}
	now := time.Now()
	newest := doc("a", now, 2)
	appendDocs(t, s, newest, doc("a", now.Add(-time.Hour), 1))
	if id := s.NewestEventID(context.Background()); id != newest.ID {
		t.Errorf("got %s, want %s", id, newest.ID)
	}
}

func TestTimeAndIDApart(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	now := time.Now()
	late := doc("late", now, 1)
	late.Time = now.Add(-30 * 24 * time.Hour).UTC()
	early := doc("early", now, 2)
	early.Time = now.Add(30 * 24 * time.Hour).UTC()
	appendDocs(t, s, doc("plain", now, 0), late, early)
	foreign := doc("foreign", now.Add(-90*24*time.Hour), 3)
	check := func(at time.Time, want string) {
		t.Helper()
		p, err := s.Events(context.Background(), signal.EventFilter{From: at.Add(-time.Minute), To: at.Add(time.Minute)})
		if err != nil || len(p.Events) != 1 || p.Events[0].Kind != want {
			t.Errorf("at %v: %v %v, want %s", at, titles(p), err, want)
		}
	}
	check(late.Time, "late")
	check(early.Time, "early")
	check(now, "plain")
	foreign.ID = "not a ULID"
	appendDocs(t, s, foreign)
	check(foreign.Time, "foreign")
	check(now, "plain")
}

func TestRepeatedEvents(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	d := doc("a", time.Now(), 1)
	again := *d
	again.Title = "changed"
	appendDocs(t, s, d, d, doc("a", time.Now(), 2))
	appendDocs(t, s, &again)
	p, err := s.Events(context.Background(), signal.EventFilter{})
	if err != nil || len(p.Events) != 2 || p.Events[1].Title != d.Title {
		t.Errorf("%v %v", titles(p), err)
	}
	if p, _ := s.Events(context.Background(), signal.EventFilter{Text: "changed"}); len(p.Events) != 0 {
		t.Error("the second text was indexed")
	}
	if st := s.Stats(); st.Events != 2 || st.Repeated != 2 {
		t.Errorf("stats %+v", st)
	}
}

func TestBadEventsDoNotHoldUpTheOthers(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	bad := doc("bad", time.Now(), 1, func(d *signal.Document) { d.Fields = json.RawMessage("{") })
	anon := doc("anon", time.Now(), 2, func(d *signal.Document) { d.ID = "" })
	err := s.AppendEvents(context.Background(), []*signal.Document{bad, doc("good", time.Now(), 3), anon})
	if err == nil || !strings.Contains(err.Error(), bad.ID) || !strings.Contains(err.Error(), "anon") {
		t.Errorf("error %v", err)
	}
	if p, err := s.Events(context.Background(), signal.EventFilter{}); err != nil || len(p.Events) != 1 || p.Events[0].Kind != "good" {
		t.Errorf("kept %v %v", titles(p), err)
	}
	if st := s.Status(); st.Error != "" {
		t.Errorf("the store is well, but says %q", st.Error)
	}
}

func TestTimeline(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Unix(1_700_000_000, 0).UTC()
	for i := range 60 {
		appendDocs(t, s, doc([]string{"a", "b"}[i%2], t0.Add(time.Duration(i)*time.Second), i))
	}
	bs, err := s.Timeline(context.Background(), signal.EventFilter{From: t0, To: t0.Add(30 * time.Second)}, 3)
	want := []signal.EventBucket{
		{Time: t0, Count: map[string]int{"a": 5, "b": 5}},
		{Time: t0.Add(10 * time.Second), Count: map[string]int{"a": 5, "b": 5}},
		{Time: t0.Add(20 * time.Second), Count: map[string]int{"a": 5, "b": 5}},
	}
	if d := cmp.Diff(want, bs); d != "" || err != nil {
		t.Error(err, d)
	}
	bs, err = s.Timeline(context.Background(), signal.EventFilter{Kinds: []string{"b"}}, 4) // oldest to now
	if err != nil || len(bs) != 4 || !bs[0].Time.Equal(t0) || bs[0].Count["b"] != 30 || len(bs[3].Count) != 0 {
		t.Errorf("%v %v", bs, err)
	}
	empty := open(t, t.TempDir(), Options{})
	if bs, err := empty.Timeline(context.Background(), signal.EventFilter{}, 2); err != nil || len(bs) != 2 {
		t.Errorf("of nothing: %v %v", bs, err)
	}
	if bs, err := s.Timeline(context.Background(), signal.EventFilter{From: time.Now().Add(time.Hour)}, 2); err != nil || len(bs) != 2 {
		t.Errorf("of the future: %v %v", bs, err)
	}
}

// Readers, writers and retention at once; a reader must not wait for a writer.
func TestConcurrent(t *testing.T) {
	s := open(t, t.TempDir(), Options{EventBytes: 64 << 10})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	loop := func(f func(i int) error) {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := f(i); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	t0 := time.Now()
	for w := range 2 {
		loop(func(i int) error {
			return s.AppendEvents(context.Background(), []*signal.Document{noisy(w*1_000_000+i, t0)})
		})
		loop(func(i int) error {
			_, err := s.Events(context.Background(), signal.EventFilter{Text: "worker", Kinds: []string{"oom_kill", "io_stall"}, From: t0})
			return err
		})
	}
	loop(func(i int) error {
		_, err := s.Timeline(context.Background(), signal.EventFilter{}, 10)
		return err
	})
	loop(func(i int) error {
		return s.AppendSamples(context.Background(), t0.Add(time.Duration(i)*time.Second), []signal.Sample{gaugeOf(1, "a"), gaugeOf(1, fmt.Sprint(i%5)),
			{Schema: hist, Hist: &signal.Hist{Counts: []uint64{uint64(i)}}}})
	})
	loop(func(i int) error {
		query(t, s, "sum(rate(huatuo_test_value[1m]))", t0)
		query(t, s, "sum(rate(huatuo_test_seconds[1m]))", t0.Add(time.Minute))
		return nil
	})
	loop(func(i int) error {
		s.events.retain(context.Background())
		if st := s.Status(); st.Error != "" {
			return errors.New(st.Error)
		}
		s.sync(context.Background())
		time.Sleep(5 * time.Millisecond)
		return nil
	})
	wg.Wait()
	if st := s.Stats(); st.Events == 0 || st.EventsErased == 0 {
		t.Errorf("stats %+v", st)
	}
}
