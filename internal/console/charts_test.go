package console

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

// TestChoose: what a schema says decides, not a name that somebody wrote down.
func TestChoose(t *testing.T) {
	metric := func(name, probe string, typ signal.MetricType, area signal.Area, scope signal.Scope, fields ...signal.Field) CatalogEntry {
		return CatalogEntry{signal.Schema{Name: name, Kind: signal.Metric, Type: typ, Area: area, Scope: scope, Fields: fields}, probe}
	}
	resource := signal.Field{Name: "resource", Values: []string{"cpu", "memory", "io"}}
	metrics := []CatalogEntry{
		metric("huatuo_signals_total", "", signal.Counter, signal.AreaAgent, signal.Host),
		metric("huatuo_load", "load", signal.Gauge, signal.AreaCPU, signal.Host),
		metric("huatuo_pressure_seconds_total", "pressure", signal.Counter, signal.AreaSystem, signal.Host, resource),
		metric("huatuo_runqueue_wait_seconds", "runqueue", signal.Histogram, signal.AreaSched, signal.Host),
		metric("huatuo_container_runqueue_wait_seconds", "runqueue", signal.Histogram, signal.AreaSched, signal.Workload),
		metric("huatuo_container_cpu_throttled_total", "cgroupstat", signal.Counter, signal.AreaCPU, signal.Workload),
		metric("huatuo_fs_wait_seconds", "runqueue", signal.Histogram, signal.AreaBlock, signal.Host), // of the same probe, but about something else
		metric("huatuo_tcp_drops_total", "tcp", signal.Counter, signal.AreaNetwork, signal.Host),
		metric("huatuo_block_wait_seconds", "blockio", signal.Histogram, signal.AreaBlock, signal.Host),
	}
	kind := func(name, probe string, area signal.Area) CatalogEntry {
		return CatalogEntry{signal.Schema{Name: name, Kind: signal.Event, Area: area}, probe}
	}
	for _, tt := range []struct {
		name string
		kind CatalogEntry
		work map[string]string
		want string
	}{
		{"of a workload", kind("sched_stall", "runqueue", signal.AreaSched), map[string]string{"unit": "x"},
			`huatuo_container_runqueue_wait_seconds{unit="x"} huatuo_runqueue_wait_seconds{} huatuo_pressure_seconds_total{resource="cpu"} huatuo_container_cpu_throttled_total{unit="x"} huatuo_fs_wait_seconds{} huatuo_load{} huatuo_signals_total{name="sched_stall"}`},
		{"another area", kind("io_stall", "blockio", signal.AreaBlock), nil,
			`huatuo_block_wait_seconds{} huatuo_pressure_seconds_total{resource="io"} huatuo_fs_wait_seconds{} huatuo_signals_total{name="io_stall"}`},
		{"an area without much", kind("panic", "kernlog", signal.AreaSystem), nil, `huatuo_pressure_seconds_total{} huatuo_signals_total{name="panic"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := metrics
			if tt.work == nil {
				list = nil
				for _, m := range metrics {
					if m.Scope != signal.Workload {
						list = append(list, m)
					}
				}
			}
			var got []string
			for _, c := range choose(list, tt.kind, tt.work) {
				got = append(got, c.Metric+selector("", c.Match))
			}
			if d := cmp.Diff(strings.Split(tt.want, " "), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestCharts(t *testing.T) {
	w := newWorld(t)
	w.metrics.names = []string{"huatuo_memory_bytes", "huatuo_cpu_seconds_total"}
	rec := w.get("/api/v1/events/" + doc(1).ID + "/charts")
	var got chartList
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := chartList{From: doc(1).Time.Add(-chartWindow), To: doc(1).Time.Add(chartWindow), Charts: []EventChart{{"huatuo_memory_bytes", map[string]string{}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestNeighbours: the closest relation counts, once.
func TestNeighbours(t *testing.T) {
	w := newWorld(t)
	list := docs(0, 6)
	for _, d := range list {
		d.Container = nil
	}
	d := list[2]
	d.Process.PID = 77
	d.Container = &signal.Container{Unit: "a.service"}
	d.Fields = json.RawMessage(`{"cpu":3}`)
	d.Links = []signal.Link{{ID: list[5].ID, Relation: signal.Effect}, {ID: doc(99).ID, Relation: signal.Cause}}
	list[0].Process.PID = 77
	list[1].Container = &signal.Container{Unit: "a.service"}
	list[3].Fields = json.RawMessage(`{"cpu":3}`)
	w.events.docs = list
	got, err := w.neighbours(context.Background(), d, time.Minute, 10)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, n := range got.List {
		have = append(have, n.Relation+" "+n.Event.Title)
	}
	if d := cmp.Diff([]string{"effect event 5", "process event 0", "workload event 1", "cpu event 3", "host event 4"}, have); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
