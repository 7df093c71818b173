package oomkill

import (
	"fmt"
	"os"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// unknown is the constraint of a kill that nobody explains.
const unknown = "unknown"

// OOMKill is the body of an oom_kill event. The record's process and container
// are the victim's.
type OOMKill struct {
	Constraint   string            `json:"constraint" help:"what was out of memory: memcg (the limit of a cgroup), host, cpuset, memory_policy, or unknown"`
	AnonBytes    uint64            `json:"anon_bytes" unit:"bytes" help:"anonymous memory of the victim: what the kill frees"`
	FileBytes    uint64            `json:"file_bytes" unit:"bytes" help:"file pages that the victim has mapped"`
	ShmemBytes   uint64            `json:"shmem_bytes" unit:"bytes" help:"shared memory that the victim has mapped; the kill does not free it"`
	SwapBytes    uint64            `json:"swap_bytes" unit:"bytes" help:"memory of the victim in swap"`
	VirtualBytes uint64            `json:"virtual_bytes" unit:"bytes" help:"address space of the victim"`
	ScoreAdj     int32             `json:"oom_score_adj" help:"how much the victim was preferred (to 1000) or spared (to -1000)"`
	UID          uint32            `json:"uid" help:"user of the victim"`
	Trigger      signal.Party      `json:"trigger" help:"who asked for the memory that was not there, with its stack; it may be the victim itself, or have little to do with it"`
	Memcg        *Memcg            `json:"memcg" help:"the cgroup that was out of memory; null when it was not a cgroup"`
	Growth       []Point           `json:"growth" help:"how much memory the cgroup, or the host when it was not a cgroup, had in use in the last minutes: seconds_ago and bytes, the oldest first, the last at the kill"`
	Levels       []Level           `json:"levels" help:"memory cgroups from the victim's up to the root, when the kernel chose the victim"`
	Host         map[string]uint64 `json:"host" unit:"bytes" help:"memory of the host, from /proc/meminfo, just after the kill"`
	Processes    []Process         `json:"processes" help:"the largest processes, of the cgroup that was out of memory or of the host"`
	Log          []string          `json:"log" help:"the kernel's own report, shortened, without registers"`
	Missing      []string          `json:"missing" help:"parts of the snapshot that could not be taken, and why"`
}

// Level is a memory cgroup at the moment of the choice.
type Level struct {
	Path       string `json:"path,omitempty"` // in the memory hierarchy; empty when it is gone
	LimitBytes uint64 `json:"limit_bytes"`    // 0: none
	UsageBytes uint64 `json:"usage_bytes"`

	id uint64
}

// Memcg is the memory of a cgroup.
type Memcg struct {
	Path       string            `json:"path"`        // in the memory hierarchy
	LimitBytes uint64            `json:"limit_bytes"` // when the kernel chose the victim; 0: none
	UsageBytes uint64            `json:"usage_bytes"` // likewise
	PeakBytes  uint64            `json:"peak_bytes,omitempty"`
	Failures   uint64            `json:"failures,omitempty"` // how often the limit was hit
	Stat       map[string]uint64 `json:"stat"`               // bytes by kind, just after the kill
}

// Process is one line of the list of the largest processes.
type Process struct {
	PID      uint32 `json:"pid"`
	Comm     string `json:"comm"`
	RSSBytes uint64 `json:"rss_bytes"`
	// Grew is by how much it has grown in GrewIn seconds, which are 0 when that is not known.
	Grew   int64   `json:"grew_bytes,omitempty"`
	GrewIn float64 `json:"grew_seconds,omitempty"`
	Victim bool    `json:"victim,omitempty"`
}

var killed = signal.EventOf[OOMKill]("oom_kill", signal.AreaMemory, signal.Critical,
	"The OOM killer chose a process.").When(
	"Any process that the kernel's OOM killer chooses: there is no threshold, for a process dies.",
	"None; a workload that is meant to be killed at its limit (a batch job that retries) is an event each time.")

type decoder struct {
	clock func(uint64) time.Time
}

// decode is pure. What it returns lacks the snapshot.
func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfOomWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode oom_kill: %w", err)
	}
	page := uint64(os.Getpagesize())
	b := &OOMKill{
		Constraint: unknown, FileBytes: w.Rss[0] * page, AnonBytes: w.Rss[1] * page, SwapBytes: w.Rss[2] * page, ShmemBytes: w.Rss[3] * page,
		VirtualBytes: w.TotalVm * page, ScoreAdj: w.ScoreAdj, UID: w.Uid,
		Trigger: signal.Party{
			Process:  signal.Process{PID: w.TriggerTgid, TID: w.TriggerPid, Comm: probe.CString(w.TriggerComm[:])},
			CgroupID: w.TriggerCgroup, KernelIPs: probe.Stack(w.Frames, w.Stack[:]),
		},
	}
	for i := range w.Levels[:min(int(w.Nlevels), len(w.Levels))] {
		l := Level{id: w.Levels[i].Id, UsageBytes: w.Levels[i].Usage * page, LimitBytes: w.Levels[i].Limit * page}
		if w.Levels[i].Limit >= noLimit/page {
			l.LimitBytes = 0
		}
		b.Levels = append(b.Levels, l)
	}
	r := &signal.Record{
		Schema: killed, Time: d.clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup,
		Process: signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])},
		Body:    b, Parties: []*signal.Party{&b.Trigger},
	}
	if w.Tgid == 0 { // the kernel told a thread only, and of a thread that is the victim
		r.Process.PID = w.Pid
	}
	r.Title = b.title(r.Process)
	return r, nil
}

// noLimit is where limits begin that are none: PAGE_COUNTER_MAX is the largest
// number of pages or bytes that fits in 63 bits.
const noLimit = 1 << 62

// guess finds the cgroup that is out of memory by what the program saw: the
// first on the way up that is at its limit. The kernel gave up because a charge
// did not fit, so usage is within a batch of the limit.
func (b *OOMKill) guess() (Level, bool) {
	const batch = 1 << 20 // 64 pages a charge, and what other CPUs freed meanwhile
	for _, l := range b.Levels {
		if l.LimitBytes != 0 && l.UsageBytes+batch >= l.LimitBytes {
			return l, true
		}
	}
	return Level{}, false
}

func (b *OOMKill) title(p signal.Process) string {
	s := fmt.Sprintf("%s (pid %d, %s) was chosen by the OOM killer", p.Comm, p.PID, size(b.AnonBytes+b.FileBytes+b.ShmemBytes))
	switch {
	case b.Memcg != nil && b.Memcg.LimitBytes > 0:
		s += fmt.Sprintf(": cgroup %s is at its limit of %s", b.Memcg.Path, size(b.Memcg.LimitBytes))
	case b.Constraint == "memcg":
		s += ": its cgroup is at its limit"
	case b.Constraint == "host":
		s += ": the host is out of memory"
	case b.Constraint != unknown:
		s += ": the nodes that its " + b.Constraint + " allows are out of memory"
	}
	if n, ago, ok := rise(b.Growth); ok {
		s += fmt.Sprintf(", and its use grew %s in %s", size(n), round(ago))
	}
	return s
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f, u := float64(bytes)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return fmt.Sprintf("%.4g %ciB", f, units[u])
}
