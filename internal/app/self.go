package app

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/console"
	"huatuo/internal/signal"
	"huatuo/internal/sink/prom"
)

// The agent's own metrics. They are gathered like a probe's.
var (
	buildInfo = selfMetric("huatuo_build_info", signal.Gauge, "1", "Version of the agent; the value is always 1.",
		"Join it to other series to see which version made them.",
		signal.Field{Name: "version", Help: "version of the agent"}, signal.Field{Name: "commit", Help: "commit that it was built from"},
		signal.Field{Name: "goversion", Help: "version of Go that built it"})
	probeState = selfMetric("huatuo_probe_state", signal.Gauge, "1", "State of a probe: 1 for the state that it is in.",
		"state=\"failed\" or \"unsupported\" means that the probe's signals are missing, not zero; state=\"absent\" that the machine has no such device.",
		signal.Field{Name: "probe", Help: "name of the probe"},
		signal.Field{Name: "state", Help: "what it does", Values: []string{"starting", "running", "degraded", "unsupported", "absent", "failed", "disabled", "shed", "stopped"}})
	eventsObserved = selfMetric("huatuo_events_observed_total", signal.Counter, "1", "Events that met a probe's condition.",
		"Equals dropped plus routed once the agent is at rest.", probeLabel)
	eventsDropped = selfMetric("huatuo_events_dropped_total", signal.Counter, "1", "Events lost on the way to the sinks, by reason.",
		"rate_limited is by design; ring_full and intake_full mean that events come faster than they are read.", probeLabel,
		signal.Field{Name: "reason", Help: "rate_limited, ring_full, undecoded, intake_full, unencodable, known_issue (suppressed by known_issues) or a probe's own"})
	eventsRouted = selfMetric("huatuo_events_routed_total", signal.Counter, "1", "Events that were offered to every sink.",
		"Each sink's delivered, dropped, failed and queued add up to it.", probeLabel)
	sinkEvents = selfMetric("huatuo_sink_events_total", signal.Counter, "1", "Events by what became of them in a sink.",
		"dropped: the sink was too slow; failed: it refused them again and again.", probeLabel,
		signal.Field{Name: "sink", Help: "name of the sink"},
		signal.Field{Name: "outcome", Help: "what became of the event", Values: []string{"delivered", "dropped", "failed"}})
	signalsTotal = selfMetric("huatuo_signals_total", signal.Counter, "1", "Events by kind.",
		"The rate of each kind of event, also of those that retention has deleted.", signal.Field{Name: "name", Help: "kind of the event"})
	selfCPU = selfMetric("huatuo_agent_cpu_seconds_total", signal.Counter, "seconds", "CPU time of the agent's process.",
		"Its rate is the share of one core; BPF programs are charged to whom they interrupt.")
	selfRSS = selfMetric("huatuo_agent_resident_bytes", signal.Gauge, "bytes", "Resident memory of the agent's process.",
		"Below 80 MB on an idle node, store and console included.")
	selfBPF = selfMetric("huatuo_agent_bpf_run_ratio", signal.Gauge, "ratio", "Share of one core that the agent's BPF programs took when it was last measured.",
		"Measured for one second each budget.interval, because counting itself costs.")
	selfSkipped = selfMetric("huatuo_agent_bpf_skipped_total", signal.Counter, "1", "Calls of a probe's BPF programs that the kernel left out because the program was running on that CPU already.",
		"What they would have counted is missing: a rate that can be seen beside that of the probe's signals means that these are too low. Read each budget.interval; not told before Linux 5.12.",
		probeLabel)
	selfStart  = selfMetric("huatuo_agent_start_seconds", signal.Gauge, "seconds", "Time from the agent's start to its first sample.", "Below one second.")
	unresolved = selfMetric("huatuo_enrich_unresolved_total", signal.Counter, "1", "Look-ups of identity that found nothing.",
		"A steady rate for short-lived processes is normal.", signal.Field{Name: "what", Help: "process, container, cmdline, …"})

	frames = selfMetric("huatuo_symbol_frames_total", signal.Counter, "1", "Frames of stacks, of events and profiles, by whether they got a name.",
		"The reasons say what to install: debug symbols, or nothing when the process had gone.",
		signal.Field{Name: "outcome", Help: "named, or why not"})
	storeBytes = selfMetric("huatuo_store_bytes", signal.Gauge, "bytes", "Size of the embedded store.",
		"Bounded by the retention in the configuration.", signal.Field{Name: "kind", Help: "what is kept", Values: []string{"metrics", "events"}})
	storeSeries = selfMetric("huatuo_store_series", signal.Gauge, "1", "Series of metrics that the store holds in memory.",
		"Grows with the number of workloads and devices.")
	storeFailing = selfMetric("huatuo_store_failing", signal.Gauge, "1", "Whether the store cannot keep metrics or events at the moment: 1, else 0.",
		"The reason is on the System page and in the log; it ends by itself once the disk has room or can be written again.")
	storeAside = selfMetric("huatuo_store_set_aside_total", signal.Counter, "1", "Times that a file of the store could not be read and was moved aside, or cut off where it was broken.",
		"What it held is not shown any more; the log says which file it was. Files that were moved stay beside the store as evidence.")
	storeSamples = selfMetric("huatuo_store_samples_total", signal.Counter, "1", "Samples added to the metric history.", "Its rate times the interval is the number of series.")
	storeRefused = selfMetric("huatuo_store_refused_samples_total", signal.Counter, "1", "Samples that the metric history did not take, by reason.",
		"too_old: the clock stepped back by more than the store can bridge.",
		signal.Field{Name: "reason", Help: "why", Values: []string{"too_old", "duplicate", "malformed"}})

	probeLabel = signal.Field{Name: "probe", Help: "name of the probe"}
)

func selfMetric(name string, typ signal.MetricType, unit, help, read string, labels ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: name, Kind: signal.Metric, Type: typ, Unit: unit, Area: signal.AreaAgent, Scope: signal.Host,
		Help: help, Read: read, Fields: labels}
}

// SelfSchemas lists the agent's own metrics, for the catalogue and the docs.
func SelfSchemas() []*signal.Schema {
	return append([]*signal.Schema{buildInfo, probeState, eventsObserved, eventsDropped, eventsRouted, sinkEvents, signalsTotal,
		selfCPU, selfRSS, selfBPF, selfSkipped, selfStart, unresolved, frames, storeBytes, storeSeries, storeFailing, storeAside, storeSamples, storeRefused, profileSent}, append(append(profileSchemas(), budgetSchemas()...), append(append(console.Schemas(), prom.Schemas()...), containerSchemas()...)...)...)
}

// Build says which agent this is.
type Build struct{ Version, Commit, Go string }

// ReadBuild returns the version that the linker was given, with what the
// toolchain recorded for the rest.
func ReadBuild(version, commit string) Build {
	b := Build{Version: version, Commit: commit, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}

func (a *App) collectSelf(b *signal.Batch) error {
	b.Value(buildInfo, 1, a.build.Version, a.build.Commit, a.build.Go)
	for _, st := range a.engine.Statuses() {
		b.Value(probeState, 1, st.Name, string(st.State))
	}
	for _, acc := range a.engine.pipe.Accounts() {
		b.Value(eventsObserved, float64(acc.Observed), acc.Probe)
		b.Value(eventsRouted, float64(acc.Routed), acc.Probe)
		for why, n := range acc.Dropped {
			b.Value(eventsDropped, float64(n), acc.Probe, why)
		}
		for _, s := range acc.Sinks {
			b.Value(sinkEvents, float64(s.Delivered), acc.Probe, s.Sink, "delivered")
			b.Value(sinkEvents, float64(s.Dropped), acc.Probe, s.Sink, "dropped")
			b.Value(sinkEvents, float64(s.Failed), acc.Probe, s.Sink, "failed")
		}
	}
	for s, n := range a.engine.pipe.Signals() {
		b.Value(signalsTotal, float64(n), s.Name)
	}
	for what, n := range a.engine.enrich.Unresolved() {
		b.Value(unresolved, float64(n), what)
	}
	a.collectStore(b)
	a.collectBudget(b)
	a.collectProfiles(b)
	c := a.cost.now()
	b.Value(selfCPU, c.cpu.Seconds())
	b.Value(selfRSS, float64(c.rss))
	if !math.IsNaN(c.bpf) {
		b.Value(selfBPF, c.bpf)
	}
	a.meter.skipped.each(func(probe string, n uint64) { b.Value(selfSkipped, float64(n), probe) })
	if c.start > 0 {
		b.Value(selfStart, c.start.Seconds())
	}
	return nil
}

func (a *App) collectStore(b *signal.Batch) {
	st := a.engine.symbol.Stats()
	b.Value(frames, float64(st.Named), "named")
	for why, n := range st.Missing {
		b.Value(frames, float64(n), why)
	}
	if a.store == nil {
		return
	}
	status, stats := a.store.Status(), a.store.Stats()
	b.Value(storeBytes, float64(status.MetricBytes), "metrics")
	b.Value(storeBytes, float64(status.EventBytes), "events")
	b.Value(storeSeries, float64(status.MetricSeries))
	failing := 0.0
	if status.Error != "" {
		failing = 1
	}
	b.Value(storeFailing, failing)
	b.Value(storeAside, float64(stats.SetAside))
	b.Value(storeSamples, float64(stats.Samples))
	b.Value(storeRefused, float64(stats.TooOld), "too_old")
	b.Value(storeRefused, float64(stats.Duplicates), "duplicate")
	b.Value(storeRefused, float64(stats.Refused), "malformed")
}

// costMeter measures what the agent takes from the node.
type costMeter struct {
	mu      sync.Mutex
	past    []cpuAt // one sample each few seconds, of the last minute
	last    cpuAt   // when since was called
	bpf     float64 // NaN until it was measured
	start   time.Duration
	started time.Time
}

type cpuAt struct {
	at  time.Time
	cpu time.Duration
}

type costNow struct {
	cpu   time.Duration
	ratio float64
	rss   uint64
	bpf   float64
	start time.Duration
}

func newCostMeter(started time.Time) *costMeter {
	return &costMeter{bpf: math.NaN(), started: started, past: []cpuAt{{started, 0}}, last: cpuAt{started, 0}}
}

// firstSample notes that the first metrics are stored or served.
func (m *costMeter) firstSample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.start == 0 {
		m.start = time.Since(m.started)
	}
}

func (m *costMeter) now() costNow {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, cpu := time.Now(), cpuTime()
	oldest := m.past[0]
	c := costNow{cpu: cpu, rss: residentBytes(), bpf: m.bpf, start: m.start}
	if d := at.Sub(oldest.at); d > 0 {
		c.ratio = float64(cpu-oldest.cpu) / float64(d)
	}
	if last := m.past[len(m.past)-1]; at.Sub(last.at) > 4*time.Second {
		m.past = append(m.past, cpuAt{at, cpu})
	}
	for len(m.past) > 1 && at.Sub(m.past[1].at) > time.Minute {
		m.past = m.past[1:]
	}
	return c
}

func cpuTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func residentBytes() uint64 {
	resident, _ := statm()
	return resident
}

// ownBytes is the resident memory that is not backed by files, which the kernel
// can take back.
func ownBytes() uint64 {
	resident, files := statm()
	return resident - min(files, resident)
}

func statm() (resident, files uint64) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return 0, 0
	}
	size := uint64(os.Getpagesize())
	resident, _ = strconv.ParseUint(f[1], 10, 64)
	files, _ = strconv.ParseUint(f[2], 10, 64)
	return resident * size, files * size
}

// since returns the share of one CPU that the agent took since the last call.
func (m *costMeter) since() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, cpu := time.Now(), cpuTime()
	d := at.Sub(m.last.at)
	if d <= 0 {
		return 0
	}
	share := float64(cpu-m.last.cpu) / float64(d)
	m.last = cpuAt{at, cpu}
	return share
}

// setBPF notes what the agent's BPF programs take, as a share of one CPU; NaN
// when it could not be measured.
func (m *costMeter) setBPF(share float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bpf = share
}
