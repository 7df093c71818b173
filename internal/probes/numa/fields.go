package numa

import "huatuo/internal/signal"

// field is one line of a node's meminfo and the metric it becomes.
type field struct {
	key    string
	schema *signal.Schema
	label  string // value of a second label; then the line is a plain count
}

var nodeField = signal.Field{Name: "node", Help: "NUMA node"}

func gauge(key, name, help, read string) field {
	return field{key: key, schema: &signal.Schema{
		Name: "huatuo_numa_memory_" + name + "_bytes", Kind: signal.Metric, Type: signal.Gauge, Unit: "bytes",
		Area: signal.AreaMemory, Scope: signal.Host, Help: help, Read: read, Fields: []signal.Field{nodeField},
	}}
}

// fields are the lines worth a series for each node; the host's sums of others are in probe meminfo.
var fields = []field{
	gauge("MemTotal", "total", "Memory of the node.",
		"0: a node of CPUs or devices alone. Very different sizes: memory modules are missing or badly placed."),
	gauge("MemFree", "free", "Memory of the node that nobody uses at all.",
		"Low on one node while another has plenty: allocations there go to the other node, or reclaim although the host has memory."),
	gauge("FilePages", "file", "Page cache of the node.",
		"Cache fills the node whose CPUs read the files, and takes the room of programs that run there."),
	gauge("AnonPages", "anonymous", "Anonymous memory on the node: heaps and stacks.",
		"All on one node: the programs are bound to it, or were started there before they spread."),
	gauge("Shmem", "shmem", "Shared memory and tmpfs on the node.",
		"A database's shared memory on one node alone is remote for the CPUs of the others."),
	gauge("Slab", "slab", "Memory of the kernel's object caches on the node.",
		"It cannot move to another node."),
	gauge("SUnreclaim", "slab_unreclaimable", "Part of the node's slab that cannot be reclaimed.",
		"Together with anonymous near total: the node is full for good."),
	gauge("Dirty", "dirty", "Changed page cache on the node that waits to be written.",
		"Compare with the other nodes."),
	gauge("AnonHugePages", "anonymous_huge", "Anonymous memory of the node in transparent huge pages.",
		"Less than on other nodes: this one is more fragmented, see huatuo_memory_free_unusable_ratio."),
}

var (
	hugePageKeys   = []string{"HugePages_Total", "HugePages_Free", "HugePages_Surp"}
	hugePageStates = []string{"total", "free", "surplus"}
)

var hugePages = &signal.Schema{
	Name: "huatuo_numa_huge_pages", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
	Help: "Pages of the default huge page pool on the node.",
	Read: "A pool is reserved node by node: a virtual machine bound to a node without free ones fails to start although the host has some.",
	Fields: []signal.Field{nodeField,
		{Name: "state", Help: "total; free: not handed out; surplus: above the configured number", Values: hugePageStates}},
}

var (
	allocationKeys    = []string{"numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node"}
	allocationResults = []string{"hit", "miss", "foreign", "interleave", "local", "other"}
)

var allocations = &signal.Schema{
	Name: "huatuo_numa_allocations_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
	Help: "Pages handed out, by node and by whether it was the node that was wanted.",
	Read: "rate of miss above 0: the other nodes are full, and what runs there works with remote memory. other/(local+other) is the share of remote memory.",
	Fields: []signal.Field{nodeField,
		{Name: "result", Help: "hit: wanted here and got here; miss: wanted elsewhere and got here; foreign: wanted here and got elsewhere; interleave: hit by an interleaving policy; local: asked by a CPU of the node; other: by a CPU of another", Values: allocationResults}},
}
