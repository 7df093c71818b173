// Package prom exposes samples to Prometheus, VictoriaMetrics and whatever
// else reads /metrics: text, OpenMetrics with exemplars and units, or protobuf
// with native histograms, as the scraper asks.
//
// One gathering round runs per scrape. The metric families are built straight
// from the samples; a client_golang registry would only add a second copy of
// names and checks that a signal.Schema already has.
package prom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"huatuo/internal/signal"
)

// maxInFlight bounds concurrent scrapes. Two Prometheus replicas and a curl are
// three; more than this is a mistake, and each holds a whole exposition.
const maxInFlight = 8

// Scrapes end a little before the scraper gives up, so that it gets an answer;
// without its header the scraper's default of 10 s is assumed.
const (
	defaultTimeout = 10 * time.Second
	timeoutMargin  = 250 * time.Millisecond
)

// Reasons why a sample is not exposed.
const (
	reasonLabels    = "labels"    // not as many label values as its schema has labels
	reasonDuplicate = "duplicate" // its series is there already
	reasonValue     = "value"     // no schema, or not the kind of value that its type needs
)

func reasons() []string { return []string{reasonDuplicate, reasonLabels, reasonValue} }

// Gather runs one gathering round. Samples that come with an error are exposed
// all the same: one broken collector does not take the others away.
type Gather func(ctx context.Context) ([]signal.Sample, error)

// Handler serves /metrics.
type Handler struct {
	gather  Gather
	log     *slog.Logger
	schema  *signal.Schema
	dropped map[string]*atomic.Uint64 // by reason; the map itself is never written to after New

	slots chan struct{}

	mu   sync.Mutex
	told map[string]bool // drops that have been logged, by reason and metric
}

// New returns the handler of /metrics. A nil log means slog.Default.
func New(gather Gather, log *slog.Logger) *Handler {
	if log == nil {
		log = slog.Default()
	}
	h := &Handler{
		gather:  gather,
		log:     log,
		schema:  droppedSchema(),
		dropped: map[string]*atomic.Uint64{},
		slots:   make(chan struct{}, maxInFlight),
		told:    map[string]bool{},
	}
	for _, r := range reasons() {
		h.dropped[r] = new(atomic.Uint64)
	}
	return h
}

func droppedSchema() *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_exposition_dropped_samples_total", Kind: signal.Metric, Type: signal.Counter,
		Unit: "1", Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Samples left out of the exposition because they contradict their schema or another sample.",
		Read: "Anything but zero is a bug of the agent: the log names the metric.",
		Fields: []signal.Field{
			{Name: "reason", Help: "Why the sample was left out.", Values: reasons()},
		},
	}
}

// Schemas lists the metrics that a Handler adds about itself. They are in the
// exposition only: other readers of the samples do not drop any.
func Schemas() []*signal.Schema { return []*signal.Schema{droppedSchema()} }

// Dropped tells how many samples were left out since the start, by reason.
func (h *Handler) Dropped() map[string]uint64 {
	m := make(map[string]uint64, len(h.dropped))
	for r, n := range h.dropped {
		m[r] = n.Load()
	}
	return m
}

// ServeHTTP runs a gathering round and writes it in the format the scraper
// prefers. Each scrape has its own, because the round's context is the request's.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d scrapes are running already; try again", maxInFlight), http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r))
	defer cancel()
	promhttp.HandlerFor(h.Gatherer(ctx), promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          &errorLog{log: h.log},
	}).ServeHTTP(w, r)
}

// Gatherer returns a prometheus.Gatherer each Gather of which runs one round
// under ctx.
func (h *Handler) Gatherer(ctx context.Context) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		samples, err := h.gather(ctx)
		if err != nil {
			err = fmt.Errorf("gather metrics: %w", err)
		}
		return h.families(samples), err
	})
}

// timeout is how long the scrape may take.
func timeout(r *http.Request) time.Duration {
	s, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	// An hour is far above any scrape timeout and keeps the product in range.
	if err != nil || !(s > 0) || s > 3600 {
		return defaultTimeout - timeoutMargin
	}
	d := time.Duration(s * float64(time.Second))
	if d > 2*timeoutMargin {
		d -= timeoutMargin
	}
	return d
}

// drop counts a sample that is left out and logs the first of its metric.
func (h *Handler) drop(reason, metric, detail string) {
	h.dropped[reason].Add(1)
	key := reason + " " + metric
	h.mu.Lock()
	first := !h.told[key]
	h.told[key] = true
	h.mu.Unlock()
	if first {
		h.log.Error("drop sample", "metric", metric, "reason", reason, "detail", detail,
			"note", "logged once per metric; counted in "+h.schema.Name)
	}
}

// errorLog lets promhttp log through slog: the first error of a scrape, because
// promhttp tells of each family that it could not write, and none when it is
// the client that has gone.
type errorLog struct {
	log  *slog.Logger
	told bool
}

func (e *errorLog) Println(v ...any) {
	for _, x := range v {
		if err, ok := x.(error); ok && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			return
		}
	}
	if !e.told {
		e.told = true
		e.log.Warn("expose metrics", "error", fmt.Sprint(v...))
	}
}
