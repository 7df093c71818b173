package main

import (
	"fmt"
	"slices"
	"strings"
)

// kernel is one machine of the matrix.
type kernel struct {
	name   string // as in docs/reference/kernels.md and in K=
	debian string // series and flavour of the package, see kget.sh; empty: a lab kernel
	arch   string // Debian's name of it, which is also Go's
	cgroup string // how the guest mounts control groups: v1, v2, or hybrid: v1 with v2 beside
	cpus   int
	append string // further words of the kernel's command line
	slow   bool   // a part of its memory is a NUMA node of its own, without CPUs and slower
	// hooks are the kinds of attachment, beside those of every kernel
	// (raw_tp, tracepoint), that must work there.
	hooks []string
	rungs rungs    // combinations of hook and ring under which each probe is tried
	smoke []string // tests of test/vm/smoke that make sense there
	only  []string // beginnings of the packages whose tests make sense there; empty: all
	tests string   // -test.run there; empty: the package's own
	// icount lets the guest's time go on by its instructions alone. What else the
	// machine does is then not seen by the guest, and its PMU counts them, too.
	icount bool
}

// runs tells whether a package's tests make sense on k.
func (k kernel) runs(pkg string) bool {
	for _, e := range excluded {
		if e.pkg == pkg && e.test == "" && e.on(k) {
			return false
		}
	}
	return len(k.only) == 0 || slices.ContainsFunc(k.only, func(p string) bool { return strings.HasPrefix(pkg, p) })
}

// weight tells which of two kernels takes longer.
func (k kernel) weight() int {
	w := len(k.smoke) + k.cpus + 5*int(k.rungs)
	if k.arch == "arm64" {
		w++
	}
	return w
}

// rungs are how many steps of the ladder a probe's tests force.
type rungs int

const (
	best  rungs = iota // tp_btf with a ring buffer
	each               // also raw_tp with a perf buffer, and the legacy objects
	every              // all combinations
)

// skip is what of the rungs is left out, as -test.skip has it.
func (r rungs) skip() string {
	return [...]string{
		best:  "/^tp_btf$/^perf$|/^raw_tp$|/^legacy$",
		each:  "/^tp_btf$/^perf$|/^raw_tp$/^ringbuf$",
		every: "",
	}[r]
}

// matrix is what `make vmtest` runs: the oldest kernel of Debian that is still
// to be had, each long-term series, and the newest, on control groups of both
// kinds, with and without fentry, on one CPU and on two.
func matrix() []kernel {
	full := []string{"tp_btf", "fentry", "fexit", "kprobe"}
	return []kernel{
		{name: "5.10", debian: "5.10-cloud", arch: "amd64", cgroup: "hybrid", cpus: 1, hooks: full, rungs: each, smoke: []string{"TestAgent"}},
		{name: "6.1-v1", debian: "6.1-cloud", arch: "amd64", cgroup: "v1", cpus: 1, hooks: full, smoke: []string{"TestAgent"}},
		{name: "6.1", debian: "6.1-cloud", arch: "amd64", cgroup: "v2", cpus: 1, hooks: full, rungs: every,
			smoke: []string{"TestAgent", "TestFallback", "TestBTFFile", "TestNoBTF"}},
		{name: "6.12", debian: "6.12-cloud", arch: "amd64", cgroup: "v2", cpus: 2, slow: true, hooks: full, smoke: []string{"TestAgent"}},
		{name: "newest", debian: "newest-cloud", arch: "amd64", cgroup: "v2", cpus: 1, hooks: full, rungs: each, smoke: []string{"TestAgent"}},
		{name: "6.1-arm64", debian: "6.1-cloud", arch: "arm64", cgroup: "v2", cpus: 1, // direct calls, which fentry needs, came to arm64 with 6.4
			hooks: []string{"tp_btf", "kprobe"}, rungs: each, smoke: []string{"TestAgent"}},
		{name: "6.1-arm64-pmu", debian: "6.1-cloud", arch: "arm64", cgroup: "v2", cpus: 1, icount: true,
			only: []string{"internal/profile/engine"}, tests: "^TestKernel(Counts|PMU)$"},
		{name: "newest-arm64", debian: "newest-cloud", arch: "arm64", cgroup: "v2", cpus: 1, hooks: full, smoke: []string{"TestAgent"}},
	}
}

// lab is what `make vmtest-lab` runs: a kernel that no distribution ships any
// more, built by lab.sh, without BTF and without kprobes.
func lab() []kernel {
	return []kernel{{name: "lab-5.10", arch: "amd64", cgroup: "v1", cpus: 1, smoke: []string{"TestNoBTF"},
		// The tests of probes with programs want BTF: it is the smoke test that
		// shows how the agent does without. The engine of frame pointers needs none.
		only: []string{"internal/kern/", "internal/enrich", "internal/symbol", "internal/profile/frames"}}}
}

// choose returns the kernels that a word of words names: by their own name,
// their series ("6.1") or their architecture. No words mean all.
func choose(all []kernel, words []string) ([]kernel, error) {
	if len(words) == 0 {
		return all, nil
	}
	var out []kernel
	used := map[string]bool{}
	for _, k := range all {
		names := []string{k.name, strings.TrimSuffix(k.debian, "-cloud"), k.arch}
		hit := slices.IndexFunc(words, func(w string) bool { return w != "" && slices.Contains(names, w) })
		if hit < 0 {
			continue
		}
		out = append(out, k)
		for _, w := range words {
			used[w] = used[w] || slices.Contains(names, w)
		}
	}
	for _, w := range words {
		if !used[w] {
			var names []string
			for _, k := range all {
				names = append(names, k.name)
			}
			return nil, fmt.Errorf("no kernel %q: want names (%s), a series or an architecture", w, strings.Join(names, ", "))
		}
	}
	return out, nil
}

// modules that tests need where a kernel does not have them built in, each
// loaded with what it depends on.
var modules = []string{"loop", "fuse", "brd", "veth", "sch_tbf", "nf_tables", "nft_counter", "nft_compat", "xt_tcpudp", "xt_statistic", "xt_conntrack", "tcp_diag", "xt_length", "xt_DSCP", "tun", "vxlan", "dummy", "bonding", "bridge", "netdevsim", "mce_inject", "aer_inject"}

// optional are modules that some kernels have not: as part of another.
var optional = []string{
	"nft_counter",              // in nf_tables since 023223dfbfb3, v5.18
	"netdevsim",                // in kernels built for it only; a test of internal/probes/nic wants it
	"mce_inject", "aer_inject", // in some flavours of kernel only; the tests of internal/probes/ras want them
}

// suite is a package whose kernel tests run in the guests.
type suite struct {
	pkg string // below the module
	run string // -test.run
}

// whole are the packages that read what the kernel tells, not only load into
// it: all their tests run. Of the others `TestKernel…` does.
var whole = []string{"internal/kern/clock", "internal/kern/ksym", "internal/kern/procfs"}

// hostOnly are packages whose kernel tests need what a guest has not.
var hostOnly = map[string]string{
	"internal/signal": "compares with a program that it compiles",
	"tools/cost":      "measures the committed objects on the development kernel",
}

// excluded are tests that cannot succeed in a guest, on some kernels; no name of
// a test means the whole package.
var excluded = []struct {
	pkg, test, why string
	on             func(kernel) bool
}{
	{"internal/probes/locks", "^TestKernelSpin$", "CPUs that one thread emulates in turn never find a spin lock taken", everywhere},
	{"internal/probes/diskstats", "^TestKernelShapes$", "Linux 5.10 merges none of these requests, whose number the test knows", older("5.10")},
	{"internal/probes/runqueue", "^TestKernelPageFault", "in an emulated guest a slow fault is often begun anew and is then no major fault, of which the event has other things", everywhere},
	{"internal/profile/engine", "^TestKernelPMU$", "the cycles of these guests go on while the machine does something else; 6.1-arm64-pmu has others", unsteady},
	{"internal/probes/vmstat", "^TestKernelComesBack$", "Linux 7.3 takes nothing of a group whose memory.high is lowered: the cause is not there", func(k kernel) bool { return k.debian == "newest-cloud" }},
	{"internal/probes/tcp", "", "on Linux 7.3, amd64, emulated, the probe misses up to a tenth of failed connects, with each kind of hook, for a cause that is not known; " +
		"on arm64 of the same kernel, and on all older ones, it misses none", func(k kernel) bool { return k.name == "newest" }},
	{"internal/probes/nettx", "^TestKernel$", "the same: of 20 packets one to three are missed in one guest, and none in the next", func(k kernel) bool { return k.name == "newest" }},
}

func everywhere(kernel) bool { return true }

// unsteady tells the guests whose PMU counts on while the machine does something
// else.
func unsteady(k kernel) bool { return k.arch == "arm64" && !k.icount }

// skipRule allows a test to skip itself; a skip without a rule is a failure.
type skipRule struct {
	test string // package:test, or a prefix of it
	text string // part of the reason that the test gives
	on   func(kernel) bool
}

var skipRules = []skipRule{
	{"internal/kern/load:TestKernelFunctions/fentry", "needs a kernel with fentry", without("fentry")},
	{"internal/kern/load:TestKernelFunctions/fexit", "needs a kernel with fexit", without("fexit")},
	{"internal/kern/load:TestKernelFunctions/k", "needs a kernel with kprobe", without("kprobe")},
	{"internal/kern/load:TestKernel", "needs a kernel with BTF", without("tp_btf")},
	{"internal/probes/fs:TestKernelDirty", "Linux 6.2", older("5.10", "6.1")},
	{"internal/probes/locks:TestKernel", "came with 5.19", func(k kernel) bool { return strings.Contains(k.name, "5.10") }},
	{"internal/probes/locks:TestKernelWithout", "before 5.19", func(k kernel) bool { return !older("5.10")(k) }},
	{"internal/probes/locks:TestKernel", "came with 5.19", older("5.10")},
	{"internal/probes/nic:TestKernelDevlink", "needs the module netdevsim", func(kernel) bool { return true }},
	{"internal/probes/nettx:TestKernelHardware", "needs a network device with a bus", func(kernel) bool { return true }},
	{"internal/probes/reclaim:TestKernelNode", "(6.17)", func(k kernel) bool { return k.debian != "newest-cloud" }},
	{"internal/probes/process:TestKernel", "needs a C compiler", func(kernel) bool { return true }},
	{"internal/probes/irq:TestKernelGap", "(6.14)", func(k kernel) bool { return k.debian != "newest-cloud" }},
	{"internal/probes/irq:TestKernelGap", "needs x86", func(k kernel) bool { return k.arch != "amd64" }},
	{"internal/probes/fs:TestKernel", "needs mkfs.ext4", func(kernel) bool { return true }},
	{"internal/probes/cgroupstat:TestKernelHuge", "the kernel tells of no huge page", older("5.10")},
	{"internal/probes/cgroupstat:TestKernelZswap", "zswap", everywhere},
	{"internal/probes/cgroupstat:TestKernelBurst", "(Linux 5.14)", older("5.10")},
	{"internal/probes/netstat:TestKernelBacklog", "needs ", everywhere}, // two CPUs, iptables-restore
	{"internal/probes/nic:TestKernelStalls", "needs Linux 6.9 and a network device that is down", func(kernel) bool { return true }},
	{"internal/probes/softirq:TestKernelKept", "(Linux 6.11)", older("5.10", "6.1")},
	{"internal/probes/locks:TestKernelSpin", "needs two CPUs", func(kernel) bool { return true }},
	{"internal/probes/locks:TestKernelWithout", "needs a kernel before 5.19", func(kernel) bool { return true }},
	{"internal/probes/vmstat:TestKernelDirty", "needs ", everywhere}, // the v1 memory controller, a disk
	{"internal/probes/vmstat:TestKernelScarce", "needs two CPUs", func(k kernel) bool { return k.cpus < 2 }},
	{"internal/probes/vmstat:TestKernelScarce/marks/low", "less busy", func(k kernel) bool { return k.cpus > 1 }},
	{"internal/probes/vmstat:TestKernel", "NUMA node", func(k kernel) bool { return !k.slow }},
	{"internal/probes/numa:TestKernelNodes", "NUMA node", func(k kernel) bool { return !k.slow }},
	{"internal/probes/numa:TestKernelInterleave", "NUMA node", func(k kernel) bool { return k.debian == "" }}, // the lab kernel is built without
	{"internal/probes/slab:TestKernel", "(Linux 6.13)", func(k kernel) bool { return k.debian != "newest-cloud" }},
	{"internal/probes/changes:TestKernelModule", "needs a kernel with modules", func(k kernel) bool { return k.debian == "" }},
	{"internal/probes/changes:TestKernelSysctl", "that tells of writes (5.11)", func(k kernel) bool { return k.debian == "" || older("5.10")(k) }},
	{"internal/probes/runqueue:TestKernel", "needs mkfs.ext4", func(kernel) bool { return true }},
	{"internal/probes/runqueue:TestKernelMove", "needs two CPUs", func(k kernel) bool { return k.cpus < 2 }},
	{"internal/probes/netdrop:TestKernelLeftOut", "Linux 5.17", older("5.10")},
	{"internal/probes/hungtask:TestKernelOwner", "(Linux 6.17", func(k kernel) bool { return k.debian != "newest-cloud" }},
	{"internal/profile/engine:TestKernel", "needs ", everywhere}, // compilers and interpreters
	{"internal/profile/frames:TestKernel", "needs a C compiler", everywhere},
	{"internal/probes/thermal:TestKernel", "needs a thermal zone", func(kernel) bool { return true }},
	{"internal/probes/rdma:TestKernel", "needs an RDMA device", func(kernel) bool { return true }},
	{"internal/probes/gpu:TestKernel", "needs an NVIDIA GPU", func(kernel) bool { return true }},
	{"internal/probes/kernlog:TestKernel", "(Linux 5.17)", older("5.10")},
	{"internal/probes/kernlog:TestKernelWorkqueue", "CONFIG_WQ_WATCHDOG", everywhere},
	{"test/faults/stuckcpu:TestKernelHold", "(Linux 5.17)", older("5.10")},
	{"internal/probes/ras:TestKernelPage", "(CONFIG_MEMORY_FAILURE)", func(k kernel) bool { return k.arch == "amd64" && older("5.10", "6.1")(k) }},
	{"internal/probes/ras:TestKernelMCE", "needs the module mce-inject", func(k kernel) bool { return k.arch != "amd64" || older("5.10", "6.1")(k) }},
}

func without(hook string) func(kernel) bool {
	return func(k kernel) bool { return !slices.Contains(k.hooks, hook) }
}

// older tells the kernels of some series, which lack what came later.
func older(series ...string) func(kernel) bool {
	return func(k kernel) bool { return slices.Contains(series, strings.TrimSuffix(k.debian, "-cloud")) }
}

func mayskip(k kernel, test, reason string) bool {
	return slices.ContainsFunc(skipRules, func(r skipRule) bool {
		return strings.HasPrefix(test, r.test) && strings.Contains(reason, r.text) && r.on(k)
	})
}
