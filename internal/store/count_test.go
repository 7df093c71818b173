package store

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

func TestCountEvents(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Hour).Truncate(time.Minute).UTC()
	docs := library(t0)
	// A container that systemd started has a unit too: it counts as a container.
	docs = append(docs, doc("io_stall", t0.Add(5*time.Minute), 5, func(d *signal.Document) {
		d.Container = &signal.Container{ID: "deadbeef01", Name: "db", Pod: "db-0", Namespace: "prod", Unit: "docker.service"}
	}))
	appendDocs(t, s, docs...)
	ctx := context.Background()
	at := func(m int) *time.Time { x := t0.Add(time.Duration(m) * time.Minute); return &x }
	db := signal.EventCount{Namespace: "prod", Pod: "db-0", Container: "db"}
	withCount := func(c signal.EventCount, kind string, n int) signal.EventCount {
		c.Kind, c.Count = kind, n
		return c
	}
	for _, tt := range []struct {
		name string
		f    signal.EventFilter
		g    signal.EventGrouping
		want []signal.EventCount
	}{
		{"all", signal.EventFilter{}, signal.EventGrouping{}, []signal.EventCount{{Count: 6}}},
		{"kind", signal.EventFilter{}, signal.EventGrouping{Kind: true, Limit: 2}, []signal.EventCount{{Kind: "io_stall", Count: 3}, {Kind: "packet_drop", Count: 2}}},
		{"workload and kind", signal.EventFilter{Namespace: "prod"}, signal.EventGrouping{Kind: true, Workload: true}, []signal.EventCount{withCount(db, "io_stall", 2), withCount(db, "oom_kill", 1)}},
		{"unit", signal.EventFilter{Unit: "ssh.service"}, signal.EventGrouping{Workload: true}, []signal.EventCount{{Unit: "ssh.service", Count: 1}}},
		{"severity", signal.EventFilter{Kinds: []string{"io_stall"}}, signal.EventGrouping{Severity: true}, []signal.EventCount{{Severity: signal.Warning, Count: 2}, {Severity: signal.Critical, Count: 1}}},
		{"time", signal.EventFilter{From: t0, To: t0.Add(4 * time.Minute)}, signal.EventGrouping{Buckets: 2}, []signal.EventCount{{Time: at(0), Count: 2}, {Time: at(2), Count: 2}}},
		{"nothing", signal.EventFilter{Comm: "nobody"}, signal.EventGrouping{Kind: true}, []signal.EventCount{}},
		{"a condition", signal.EventFilter{Where: []signal.Condition{{Path: "field.reason", Op: signal.Equal, Text: "NO_SOCKET"}}}, signal.EventGrouping{Kind: true}, []signal.EventCount{{Kind: "packet_drop", Count: 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.CountEvents(ctx, tt.f, tt.g)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestEventValues(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	appendDocs(t, s, library(time.Now().Add(-time.Hour))...)
	for _, tt := range []struct {
		path, part string
		f          signal.EventFilter
		want       []signal.ValueCount
	}{
		{"comm", "", signal.EventFilter{}, []signal.ValueCount{{Value: "mysqld", Count: 2}, {Value: "kworker/0:1", Count: 1}}},
		{"comm", "WORK", signal.EventFilter{}, []signal.ValueCount{{Value: "kworker/0:1", Count: 1}}},
		{"comm", "", signal.EventFilter{Kinds: []string{"oom_kill"}}, []signal.ValueCount{{Value: "mysqld", Count: 1}}},
		{"pid", "", signal.EventFilter{Comm: "kworker/0:1"}, []signal.ValueCount{{Value: "7", Count: 1}}},
		{"field.reason", "", signal.EventFilter{}, []signal.ValueCount{{Value: "NO_SOCKET", Count: 1}}},
		{"field.ok", "", signal.EventFilter{}, []signal.ValueCount{{Value: "true", Count: 4}, {Value: "false", Count: 1}}},
		{"field.tuple.sport", "", signal.EventFilter{}, []signal.ValueCount{{Value: "8080", Count: 1}}},
		{"kernel_stack.function", "blk", signal.EventFilter{}, []signal.ValueCount{{Value: "blk_mq_submit_bio", Count: 1}}},
		{"field.nothing", "", signal.EventFilter{}, []signal.ValueCount{}},
	} {
		t.Run(tt.path+" "+tt.part, func(t *testing.T) {
			got, err := s.EventValues(context.Background(), tt.f, tt.path, tt.part, 5)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if _, err := s.EventValues(context.Background(), signal.EventFilter{}, "a'b", "", 5); err == nil {
		t.Error("a hostile path is taken")
	}
}
