package prom

import (
	"math"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"huatuo/internal/signal"
)

// classicBounds gives the exponents of two of the `le` bounds that scrapers
// without native histograms get. They are few, because each is a series, and
// powers of four, because those are exact in every resolution of a Hist.
func classicBounds(unit string) (first, last int) {
	switch unit {
	case "seconds":
		return -20, 6 // 1 µs to 64 s
	case "bytes":
		return 6, 30 // 64 B to 1 GiB
	case "ratio":
		return -10, 0
	default:
		return 0, 20 // 1 to a million
	}
}

// histogram returns h in both forms; a scraper takes the one that it knows.
func histogram(h *signal.Hist, unit string, ex *dto.Exemplar) *dto.Histogram {
	out := &dto.Histogram{SampleSum: proto.Float64(h.Sum)}
	total := native(h, out)
	// The buckets decide, not h.Count: Prometheus refuses a histogram whose
	// count is not their sum.
	out.SampleCount = &total
	out.Bucket = classic(h, unit)
	if ex != nil {
		attach(out, ex, total)
	}
	return out
}

// native fills the native form and returns the number of observations.
func native(h *signal.Hist, out *dto.Histogram) (total uint64) {
	out.Schema = proto.Int32(int32(h.Resolution))
	out.ZeroThreshold = proto.Float64(bound(h, h.First-1))
	out.ZeroCount = &h.Zero
	total = h.Zero
	var span *dto.BucketSpan
	var prev int64
	next := 0 // native index after the last bucket written
	for i, n := range h.Counts {
		if n == 0 {
			continue
		}
		total += n
		if gap := h.First + i - next; span == nil || gap > 0 {
			span = &dto.BucketSpan{Offset: proto.Int32(int32(gap)), Length: proto.Uint32(0)}
			out.PositiveSpan = append(out.PositiveSpan, span)
		}
		*span.Length++
		next = h.First + i + 1
		out.PositiveDelta = append(out.PositiveDelta, int64(n)-prev)
		prev = int64(n)
	}
	return total
}

// bound is the upper bound of the native bucket with that index. Powers of two
// are exact.
func bound(h *signal.Hist, index int) float64 {
	per := 1 << h.Resolution
	exp, part := index>>h.Resolution, index&(per-1)
	if part == 0 {
		return math.Ldexp(1, exp)
	}
	return math.Ldexp(math.Exp2(float64(part)/float64(per)), exp)
}

// classic returns the cumulative buckets. A bound below the zero bucket's is
// left out: how many of its observations are below is not known.
func classic(h *signal.Hist, unit string) []*dto.Bucket {
	first, last := classicBounds(unit)
	out := make([]*dto.Bucket, 0, (last-first)/2+2) // one more for an exemplar above the last bound
	cum, i := h.Zero, 0
	for exp := first; exp <= last; exp += 2 {
		index := exp << h.Resolution // native index whose upper bound is 2^exp
		if index < h.First-1 {
			continue
		}
		for ; i < len(h.Counts) && h.First+i <= index; i++ {
			cum += h.Counts[i]
		}
		out = append(out, &dto.Bucket{CumulativeCount: proto.Uint64(cum), UpperBound: proto.Float64(math.Ldexp(1, exp))})
	}
	return out
}

// attach puts ex where both forms look for it.
func attach(out *dto.Histogram, ex *dto.Exemplar, total uint64) {
	if ex.Timestamp != nil { // native histograms take none without
		out.Exemplars = []*dto.Exemplar{ex}
	}
	for _, b := range out.Bucket {
		if ex.GetValue() <= b.GetUpperBound() {
			b.Exemplar = ex
			return
		}
	}
	out.Bucket = append(out.Bucket, &dto.Bucket{CumulativeCount: &total, UpperBound: proto.Float64(math.Inf(1)), Exemplar: ex})
}
