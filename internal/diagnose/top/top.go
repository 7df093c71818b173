// Package top tells of each workload what it uses, what it waits for, and who it
// takes that from: a table of victims and culprits.
package top

import (
	"cmp"
	"slices"
	"time"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

// View is one interval.
type View struct {
	Time     time.Time          `json:"time"`
	Seconds  float64            `json:"seconds"` // that it covers
	Host     Host               `json:"host"`
	Workload []Row              `json:"workloads"`
	Events   []*signal.Document `json:"-"` // the last ones, newest first
}

// Host is the machine as a whole. What this kernel does not tell is absent.
type Host struct {
	CPUs        int       `json:"cpus"`
	Busy        *float64  `json:"cpu_busy_ratio,omitempty"`
	Steal       *float64  `json:"cpu_steal_ratio,omitempty"`
	Load1       *float64  `json:"load1,omitempty"`
	WaitP99     *float64  `json:"runqueue_wait_p99_seconds,omitempty"`
	MemoryUsed  *float64  `json:"memory_used_bytes,omitempty"` // not available
	MemoryTotal *float64  `json:"memory_total_bytes,omitempty"`
	Pressure    *Pressure `json:"pressure,omitempty"`
}

// Pressure is the share of the interval in which some task stood still for want of it.
type Pressure struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
	IO     float64 `json:"io"`
}

// Row is one workload. What is not measured of it is absent.
type Row struct {
	Name        string          `json:"name"`
	Workload    window.Workload `json:"workload"`
	CPU         *float64        `json:"cpu_cores,omitempty"`
	CPULimit    *float64        `json:"cpu_limit_cores,omitempty"`
	Wait        *float64        `json:"waiting_tasks,omitempty"` // seconds waited for a CPU per second
	Blame       *float64        `json:"blamed_tasks,omitempty"`  // of others, while this one had it
	Throttled   *float64        `json:"throttled_ratio,omitempty"`
	Culprit     *Culprit        `json:"culprit,omitempty"`
	Memory      *float64        `json:"memory_bytes,omitempty"` // working set
	MemoryLimit *float64        `json:"memory_limit_bytes,omitempty"`
	Pressure    *Pressure       `json:"pressure,omitempty"`
	Read        *float64        `json:"read_bytes_per_second,omitempty"`
	Write       *float64        `json:"write_bytes_per_second,omitempty"`
	Latency     *float64        `json:"io_p99_seconds,omitempty"`
	Retransmits *float64        `json:"retransmits_per_second,omitempty"`
	Drops       *float64        `json:"drops_per_second,omitempty"`
	Events      int             `json:"events"` // since the start
}

// Culprit is who had the CPU for the largest part of the time that a workload waited.
type Culprit struct {
	Kind    string          `json:"kind"` // workload, self, idle, quota or other
	Name    string          `json:"name,omitempty"`
	Who     window.Workload `json:"workload"`
	Share   float64         `json:"share"`
	Command string          `json:"command,omitempty"`
}

const (
	cpuUsage     = "huatuo_container_cpu_usage_seconds_total"
	cpuLimit     = "huatuo_container_cpu_limit_cores"
	cpuWait      = "huatuo_container_runqueue_wait_seconds"
	cpuCulprit   = "huatuo_container_runqueue_culprit_seconds_total"
	cpuPeriods   = "huatuo_container_cpu_periods_total"
	cpuThrottled = "huatuo_container_cpu_throttled_periods_total"
	memoryUsed   = "huatuo_container_memory_working_set_bytes"
	memoryLimit  = "huatuo_container_memory_limit_bytes"
	pressure     = "huatuo_container_pressure_stall_seconds_total"
	ioBytes      = "huatuo_container_block_io_bytes_total"
	ioLatency    = "huatuo_container_block_io_total_seconds"
	retransmits  = "huatuo_container_tcp_retransmits_total"
	drops        = "huatuo_container_network_drops_total"

	hostCPU       = "huatuo_cpu_seconds_total"
	hostLoad      = "huatuo_load_average"
	hostWait      = "huatuo_runqueue_wait_seconds"
	hostAvailable = "huatuo_memory_available_bytes"
	hostMemory    = "huatuo_memory_total_bytes"
	hostPressure  = "huatuo_pressure_stall_seconds_total"
)

// Metrics lists what a View is made of.
func Metrics() []string {
	return []string{cpuUsage, cpuLimit, cpuWait, cpuCulprit, cpuPeriods, cpuThrottled, memoryUsed, memoryLimit, pressure,
		ioBytes, ioLatency, retransmits, drops, hostCPU, hostLoad, hostWait, hostAvailable, hostMemory, hostPressure}
}

// New makes the View of a window. events counts those of each workload.
func New(w *window.Window, now time.Time, cpus int, events map[window.Workload]int) *View {
	v := &View{Time: now, Seconds: w.Seconds, Host: hostOf(w, cpus), Workload: []Row{}}
	t := &table{w: w, rows: map[window.Workload]*Row{}}
	t.fill()
	t.culprits()
	for who, n := range events {
		if who != (window.Workload{}) {
			t.row(who).Events = n
		}
	}
	for _, r := range t.rows {
		v.Workload = append(v.Workload, *r)
	}
	v.Sort("cpu")
	return v
}

func hostOf(w *window.Window, cpus int) Host {
	h := Host{CPUs: cpus}
	if w.Measured(hostCPU) {
		var total, busy, steal float64
		for _, m := range w.By(hostCPU, "mode") {
			switch m.Name {
			case "guest", "guest_nice": // are in user
				continue
			case "idle", "iowait":
			case "steal":
				steal = m.Value
			default:
				busy += m.Value
			}
			total += m.Value
		}
		if total > 0 {
			h.Busy, h.Steal = ptr(busy/total), ptr(steal/total)
		}
	}
	if s := w.Series(hostLoad, "window=1m"); len(s) > 0 {
		h.Load1 = ptr(s[0].Value)
	}
	if hist := w.Hist(hostWait); hist != nil {
		h.WaitP99 = ptr(window.Quantile(hist, 0.99))
	}
	if w.Measured(hostMemory) && w.Measured(hostAvailable) {
		h.MemoryTotal = ptr(w.Max(hostMemory))
		h.MemoryUsed = ptr(w.Max(hostMemory) - w.Max(hostAvailable))
	}
	for _, s := range w.Series(hostPressure, "kind=some") {
		if h.Pressure == nil {
			h.Pressure = &Pressure{}
		}
		h.Pressure.set(s.Label("resource"), s.Value/w.Seconds)
	}
	return h
}

func ptr(v float64) *float64 { return &v }

func (p *Pressure) set(resource string, share float64) {
	share = min(share, 1) // the two rounds are not at one moment for all files
	switch resource {
	case "cpu":
		p.CPU = share
	case "memory":
		p.Memory = share
	case "io":
		p.IO = share
	}
}

// table is a View's rows being filled.
type table struct {
	w    *window.Window
	rows map[window.Workload]*Row
}

func (t *table) row(who window.Workload) *Row {
	r := t.rows[who]
	if r == nil {
		r = &Row{Name: who.String(), Workload: who}
		t.rows[who] = r
	}
	return r
}

// each calls set for every series of a metric that is about a workload.
func (t *table) each(metric string, set func(r *Row, s *window.Series)) {
	for _, s := range t.w.Series(metric) {
		if s.Workload != (window.Workload{}) {
			set(t.row(s.Workload), &s)
		}
	}
}

// add adds to an optional number.
func add(to **float64, v float64) {
	if *to == nil {
		*to = new(float64)
	}
	**to += v
}

func (t *table) fill() {
	seconds := t.w.Seconds
	rate := func(metric string, member func(*Row) **float64) {
		t.each(metric, func(r *Row, s *window.Series) { add(member(r), s.Value/seconds) })
	}
	gauge := func(metric string, member func(*Row) **float64) {
		t.each(metric, func(r *Row, s *window.Series) { *member(r) = ptr(s.Value) })
	}
	rate(cpuUsage, func(r *Row) **float64 { return &r.CPU })
	gauge(cpuLimit, func(r *Row) **float64 { return &r.CPULimit })
	gauge(memoryUsed, func(r *Row) **float64 { return &r.Memory })
	gauge(memoryLimit, func(r *Row) **float64 { return &r.MemoryLimit })
	rate(retransmits, func(r *Row) **float64 { return &r.Retransmits })
	rate(drops, func(r *Row) **float64 { return &r.Drops })
	t.each(cpuWait, func(r *Row, s *window.Series) {
		if s.Hist != nil {
			add(&r.Wait, s.Hist.Sum/seconds)
		}
	})
	periods := map[*Row]float64{}
	t.each(cpuPeriods, func(r *Row, s *window.Series) { periods[r] = s.Value })
	t.each(cpuThrottled, func(r *Row, s *window.Series) {
		if n, limited := periods[r]; limited {
			r.Throttled = ptr(min(1, s.Value/max(n, 1)))
		}
	})
	t.each(pressure, func(r *Row, s *window.Series) {
		if r.Pressure == nil {
			r.Pressure = &Pressure{}
		}
		if s.Label("kind") == "some" {
			r.Pressure.set(s.Label("resource"), s.Value/seconds)
		}
	})
	t.io()
}

func (t *table) io() {
	t.each(ioBytes, func(r *Row, s *window.Series) {
		switch s.Label("op") {
		case "read":
			add(&r.Read, s.Value/t.w.Seconds)
		case "write":
			add(&r.Write, s.Value/t.w.Seconds)
		}
	})
	hists := map[window.Workload]*signal.Hist{}
	for _, s := range t.w.Series(ioLatency) {
		switch h := hists[s.Workload]; {
		case s.Hist == nil || s.Hist.Count == 0 || s.Workload == (window.Workload{}):
		case h == nil:
			hists[s.Workload] = s.Hist.Clone()
		default:
			h.Add(s.Hist)
		}
	}
	for who, h := range hists {
		t.row(who).Latency = ptr(window.Quantile(h, 0.99))
	}
}

// culprits finds for each workload who had the CPU while it waited, and for how
// long others waited while it had it.
func (t *table) culprits() {
	sums := map[window.Workload]float64{}
	most := map[window.Workload]window.Series{}
	t.each(cpuCulprit, func(r *Row, s *window.Series) {
		if s.Value <= 0 {
			return
		}
		sums[s.Workload] += s.Value
		if s.Value > most[s.Workload].Value {
			most[s.Workload] = *s
		}
		if s.Label("culprit") == signal.PeerWorkload {
			add(&t.row(culpritOf(s)).Blame, s.Value/t.w.Seconds)
		}
	})
	for victim, s := range most {
		c := &Culprit{Kind: s.Label("culprit"), Share: s.Value / sums[victim], Command: s.Note}
		if c.Kind == signal.PeerWorkload {
			c.Who = culpritOf(&s)
			c.Name = c.Who.String()
		}
		t.row(victim).Culprit = c
	}
}

func culpritOf(s *window.Series) window.Workload {
	return window.Workload{Namespace: s.Label("culprit_namespace"), Pod: s.Label("culprit_pod"),
		Container: s.Label("culprit_container"), Unit: s.Label("culprit_unit")}
}

// Order is a way to sort.
type Order struct {
	Name string
	Key  byte // that chooses it in a terminal
	by   func(*Row) float64
}

// Orders lists the ways to sort; the largest comes first in each.
func Orders() []Order {
	return []Order{
		{"cpu", 'c', func(r *Row) float64 { return val(r.CPU) }},
		{"wait", 'w', func(r *Row) float64 { return val(r.Wait) }},
		{"blame", 'b', func(r *Row) float64 { return val(r.Blame) }},
		{"throttled", 't', func(r *Row) float64 { return val(r.Throttled) }},
		{"memory", 'm', func(r *Row) float64 { return val(r.Memory) }},
		{"io", 'i', func(r *Row) float64 { return val(r.Read) + val(r.Write) }},
		{"latency", 'l', func(r *Row) float64 { return val(r.Latency) }},
		{"network", 'n', func(r *Row) float64 { return val(r.Retransmits) + val(r.Drops) }},
		{"events", 'e', func(r *Row) float64 { return float64(r.Events) }},
	}
}

func val(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}

// Sort sorts the workloads by an order's name. Of equals the one with more CPU
// comes first.
func (v *View) Sort(name string) {
	i := slices.IndexFunc(Orders(), func(o Order) bool { return o.Name == name })
	if i < 0 {
		return
	}
	by := Orders()[i].by
	slices.SortFunc(v.Workload, func(a, b Row) int {
		return cmp.Or(cmp.Compare(by(&b), by(&a)), cmp.Compare(val(b.CPU), val(a.CPU)), cmp.Compare(a.Name, b.Name))
	})
}
