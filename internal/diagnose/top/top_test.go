package top

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

// machine makes samples as the gatherer does.
type machine struct {
	schemas map[string]*signal.Schema
	samples []signal.Sample
}

// add adds a sample; labels are given as name=value, workload is ns/pod/ctr or a
// unit, empty for a metric of the host.
func (m *machine) add(metric, workload string, v float64, h *signal.Hist, labels ...string) {
	s := m.schemas[metric]
	if s == nil {
		s = &signal.Schema{Name: metric, Type: signal.Gauge}
		for _, l := range labels {
			n, _, _ := strings.Cut(l, "=")
			s.Fields = append(s.Fields, signal.Field{Name: n})
		}
		if workload != "" {
			s.Scope = signal.Workload
		}
		m.schemas[metric] = s
	}
	x := signal.Sample{Schema: s, Value: v, Hist: h}
	for _, l := range labels {
		_, value, _ := strings.Cut(l, "=")
		x.Labels = append(x.Labels, value)
	}
	if p := strings.Split(workload, "/"); len(p) == 3 {
		x.Labels = append(x.Labels, p[0], p[1], p[2], "")
	} else if workload != "" {
		x.Labels = append(x.Labels, "", "", "", workload)
	}
	if metric == cpuCulprit && labels[0] != "culprit=idle" {
		x.Note = "gzip"
	}
	m.samples = append(m.samples, x)
}

func waits(n uint64, sum float64) *signal.Hist {
	return &signal.Hist{First: -9, Counts: []uint64{n}, Count: n, Sum: sum}
}

// two is a machine with a victim and a culprit, seen for ten seconds.
func two() *View {
	m := &machine{schemas: map[string]*signal.Schema{}}
	culprit := func(victim, kind, unit string, seconds float64) {
		m.add(cpuCulprit, victim, seconds, nil, "culprit="+kind, "culprit_namespace=", "culprit_pod=", "culprit_container=", "culprit_unit="+unit)
	}
	m.add(cpuUsage, "shop/web-1/app", 5, nil)
	m.add(cpuUsage, "batch.service", 15, nil)
	m.add(cpuUsage, "idle.service", 0, nil)
	m.add(cpuWait, "shop/web-1/app", 0, waits(100, 20))
	culprit("shop/web-1/app", "workload", "batch.service", 15)
	culprit("shop/web-1/app", "idle", "", 5)
	m.add(cpuPeriods, "shop/web-1/app", 100, nil)
	m.add(cpuThrottled, "shop/web-1/app", 25, nil)
	m.add(cpuLimit, "shop/web-1/app", 2, nil)
	m.add(memoryUsed, "shop/web-1/app", 600<<20, nil)
	m.add(memoryLimit, "shop/web-1/app", 1<<30, nil)
	m.add(pressure, "shop/web-1/app", 3, nil, "resource=cpu", "kind=some")
	m.add(pressure, "shop/web-1/app", 9, nil, "resource=cpu", "kind=full")
	m.add(ioBytes, "batch.service", 10<<20, nil, "op=read")
	m.add(ioBytes, "batch.service", 20<<20, nil, "op=write")
	m.add(ioLatency, "batch.service", 0, waits(10, 1), "op=read")
	m.add(retransmits, "shop/web-1/app", 30, nil)
	m.add(drops, "shop/web-1/app", 0, nil)
	m.add(hostCPU, "", 15, nil, "mode=user")
	m.add(hostCPU, "", 4, nil, "mode=idle")
	m.add(hostCPU, "", 1, nil, "mode=steal")
	m.add(hostCPU, "", 15, nil, "mode=guest")
	m.add(hostLoad, "", 3.5, nil, "window=1m")
	m.add(hostMemory, "", 8<<30, nil)
	m.add(hostAvailable, "", 2<<30, nil)
	w := window.New(nil, m.samples, 10)
	return New(w, time.Unix(1, 0).UTC(), 2, map[window.Workload]int{{Unit: "batch.service"}: 3, {}: 9})
}

func TestView(t *testing.T) {
	v := two()
	if len(v.Workload) != 3 || v.Workload[0].Name != "batch.service" || v.Workload[1].Name != "shop/web-1/app" {
		t.Fatalf("workloads %+v", v.Workload)
	}
	for _, tt := range []struct {
		name string
		got  *float64
		want float64
	}{
		{"busy", v.Host.Busy, 0.75}, {"steal", v.Host.Steal, 0.05}, {"load", v.Host.Load1, 3.5}, {"memory", v.Host.MemoryUsed, 6 << 30},
		{"cpu", v.Workload[0].CPU, 1.5}, {"blame", v.Workload[0].Blame, 1.5}, {"read", v.Workload[0].Read, 1 << 20}, {"write", v.Workload[0].Write, 2 << 20},
		{"wait", v.Workload[1].Wait, 2}, {"throttled", v.Workload[1].Throttled, 0.25}, {"limit", v.Workload[1].MemoryLimit, 1 << 30}, {"retransmits", v.Workload[1].Retransmits, 3},
		{"drops", v.Workload[1].Drops, 0},
	} {
		if tt.got == nil || *tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	victim := v.Workload[1]
	if c := victim.Culprit; c == nil || c.Name != "batch.service" || c.Share != 0.75 || c.Command != "gzip" {
		t.Errorf("culprit %+v", c)
	}
	if p := victim.Pressure; p == nil || p.CPU != 0.3 || p.Memory != 0 {
		t.Errorf("pressure %+v", p)
	}
	if v.Workload[0].Events != 3 || v.Workload[0].Wait != nil || v.Workload[0].Throttled != nil || v.Host.WaitP99 != nil {
		t.Errorf("what is not measured is absent: %+v", v.Workload[0])
	}
	b, err := json.Marshal(v)
	if err != nil || strings.Contains(string(b), "null") || !strings.Contains(string(b), `"waiting_tasks":2`) {
		t.Errorf("%v %s", err, b)
	}
}

func TestSort(t *testing.T) {
	v := two()
	keys := map[byte]bool{'q': true}
	for _, o := range Orders() {
		if o.Name[0] != o.Key {
			t.Errorf("%s has the key %c: want its first letter, which is what a screen marks", o.Name, o.Key)
		}
		want := "shop/web-1/app"
		if o.Name == "cpu" || o.Name == "blame" || o.Name == "io" || o.Name == "latency" || o.Name == "events" {
			want = "batch.service"
		}
		if v.Sort(o.Name); v.Workload[0].Name != want {
			t.Errorf("by %s: %s comes first, want %s", o.Name, v.Workload[0].Name, want)
		}
		if keys[o.Key] {
			t.Errorf("two keys %c", o.Key)
		}
		keys[o.Key] = true
	}
	v.Sort("nonsense")
}

// TestText: no line is wider than the screen, whatever that is, and the columns
// that matter are there.
func TestText(t *testing.T) {
	v := two()
	v.Workload[2].Name = "kubepods/very-long-namespace-of-somebody/a-pod-with-a-hash-7f9c6d5b8-x2x4z/sidecar"
	for _, tt := range []struct {
		width int
		want  []string
	}{
		{40, []string{"*CPU", "WAIT"}}, {80, []string{"*CPU", "WAIT", "BLAME", "THR%", "MEM"}},
		{120, []string{"*CPU", "CULPRIT", "75% batch.service (gzip)", "IO99", "LIM%"}}, {200, []string{"RETR/s", "PSI c/m/i", "x2x4z/sidecar", "75% batch.service (gzip)"}},
	} {
		lines := v.Text(tt.width, 20, "cpu")
		all := strings.Join(lines, "\n")
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > tt.width {
				t.Errorf("%d columns on a screen of %d: %s", n, tt.width, l)
			}
		}
		for _, w := range tt.want {
			if !strings.Contains(all, w) {
				t.Errorf("at %d columns %q is missing:\n%s", tt.width, w, all)
			}
		}
	}
	short := v.Text(80, 1, "wait")
	if last := short[len(short)-1]; last != "2 more" || !strings.Contains(strings.Join(short, "\n"), "*WAIT") {
		t.Errorf("%q", short)
	}
	if lines := (&View{Host: Host{CPUs: 4}}).Text(80, 20, "cpu"); lines[0] != "4 CPUs" {
		t.Errorf("nothing measured: %q", lines)
	}
}

func TestCells(t *testing.T) {
	for want, got := range map[string]string{
		"-": size(nil), "999": size(ptr(999)), "1.0K": size(ptr(1000)), "1.5M": size(ptr(1.5 * (1 << 20))), "600M": size(ptr(600 << 20)), "12G": size(ptr(12 << 30)),
		"15us": short(ptr(15e-6)), "1.5ms": short(ptr(0.0015)), "20ms": short(ptr(0.02)), "2.5s": short(ptr(2.5)), "0": cores(ptr(0.001)), "1.25": cores(ptr(1.25)),
		"12.3": cores(ptr(12.345)), "123": cores(ptr(123.4)), "<0.1": rate(ptr(0.01)), "3.0": rate(ptr(3)), "ab…yz": cut("abcdefwxyz", 5), "abc": cut("abc", 3),
		"40% its quota": (&Culprit{Kind: "quota", Share: 0.4}).String(), "9% itself": (&Culprit{Kind: "self", Share: 0.09}).String(),
		"50% idle CPUs": (&Culprit{Kind: "idle", Share: 0.5}).String(), "5% other": (&Culprit{Kind: "other", Share: 0.05}).String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
