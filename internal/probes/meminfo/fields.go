package meminfo

import "huatuo/internal/signal"

// field is one line of /proc/meminfo and the metric it becomes.
type field struct {
	key    string
	schema *signal.Schema
	labels []string
}

// gauge makes the field of a line in kB.
func gauge(key, name, help, read string) field {
	return field{key: key, schema: &signal.Schema{
		Name: "huatuo_memory_" + name + "_bytes", Kind: signal.Metric, Type: signal.Gauge, Unit: "bytes",
		Area: signal.AreaMemory, Scope: signal.Host, Help: help, Read: read,
	}}
}

// fields are the lines worth a series, in the order of the docs. Left out are
// constants (VmallocTotal), lines that have been zero for years (NFS_Unstable,
// Bounce, WritebackTmp, VmallocChunk) and the direct map's page sizes.
var fields = []field{
	gauge("MemTotal", "total", "Memory that the kernel manages: physical memory less what firmware and the kernel image took.",
		"The divisor for shares; a change means memory hot-plug or a balloon."),
	gauge("MemAvailable", "available", "Memory that new work could get without swapping, as the kernel estimates it.",
		"The one to alert on: available/total below 0.05 means reclaim in the foreground soon, then the OOM killer."),
	gauge("MemFree", "free", "Memory that nobody uses at all.",
		"Low is normal: the kernel fills memory with cache. Read available instead."),
	gauge("Buffers", "buffers", "Page cache of raw block devices, mostly file system metadata.",
		"Large after reading whole devices; it can be reclaimed."),
	gauge("Cached", "cached", "Page cache of files, with tmpfs and shared memory.",
		"Subtract shmem for what can be dropped: tmpfs and shared memory can only be swapped."),
	gauge("SwapCached", "swap_cached", "Pages in memory that also still are in swap.",
		"Not zero: the host has swapped."),
	gauge("Active", "active", "Memory used recently, anonymous and file.",
		"What reclaim looks at last."),
	gauge("Inactive", "inactive", "Memory not used recently, anonymous and file.",
		"What reclaim takes first."),
	gauge("Active(anon)", "active_anonymous", "Anonymous memory used recently.",
		"The working set of heaps and stacks."),
	gauge("Inactive(anon)", "inactive_anonymous", "Anonymous memory not used recently.",
		"The first to go to swap; without swap it stays."),
	gauge("Active(file)", "active_file", "Page cache used more than once.",
		"The working set of files: when it shrinks while refaults rise, the host thrashes."),
	gauge("Inactive(file)", "inactive_file", "Page cache used once or long ago.",
		"Can be dropped at little cost; when it is near zero, reclaim hurts."),
	gauge("Unevictable", "unevictable", "Memory that reclaim may not touch: mlock, ramfs, secret memory.",
		"Growth here is memory that is lost to everybody else."),
	gauge("Mlocked", "mlocked", "Memory locked with mlock.",
		"Part of unevictable; databases and real-time programs lock memory on purpose."),
	gauge("SwapTotal", "swap_total", "Size of all swap areas.",
		"0: the host has no swap, and anonymous memory can leave memory only by an OOM kill."),
	gauge("SwapFree", "swap_free", "Swap that is not used.",
		"Near 0 with total above 0: the next shortage is an OOM kill."),
	gauge("Zswap", "zswap", "Memory that the compressed swap cache occupies.",
		"Compare with zswapped: their ratio is the compression."),
	gauge("Zswapped", "zswapped", "Anonymous memory, as it was before compression, that is in the compressed swap cache.",
		"What zswap saved from going to disk."),
	gauge("Dirty", "dirty", "Changed page cache that waits to be written.",
		"Near the limit of vm.dirty_ratio writers are throttled."),
	gauge("Writeback", "writeback", "Page cache that is being written.",
		"High for long: the device is slower than the writers."),
	gauge("AnonPages", "anonymous", "Anonymous memory mapped into processes: heaps and stacks.",
		"A steady climb is a leak; the containers' huatuo_container_memory_anon_bytes say whose."),
	gauge("Mapped", "mapped", "Files and shared memory mapped into processes.",
		"Program text and libraries mostly."),
	gauge("Shmem", "shmem", "Shared memory and tmpfs.",
		"Counted in cached but not reclaimable; growth is often a forgotten file in /dev/shm or an emptyDir in memory."),
	gauge("KReclaimable", "kernel_reclaimable", "Kernel memory that reclaim can take back: slab and other.",
		"Directory and inode caches mostly."),
	gauge("Slab", "slab", "Memory of the kernel's object caches.",
		"The sum of the next two."),
	gauge("SReclaimable", "slab_reclaimable", "Part of slab that can be reclaimed, such as dentries and inodes.",
		"Gigabytes after a walk over many files are normal; they cost reclaim time later."),
	gauge("SUnreclaim", "slab_unreclaimable", "Part of slab that cannot be reclaimed.",
		"A steady climb is a leak in the kernel or a driver."),
	gauge("KernelStack", "kernel_stack", "Kernel stacks of all tasks.",
		"16 KiB a thread on most machines: grows with huatuo_tasks."),
	gauge("PageTables", "page_tables", "Page tables of processes.",
		"Many processes sharing a large mapping without huge pages pay here."),
	gauge("SecPageTables", "secondary_page_tables", "Page tables of virtual machines and IOMMUs.",
		"Only on hosts of virtual machines."),
	gauge("CommitLimit", "commit_limit", "Memory that may be promised under strict overcommit.",
		"In force only with vm.overcommit_memory=2: then committed must stay below it."),
	gauge("Committed_AS", "committed", "Memory promised to processes, touched or not.",
		"Can be above total; the surplus is trust that nobody touches it all."),
	gauge("VmallocUsed", "vmalloc", "Kernel memory from vmalloc.",
		"Modules, BPF programs and large tables; a steady climb is a leak."),
	gauge("Percpu", "percpu", "Kernel memory of per-CPU allocations.",
		"Grows with the number of cgroups times CPUs: many gigabytes point at leaked cgroups."),
	gauge("HardwareCorrupted", "hardware_corrupted", "Memory taken out of use after an uncorrectable error.",
		"Above 0: a memory module is failing."),
	gauge("AnonHugePages", "anonymous_huge", "Anonymous memory in transparent huge pages.",
		"Its share of anonymous tells whether huge pages help the TLB."),
	gauge("ShmemHugePages", "shmem_huge", "Shared memory and tmpfs in huge pages.",
		"0 unless tmpfs is mounted with huge=."),
	gauge("FileHugePages", "file_huge", "Page cache in huge pages.",
		"Only with CONFIG_READ_ONLY_THP_FOR_FS or file systems with large folios."),
	gauge("CmaTotal", "cma_total", "Memory reserved for contiguous allocations of devices.",
		"Movable pages may use it meanwhile."),
	gauge("CmaFree", "cma_free", "Part of it that is free.",
		"Counted in free, but not usable for all purposes."),
	gauge("Hugetlb", "hugetlb", "Memory in the pools of huge pages of all sizes.",
		"Taken from total whether used or not: an unused pool is wasted memory."),
	gauge("Hugepagesize", "huge_page_size", "Size of a page of the default huge page pool.",
		"Multiply huatuo_memory_huge_pages by it."),
	gauge("Balloon", "balloon", "Memory that the hypervisor took back through the balloon.",
		"Growth is a shortage on the host below."),
}

var (
	hugePageKeys   = []string{"HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"}
	hugePageStates = []string{"total", "free", "reserved", "surplus"}
)

var hugePages = &signal.Schema{
	Name: "huatuo_memory_huge_pages", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
	Help: "Pages of the default huge page pool.",
	Read: "free minus reserved is what a program can still get; free near total means that the pool is wasted.",
	Fields: []signal.Field{{Name: "state", Values: hugePageStates,
		Help: "total; free: not handed out; reserved: promised but not touched; surplus: above the configured number."}},
}
