//go:build !noprofiler

package engine

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// lost counts samples that the unwinder took and could not hand over. It is of
// the process, as the library's counters are.
var lost atomic.Uint64

// Lost returns how many samples the unwinder took and could not hand over since
// the process began: its buffer was full, or could not be read.
func Lost() uint64 { return lost.Load() }

// meter takes of the library's two hundred counters those of lost samples. Their
// names are those of its metrics/metrics.json.
type meter struct{ noop.Meter }

// Int64Counter returns a counter that counts if samples are lost by it.
func (meter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	switch name {
	case "bpf.errors.ringbuf_output", "agent.errors.trace_event_read_error", "agent.errors.trace_event_no_data":
		return lossCounter{}, nil
	}
	return noop.Int64Counter{}, nil
}

// lossCounter adds to lost.
type lossCounter struct{ noop.Int64Counter }

// Add counts n lost samples.
func (lossCounter) Add(_ context.Context, n int64, _ ...metric.AddOption) {
	if n > 0 {
		lost.Add(uint64(n))
	}
}
