package cpustat

import "huatuo/internal/signal"

// Columns of a cpu line, in the kernel's order.
const (
	user = iota
	nice
	system
	idle
	iowait
	irq
	softirq
	steal
	guest
	guestNice
	nModes
)

var modes = [nModes]string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}

// vectors are the softirq vectors in the kernel's order, the same since 2.6.31
// (irq_poll was called block_iopoll before 4.5).
var vectors = []string{"hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"}

// Label values, made once: a gathering round allocates none.
var (
	modeLabels   = each(modes[:])
	vectorLabels = each(vectors)
)

func each(values []string) [][]string {
	l := make([][]string, len(values))
	for i := range values {
		l[i] = values[i : i+1 : i+1]
	}
	return l
}

var modeField = signal.Field{Name: "mode", Values: modes[:],
	Help: "What the CPU did: user, nice (user code at low priority), system, idle, iowait (idle with I/O outstanding), irq, softirq, steal (runnable, but the hypervisor ran somebody else), guest, guest_nice."}

var (
	cpuSeconds = &signal.Schema{
		Name: "huatuo_cpu_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds", Area: signal.AreaCPU, Scope: signal.Host,
		Help:   "Time all CPUs together spent in each mode; the modes add up to the time that has passed on all CPUs.",
		Read:   "rate() is CPUs: divide by huatuo_cpus for a share. steal above 0.05 of a CPU: ask the hypervisor's owner. softirq: network or timer load.",
		Fields: []signal.Field{modeField},
	}
	coreSeconds = &signal.Schema{
		Name: "huatuo_cpu_core_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds", Area: signal.AreaCPU, Scope: signal.Host,
		Help:   "Time each CPU spent in each mode.",
		Read:   "One CPU at 100 % softirq while others idle: interrupts are not spread (see RSS, RPS, irqbalance). One CPU at 100 % user: a single-threaded program.",
		Fields: []signal.Field{{Name: "cpu", Help: "Number of the logical CPU."}, modeField},
	}
	cpuCount = &signal.Schema{
		Name: "huatuo_cpus", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaCPU, Scope: signal.Host,
		Help: "Logical CPUs that are online.",
		Read: "The divisor for load averages and CPU seconds; a change means CPU hot-plug.",
	}
	contextSwitches = &signal.Schema{
		Name: "huatuo_context_switches_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaSched, Scope: signal.Host,
		Help: "Context switches of all CPUs.",
		Read: "Compare with the same host an hour ago: a jump at equal load is lock contention, too many threads or tiny I/O.",
	}
	interrupts = &signal.Schema{
		Name: "huatuo_interrupts_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaCPU, Scope: signal.Host,
		Help: "Hardware interrupts that were served, of all lines and CPUs.",
		Read: "Follows network packets and disk requests; a jump without them is a device or a timer gone wild.",
	}
	softirqs = &signal.Schema{
		Name: "huatuo_softirqs_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaCPU, Scope: signal.Host,
		Help:   "Soft interrupts that were served, by vector.",
		Read:   "net_rx follows packets received, block follows requests completed, timer and sched follow the tick.",
		Fields: []signal.Field{{Name: "vector", Help: "Softirq vector as the kernel calls it.", Values: vectors}},
	}
	forks = &signal.Schema{
		Name: "huatuo_forks_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaProcess, Scope: signal.Host,
		Help: "Processes and threads that were created.",
		Read: "Above some hundred a second something runs commands in a loop (health checks, shell scripts).",
	}
	running = &signal.Schema{
		Name: "huatuo_processes_running", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaSched, Scope: signal.Host,
		Help: "Tasks that run or wait for a CPU at this instant.",
		Read: "An instant, not an average: huatuo_runqueue_wait_seconds and CPU pressure tell whether waiting hurts. The agent itself is one of them.",
	}
	blocked = &signal.Schema{
		Name: "huatuo_processes_blocked", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaSched, Scope: signal.Host,
		Help: "Tasks that wait for I/O at this instant.",
		Read: "Steadily above 0: a disk, a network file system or swap is the bottleneck; see huatuo_block_io_total_seconds.",
	}
	bootTime = &signal.Schema{
		Name: "huatuo_boot_time_seconds", Kind: signal.Metric, Type: signal.Gauge, Unit: "seconds", Area: signal.AreaSystem, Scope: signal.Host,
		Help: "When the host booted, in seconds since 1970.",
		Read: "time() minus it is the uptime; a change of more than a few seconds is a reboot.",
	}
)
