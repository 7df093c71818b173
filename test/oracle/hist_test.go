package oracle

import (
	"math"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// hist is a native histogram: observations by bucket index. Zero has its own.
type hist struct {
	schema int32
	zero   float64 // upper bound of what counts as zero
	count  map[int]int64
	total  int64
}

// zeroBucket sorts before every other.
const zeroBucket = math.MinInt32

// native reads the histogram of a sample; one that is absent is empty.
func native(m *dto.Metric) hist {
	h := hist{count: map[int]int64{}}
	p := m.GetHistogram()
	if p == nil {
		return h
	}
	h.schema, h.zero, h.total = p.GetSchema(), p.GetZeroThreshold(), int64(p.GetSampleCount())
	if n := int64(p.GetZeroCount()); n > 0 {
		h.count[zeroBucket] = n
	}
	i, n, d := 0, int64(0), 0
	for _, s := range p.GetPositiveSpan() {
		i += int(s.GetOffset())
		for range s.GetLength() {
			n += p.GetPositiveDelta()[d]
			d++
			if n > 0 {
				h.count[i] = n
			}
			i++
		}
	}
	return h
}

// since returns what came after an earlier reading.
func (h hist) since(was hist) hist {
	out := hist{schema: h.schema, zero: h.zero, count: map[int]int64{}, total: h.total - was.total}
	for i, n := range h.count {
		if n -= was.count[i]; n > 0 {
			out.count[i] = n
		}
	}
	return out
}

// bucket is the index of the bucket that an observation belongs to.
func (h hist) bucket(d time.Duration) int {
	s := d.Seconds()
	if s <= h.zero {
		return zeroBucket
	}
	return int(math.Ceil(math.Log2(s) * math.Exp2(float64(h.schema))))
}

// quantile is the index of the bucket in which the q-th observation is.
func (h hist) quantile(q float64) int {
	rank, seen := int64(math.Ceil(q*float64(h.total))), int64(0)
	is := make([]int, 0, len(h.count))
	for i := range h.count {
		is = append(is, i)
	}
	slices.Sort(is)
	for _, i := range is {
		if seen += h.count[i]; seen >= rank {
			return i
		}
	}
	return math.MaxInt32
}

// low is the lower bound of a bucket, for messages.
func (h hist) low(i int) time.Duration {
	if i == zeroBucket {
		return 0
	}
	return time.Duration(math.Exp2(float64(i-1)/math.Exp2(float64(h.schema))) * 1e9)
}

// wait is one latency that the oracle saw.
type wait struct {
	d   time.Duration
	end uint64 // trace clock
	pid uint64 // whose it was, for the run queue
}

// window is the time between two scrapes. The agent reads its histograms at
// some moment of each.
type window struct {
	edges [4]uint64 // trace clock: begin and end of the first, begin and end of the second
	n     int
}

// scrape is one of the two.
func (w *window) scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	w.edges[w.n] = monotonic(t)
	m := scrape(t, url)
	w.edges[w.n+1] = monotonic(t)
	w.n += 2
	return m
}

// blurred tells whether more than a twentieth of the observations came while the
// agent was being scraped: nobody can say which of them it has counted.
func (w *window) blurred(waits []wait) bool {
	in, edge := 0, 0
	for _, x := range waits {
		switch {
		case x.end < w.edges[0] || x.end > w.edges[3]:
		case x.end >= w.edges[1] && x.end <= w.edges[2]:
			in++
		default:
			edge++
		}
	}
	return edge > in/20
}

// agree compares a histogram of the agent with what the oracle saw: as many
// observations but for slack, and p50, p90 and p99 in the same bucket or the
// one beside. What the agent has more may lie anywhere among the rest, and what
// came while it was scraped may be in or not, as one in 200 besides: so a
// quantile of all is one of two of those that the oracle saw, or between them.
func (w *window) agree(t *testing.T, what string, h hist, waits []wait, slack int) {
	t.Helper()
	var seen []time.Duration
	most := int64(0)
	for _, x := range waits {
		if x.end >= w.edges[1] && x.end <= w.edges[2] {
			seen = append(seen, x.d)
		}
		if x.end >= w.edges[0] && x.end <= w.edges[3] {
			most++
		}
	}
	n := int64(len(seen))
	if n < 100 {
		t.Fatalf("%s: the oracle saw %d only, too few to compare", what, n)
	}
	t.Logf("%s: %d observations, the oracle has %d to %d; schema %d", what, h.total, n, most, h.schema)
	if h.total < n-int64(slack) || h.total > most+int64(slack) {
		t.Errorf("%s: the agent counted %d, the oracle %d to %d", what, h.total, n, most)
	}
	slices.Sort(seen)
	unseen, edge := max(h.total-n, 0), most-n+n/200
	for _, q := range []float64{0.5, 0.9, 0.99} {
		rank := int64(math.Ceil(q * float64(n+unseen)))
		least, most := seen[max(rank-unseen-edge, 1)-1], seen[min(rank+edge, n)-1]
		got := h.quantile(q)
		t.Logf("%s: p%g is %v to %v, the agent's bucket begins at %v", what, 100*q, least, most, h.low(got))
		if h.place(got) < h.place(h.bucket(least))-1 || h.place(got) > h.place(h.bucket(most))+1 {
			t.Errorf("%s: p%g is %v to %v, bucket %d to %d, and %d for the agent", what, 100*q, least, most, h.bucket(least), h.bucket(most), got)
		}
	}
}

// place numbers buckets without a gap: the one of zero is beside the lowest.
func (h hist) place(i int) int {
	if i == zeroBucket {
		return int(math.Round(math.Log2(h.zero) * math.Exp2(float64(h.schema))))
	}
	return i
}
