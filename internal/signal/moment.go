package signal

// Resources are what there was of everything at the moment of an event: of the
// workload that it is about, and of the host. A member that could not be read,
// or that has no limit, is absent.
type Resources struct {
	Host     *HostResources     `json:"host,omitempty"`
	Workload *WorkloadResources `json:"workload,omitempty"`
}

// HostResources are the host's, from /proc/loadavg, /proc/meminfo and /proc/pressure.
type HostResources struct {
	Load1           float64   `json:"load1" doc:"1-minute load average"`
	Runnable        int       `json:"runnable" doc:"tasks that run or wait for a CPU"`
	MemoryTotal     uint64    `json:"memory_total_bytes"`
	MemoryAvailable uint64    `json:"memory_available_bytes"`
	Swap            uint64    `json:"swap_used_bytes,omitempty"`
	Dirty           uint64    `json:"dirty_bytes,omitempty" doc:"dirty and under writeback"`
	Pressure        *Pressure `json:"pressure,omitempty"`
}

// WorkloadResources are a control group's, from its own files.
type WorkloadResources struct {
	MemoryUsed    uint64    `json:"memory_used_bytes,omitempty"`
	MemoryLimit   uint64    `json:"memory_limit_bytes,omitempty"`
	Swap          uint64    `json:"swap_used_bytes,omitempty"`
	CPULimit      float64   `json:"cpu_limit_cores,omitempty"`
	CPUSeconds    float64   `json:"cpu_seconds,omitempty" doc:"since the group began"`
	Throttled     float64   `json:"throttled_seconds,omitempty" doc:"since the group began"`
	ThrottledRuns uint64    `json:"throttled_periods,omitempty" doc:"since the group began"`
	Pids          uint64    `json:"pids,omitempty"`
	PidsLimit     uint64    `json:"pids_limit,omitempty"`
	OOMKills      uint64    `json:"oom_kills,omitempty" doc:"since the group began"`
	Pressure      *Pressure `json:"pressure,omitempty"`
}

// Pressure is the share of the last 10 seconds in which work waited, 0 to 1:
// some of the tasks, or all of them (PSI, Documentation/accounting/psi.rst).
type Pressure struct {
	CPUSome    float64 `json:"cpu_some"`
	MemorySome float64 `json:"memory_some"`
	MemoryFull float64 `json:"memory_full"`
	IOSome     float64 `json:"io_some"`
	IOFull     float64 `json:"io_full"`
}

// Link says that an event has to do with another one, and how.
type Link struct {
	ID       string `json:"id" doc:"of the other event"`
	Kind     string `json:"kind"`
	Relation string `json:"relation" enum:"cause,effect,same"`
	Title    string `json:"title" doc:"of the other event"`
}

// The relations of a Link: the other event is the cause of this one, comes of
// it, or is another sight of the same thing.
const (
	Cause  = "cause"
	Effect = "effect"
	Same   = "same"
)

// Flow is the conversation that a network event is about, as this host sees
// it: the same two ends make the same Flow whichever sent the packet.
type Flow struct {
	Protocol     string // tcp, udp, icmp, …
	A, B         string // addr:port of the ends, the smaller first
	NetNamespace uint32 // 0: unknown
}

// FlowOf returns the Flow between two ends, each as net/netip writes an AddrPort.
func FlowOf(protocol, src, dst string, netns uint32) *Flow {
	if src > dst {
		src, dst = dst, src
	}
	return &Flow{Protocol: protocol, A: src, B: dst, NetNamespace: netns}
}
