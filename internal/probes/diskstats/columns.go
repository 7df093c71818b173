package diskstats

import "huatuo/internal/signal"

const (
	reads      = 0
	writes     = 4
	minColumns = 11
	nColumns   = 17

	sector = 1.0 / 512 // sectors have 512 bytes there, whatever the disk's own (Documentation/block/stat.rst)
	milli  = 1000      // the kernel counts milliseconds
)

// columns are those of /proc/diskstats after the name, in the kernel's order
// (Documentation/admin-guide/iostats.rst).
var columns = [nColumns]struct {
	schema *signal.Schema
	per    float64 // how many of the column's units make one of the metric's
}{
	{counter("reads_total", "1", "Reads that completed.", "rate() is read IOPS; merged requests count once."), 1},
	{counter("reads_merged_total", "1", "Reads that were merged with a neighbour before they were sent.", "High: sequential reading in small pieces."), 1},
	{counter("read_bytes_total", "bytes", "Bytes read.", "Divided by reads: the mean size of a request."), sector},
	{counter("read_seconds_total", "seconds", "Time that all reads together took, queueing included.",
		"rate() over rate(reads) is the mean read latency; the distribution is huatuo_block_io_total_seconds."), milli},
	{counter("writes_total", "1", "Writes that completed.", "rate() is write IOPS; merged requests count once."), 1},
	{counter("writes_merged_total", "1", "Writes that were merged with a neighbour before they were sent.", "High: sequential writing, mostly writeback."), 1},
	{counter("write_bytes_total", "bytes", "Bytes written.", "Divided by writes: the mean size of a request."), sector},
	{counter("write_seconds_total", "seconds", "Time that all writes together took, queueing included.",
		"rate() over rate(writes) is the mean write latency."), milli},
	{gauge("inflight", "Requests that are on their way at this instant.", "Steadily near the queue depth: saturated. Above 0 without completions: the disk hangs."), 1},
	{counter("io_seconds_total", "seconds", "Time in which at least one request was on its way.",
		"rate() is the busy share (0 to 1). 1 means full for a hard disk, and little for a device that works in parallel."), milli},
	{counter("io_weighted_seconds_total", "seconds", "Time that requests were on their way, each counted.", "rate() is the mean queue length."), milli},
	{counter("discards_total", "1", "Discards (TRIM) that completed.", "Bursts come from fstrim or a file system mounted with discard."), 1},
	{counter("discards_merged_total", "1", "Discards that were merged with a neighbour.", "Seldom of interest."), 1},
	{counter("discard_bytes_total", "bytes", "Bytes discarded.", "Space given back to the device."), sector},
	{counter("discard_seconds_total", "seconds", "Time that all discards together took.", "Some devices stall reads meanwhile."), milli},
	{counter("flushes_total", "1", "Cache flushes that completed.", "Each fsync is one or more: databases and journals."), 1},
	{counter("flush_seconds_total", "seconds", "Time that all flushes together took.", "rate() over rate(flushes) is what an fsync costs at least."), milli},
}

func counter(what, unit, help, read string) *signal.Schema {
	s := gauge(what, help, read)
	s.Type, s.Unit = signal.Counter, unit
	return s
}

func gauge(what, help, read string) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_disk_" + what, Kind: signal.Metric, Type: signal.Gauge, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Host, Help: help, Read: read,
		Fields: []signal.Field{{Name: "device", Help: "Block device as the kernel calls it."}},
	}
}
