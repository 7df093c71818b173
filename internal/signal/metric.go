package signal

import "time"

// MetricType is the Prometheus type of a metric.
type MetricType string

// The metric types in use. A cumulative value is never a gauge.
const (
	Counter   MetricType = "counter"
	Gauge     MetricType = "gauge"
	Histogram MetricType = "histogram"
)

// Scope says what a metric's series stand for.
type Scope string

const (
	// Host metrics have the labels of their schema only.
	Host Scope = "host"
	// Workload metrics carry WorkloadLabels after the schema's own labels. A
	// collector gives a cgroup id, and the gatherer turns it into the labels:
	// series of one workload are summed, and what belongs to unknown or
	// short-lived cgroups collapses into container="other".
	Workload Scope = "workload"
)

// WorkloadLabels are appended to the labels of every Workload metric. The
// first three are Kubernetes' names, so that joins with kube-state-metrics
// and cAdvisor work; unit is set when there is a systemd unit and no container.
var WorkloadLabels = [4]string{"namespace", "pod", "container", "unit"}

// Sample is one value of one series.
type Sample struct {
	Schema   *Schema
	Labels   []string // values, in the order of Schema.Fields; WorkloadLabels follow once the gatherer has resolved CgroupID
	CgroupID uint64   // of a Workload sample as a collector gives it
	Peer     uint64   // cgroup id of the other workload, likewise; the gatherer then fills Labels (PeerFields)
	Value    float64  // counter or gauge
	Hist     *Hist    // histogram
	Exemplar *Exemplar
	Note     string // shown beside the value by who reads this round; not part of the series, and kept nowhere
}

// Exemplar ties a histogram or counter to one captured event.
type Exemplar struct {
	EventID string
	Value   float64
	Time    time.Time
}

// Batch is what collectors fill in one gathering round. The zero value is
// ready to use. It is not safe for concurrent use.
type Batch struct {
	Time    time.Time
	Samples []Sample
}

// Value adds a counter or gauge value of a Host metric.
func (b *Batch) Value(s *Schema, v float64, labels ...string) {
	b.Samples = append(b.Samples, Sample{Schema: s, Labels: labels, Value: v})
}

// Hist adds a histogram of a Host metric. The batch owns h from here on.
func (b *Batch) Hist(s *Schema, h *Hist, labels ...string) {
	b.Samples = append(b.Samples, Sample{Schema: s, Labels: labels, Hist: h})
}

// WorkloadValue adds a value of a Workload metric, of the cgroup with that id.
func (b *Batch) WorkloadValue(s *Schema, cgroup uint64, v float64, labels ...string) {
	b.Samples = append(b.Samples, Sample{Schema: s, Labels: labels, CgroupID: cgroup, Value: v})
}

// WorkloadHist adds a histogram of a Workload metric. The batch owns h from here on.
func (b *Batch) WorkloadHist(s *Schema, cgroup uint64, h *Hist, labels ...string) {
	b.Samples = append(b.Samples, Sample{Schema: s, Labels: labels, CgroupID: cgroup, Hist: h})
}

// Hist is a cumulative latency or size distribution in exponential buckets:
// bucket i of resolution r covers (2^((First+i-1)/2^r), 2^((First+i)/2^r)] in
// the metric's unit, the bounds of a Prometheus native histogram of schema r.
//
// BPF programs count in units of 2^-30 s (bpf/include/hist.h), not in
// nanoseconds, so that powers of two of the kernel's unit are powers of two of
// a second and both the native and the classic form have exact bounds.
type Hist struct {
	Resolution int      // Prometheus schema: 0 for powers of two, 2 for four buckets per power of two
	First      int      // native index of Counts[0]
	Counts     []uint64 // per bucket, not cumulative
	Zero       uint64   // observations ≤ the lower bound of Counts[0]
	Count      uint64   // all observations: Zero + sum of Counts
	Sum        float64  // in the metric's unit
}

// Clone returns a deep copy.
func (h *Hist) Clone() *Hist {
	c := *h
	c.Counts = append([]uint64(nil), h.Counts...)
	return &c
}

// Add adds o, which must have the same Resolution and First; it returns false
// and changes nothing when it has not.
func (h *Hist) Add(o *Hist) bool {
	if h.Resolution != o.Resolution || h.First != o.First {
		return false
	}
	for len(h.Counts) < len(o.Counts) {
		h.Counts = append(h.Counts, 0)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Zero += o.Zero
	h.Count += o.Count
	h.Sum += o.Sum
	return true
}

// The range of the latency histograms that BPF programs keep (bpf/include/hist.h):
// what is not longer than 2^LatencyMin s counts as zero, what is longer than
// 2^LatencyMax s goes to the last bucket. 2^-20 s is just below 1 µs, less than
// a context switch costs; 2^7 s is beyond the kernel's own limits (30 s block
// timeout, 120 s hung task).
const (
	LatencyMin = -20
	LatencyMax = 7
)

// LatencySlots is the number of buckets of a kernel latency histogram of that
// resolution.
func LatencySlots(resolution int) int { return (LatencyMax - LatencyMin) << resolution }

// LatencyHist makes a Hist, in seconds, of what a BPF program counted: sum is
// in units of 2^-30 s, slots has LatencySlots(resolution) entries and is copied.
func LatencyHist(resolution int, zero, sum uint64, slots []uint64) *Hist {
	h := &Hist{
		Resolution: resolution,
		First:      LatencyMin<<resolution + 1,
		Counts:     append([]uint64(nil), slots...),
		Zero:       zero,
		Count:      zero,
		Sum:        float64(sum) / (1 << 30),
	}
	for _, n := range slots {
		h.Count += n
	}
	return h
}
