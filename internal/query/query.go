// Package query is the one way to read what the agent keeps: PromQL over the
// metric history and filters over the events, within limits that protect the
// node. It works on any Backend; the embedded store is one.
package query

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"huatuo/internal/signal"
)

// Backend is what can be queried.
type Backend interface {
	storage.Queryable
	// Events returns the events that f selects, newest first, f.Limit at most.
	Events(ctx context.Context, f signal.EventFilter) (signal.EventPage, error)
	// Event returns one event. The error for one that is not there is a
	// fs.ErrNotExist to errors.Is.
	Event(ctx context.Context, id string) (*signal.Document, error)
	// Timeline counts the events that f selects in n intervals of equal length.
	Timeline(ctx context.Context, f signal.EventFilter, n int) ([]signal.EventBucket, error)
	// CountEvents counts the events that f selects by what g says, the largest
	// groups first, g.Limit at most.
	CountEvents(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error)
	// EventValues lists the values of a member in the newest of the events that
	// f selects, those with part in them, the most frequent first.
	EventValues(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error)
}

// Limits bound what one query may cost. Zero members take the default.
type Limits struct {
	Timeout    time.Duration // of a query, waiting included; default 30 s
	Concurrent int           // queries that run at once, others wait; default 4
	MaxSamples int           // samples in memory at once; default 5 million, some 80 MB
	MaxSeries  int           // series that one PromQL query may touch, or that Series returns; default 20 000
	MaxPoints  int           // steps of a range query; default 11 000, as in Prometheus
	Page       int           // events of a page that asks for no number; default 100
	MaxPage    int           // events of a page; default 1000
	MaxBuckets int           // intervals of a timeline; default 2000
	MaxGroups  int           // of a count; default 10 000
}

func (l Limits) withDefaults() Limits {
	if l.Timeout <= 0 {
		l.Timeout = 30 * time.Second
	}
	for _, d := range []struct {
		v   *int
		def int
	}{
		{&l.Concurrent, 4}, {&l.MaxSamples, 5_000_000}, {&l.MaxSeries, 20_000}, {&l.MaxPoints, 11_000},
		{&l.Page, 100}, {&l.MaxPage, 1000}, {&l.MaxBuckets, 2000}, {&l.MaxGroups, 10_000},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	return l
}

// Reader answers queries. It is safe for concurrent use.
type Reader struct {
	b      Backend
	limits Limits
	engine *promql.Engine
	parser parser.Parser
	slots  chan struct{}
}

// New returns a Reader of b.
func New(b Backend, limits Limits) *Reader {
	limits = limits.withDefaults()
	p := parser.NewParser(parser.Options{})
	r := &Reader{
		b: b, limits: limits, parser: p, slots: make(chan struct{}, limits.Concurrent),
		engine: promql.NewEngine(promql.EngineOpts{
			Logger:               slog.New(slog.DiscardHandler), // each error goes to the caller
			MaxSamples:           limits.MaxSamples,
			Timeout:              limits.Timeout,
			EnableAtModifier:     true,
			EnableNegativeOffset: true,
			EnableQueryCost:      true, // for SetQueryLimits
			Parser:               p,
			// As Prometheus: the default evaluation interval.
			NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		}),
	}
	r.engine.SetQueryLimits(uint64(limits.MaxSeries), 0, 0)
	return r
}

// begin waits for a free slot. The caller must call the function it returns.
func (r *Reader) begin(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Timeout)
	select {
	case r.slots <- struct{}{}:
		return ctx, func() { <-r.slots; cancel() }, nil
	case <-ctx.Done():
		err := fmt.Errorf("query timed out or was given up while it waited for one of %d slots: %w", r.limits.Concurrent, ctx.Err())
		cancel()
		return nil, nil, classify(err)
	}
}
