package prom

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	promhist "github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	textFormat = "text/plain"
	openFormat = "application/openmetrics-text; version=1.0.0"
	protoForm  = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

func schema(name string, t signal.MetricType, unit string, scope signal.Scope, labelNames ...string) *signal.Schema {
	s := &signal.Schema{Name: name, Kind: signal.Metric, Type: t, Unit: unit, Area: signal.AreaCPU, Scope: scope, Help: "Help of " + name + "."}
	for _, l := range labelNames {
		s.Fields = append(s.Fields, signal.Field{Name: l, Help: "A label."})
	}
	return s
}

// world is one of each kind of sample.
func world() []signal.Sample {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	switches := schema("huatuo_sched_switches_total", signal.Counter, "1", signal.Host, "kind")
	load := schema("huatuo_load_average", signal.Gauge, "1", signal.Host, "window")
	memory := schema("huatuo_container_memory_usage_bytes", signal.Gauge, "bytes", signal.Workload)
	cpu := schema("huatuo_container_cpu_seconds_total", signal.Counter, "seconds", signal.Workload, "mode")
	wait := schema("huatuo_runqueue_wait_seconds", signal.Histogram, "seconds", signal.Host, "kind")
	h := &signal.Hist{Resolution: 0, First: -20, Counts: make([]uint64, 24), Zero: 5, Sum: 0.25}
	h.Counts[0], h.Counts[1], h.Counts[4], h.Counts[20] = 3, 2, 7, 1 // ≤ 2^-20, 2^-19, 2^-16, 2^0
	h.Count = 18
	return []signal.Sample{
		{Schema: switches, Labels: []string{"voluntary"}, Value: 12},
		{Schema: load, Labels: []string{"1m"}, Value: 0.5},
		{Schema: switches, Labels: []string{"involuntary"}, Value: 3, Exemplar: &signal.Exemplar{EventID: "01JGXAMPLE", Value: 1, Time: at}},
		{Schema: memory, Labels: []string{"shop", "web-1", "app", ""}, Value: 4096},
		{Schema: memory, Labels: []string{"", "", "", "ssh.service"}, Value: 8192},
		{Schema: cpu, Labels: []string{"user", "shop", "web-1", "a\"b\\c\nd"}, Value: 1}, // one label short
		{Schema: cpu, Labels: []string{"user", "shop", "web-1", "a\"b\\c\nd", ""}, Value: 1.5},
		{Schema: wait, Labels: []string{"wakeup"}, Hist: h, Exemplar: &signal.Exemplar{EventID: "01JGXAMPLE", Value: 0.7, Time: at}},
		{Schema: wait, Labels: []string{"preempt"}, Hist: &signal.Hist{First: -20, Counts: make([]uint64, 24)}},
	}
}

func fixed(samples []signal.Sample, err error) Gather {
	return func(context.Context) ([]signal.Sample, error) { return samples, err }
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func scrape(t testing.TB, h http.Handler, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestGolden(t *testing.T) {
	for _, c := range []struct{ name, accept, contentType string }{
		{"text", textFormat, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"openmetrics", openFormat, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := scrape(t, New(fixed(world(), nil), quiet()), c.accept)
			if got := w.Header().Get("Content-Type"); got != c.contentType {
				t.Errorf("Content-Type %q, want %q", got, c.contentType)
			}
			path := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(path, w.Body.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), w.Body.String()); d != "" {
				t.Errorf("differs from %s (-want +got):\n%s", path, d)
			}
		})
	}
}

// TestPrometheusReads has Prometheus' own parser read the protobuf form and
// compares the native histogram with the one that was put in.
func TestPrometheusReads(t *testing.T) {
	w := scrape(t, New(fixed(world(), nil), quiet()), protoForm)
	p, err := textparse.New(w.Body.Bytes(), w.Header().Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*promhist.Histogram{}
	for {
		e, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e != textparse.EntryHistogram {
			continue
		}
		_, _, h, _ := p.Histogram()
		if err := h.Validate(); err != nil {
			t.Errorf("Prometheus would refuse the histogram: %v", err)
		}
		var l labels.Labels
		p.Labels(&l)
		got[l.Get("kind")] = h.Copy()
	}
	want := &promhist.Histogram{
		Schema: 0, ZeroThreshold: math.Ldexp(1, -21), ZeroCount: 5, Count: 18, Sum: 0.25,
		PositiveSpans:   []promhist.Span{{Offset: -20, Length: 2}, {Offset: 2, Length: 1}, {Offset: 15, Length: 1}},
		PositiveBuckets: []int64{3, -1, 5, -6},
	}
	if h := got["wakeup"]; h == nil || !h.Equals(want) {
		t.Errorf("got %v, want %v", h, want)
	}
	if h := got["preempt"]; h == nil || h.Count != 0 {
		t.Errorf("the empty histogram is not read as a native one: %v", h)
	}
}

// TestClassicMatchesNative puts one observation in each bucket of every
// resolution and compares the cumulative counts with the definition.
func TestClassicMatchesNative(t *testing.T) {
	for _, res := range []int{0, 1, 2, 3, 8} {
		for _, unit := range []string{"seconds", "bytes", "ratio", "1"} {
			h := &signal.Hist{Resolution: res, First: -12<<res + 1, Zero: 2}
			for range 40 << res {
				h.Counts = append(h.Counts, 1)
			}
			for _, b := range classic(h, unit) {
				want := uint64(2)
				for i := range h.Counts {
					if bound(h, h.First+i) <= b.GetUpperBound() {
						want++
					}
				}
				if b.GetCumulativeCount() != want {
					t.Errorf("resolution %d, unit %s, le=%g: %d, want %d", res, unit, b.GetUpperBound(), b.GetCumulativeCount(), want)
				}
				if b.GetUpperBound() < bound(h, h.First-1) {
					t.Errorf("le=%g is below the zero bucket, its count is a guess", b.GetUpperBound())
				}
			}
		}
	}
}

func TestDrops(t *testing.T) {
	counter := schema("huatuo_a_total", signal.Counter, "1", signal.Host, "x")
	gauge := schema("huatuo_b", signal.Gauge, "1", signal.Host, "x")
	hist := schema("huatuo_c_seconds", signal.Histogram, "seconds", signal.Host)
	work := schema("huatuo_container_d", signal.Gauge, "1", signal.Workload)
	for _, c := range []struct {
		name   string
		sample []signal.Sample
		reason string // empty: none is dropped
	}{
		{"fine", []signal.Sample{{Schema: counter, Labels: []string{"1"}}, {Schema: counter, Labels: []string{"2"}}}, ""},
		{"same labels, other metric", []signal.Sample{{Schema: counter, Labels: []string{"1"}}, {Schema: gauge, Labels: []string{"1"}}}, ""},
		{"NaN gauge", []signal.Sample{{Schema: gauge, Labels: []string{"1"}, Value: math.NaN()}}, ""},
		{"too few labels", []signal.Sample{{Schema: counter}}, reasonLabels},
		{"too many labels", []signal.Sample{{Schema: counter, Labels: []string{"1", "2"}}}, reasonLabels},
		{"workload labels missing", []signal.Sample{{Schema: work}}, reasonLabels},
		{"twice", []signal.Sample{{Schema: counter, Labels: []string{"1"}}, {Schema: counter, Labels: []string{"1"}}}, reasonDuplicate},
		{"twice once repaired", []signal.Sample{{Schema: gauge, Labels: []string{"\xff"}}, {Schema: gauge, Labels: []string{"\xfe"}}}, reasonDuplicate},
		{"no histogram", []signal.Sample{{Schema: hist}}, reasonValue},
		{"histogram in a gauge", []signal.Sample{{Schema: gauge, Labels: []string{"1"}, Hist: &signal.Hist{}}}, reasonValue},
		{"resolution", []signal.Sample{{Schema: hist, Hist: &signal.Hist{Resolution: 9}}}, reasonValue},
		{"negative counter", []signal.Sample{{Schema: counter, Labels: []string{"1"}, Value: -1}}, reasonValue},
		{"NaN counter", []signal.Sample{{Schema: counter, Labels: []string{"1"}, Value: math.NaN()}}, reasonValue},
		{"no schema", []signal.Sample{{}}, reasonValue},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			h := New(fixed(c.sample, nil), slog.New(slog.NewTextHandler(&log, nil)))
			series := 0
			for range 2 { // the log has one line whatever the number of scrapes
				fams := h.families(c.sample)
				series = 0
				for _, f := range fams {
					if f.GetName() != h.schema.Name {
						series += len(f.Metric)
					}
				}
			}
			want := map[string]uint64{reasonDuplicate: 0, reasonLabels: 0, reasonValue: 0}
			lines, kept := 0, len(c.sample)
			if c.reason != "" {
				want[c.reason], lines, kept = 2, 1, kept-1
			}
			if d := cmp.Diff(want, h.Dropped()); d != "" {
				t.Errorf("dropped (-want +got):\n%s", d)
			}
			if n := strings.Count(log.String(), "\n"); n != lines {
				t.Errorf("%d log lines, want %d:\n%s", n, lines, &log)
			}
			if series != kept {
				t.Errorf("%d series, want %d", series, kept)
			}
		})
	}
}

func TestGatherError(t *testing.T) {
	broken := errors.New("no such file")
	if w := scrape(t, New(fixed(world(), broken), quiet()), textFormat); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "huatuo_load_average") {
		t.Errorf("one broken collector took the others away: %d %s", w.Code, w.Body)
	}
	var log bytes.Buffer
	scrape(t, New(fixed(nil, broken), slog.New(slog.NewTextHandler(&log, nil))), textFormat)
	if !strings.Contains(log.String(), "no such file") {
		t.Errorf("the error is not logged: %s", &log)
	}
}

// brokenWriter is a client whose connection fails.
type brokenWriter struct {
	*httptest.ResponseRecorder
	err error
}

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// TestClientLeaves: a client that goes away in the middle of its answer is no
// news, and another error is told once a scrape, not once a family.
func TestClientLeaves(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, 0},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}, 0},
		{errors.New("out of paper"), 1},
	} {
		var log bytes.Buffer
		h := New(fixed(world(), nil), slog.New(slog.NewTextHandler(&log, nil)))
		h.ServeHTTP(brokenWriter{httptest.NewRecorder(), c.err}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if got := strings.Count(log.String(), "expose metrics"); got != c.want {
			t.Errorf("%v: %d lines in the log, want %d:\n%s", c.err, got, c.want, &log)
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		header string
		want   time.Duration
	}{
		{"", defaultTimeout - timeoutMargin}, {"5", 5*time.Second - timeoutMargin}, {"0.1", 100 * time.Millisecond},
		{"nonsense", defaultTimeout - timeoutMargin}, {"-1", defaultTimeout - timeoutMargin}, {"NaN", defaultTimeout - timeoutMargin},
		{"1e300", defaultTimeout - timeoutMargin}, {"0", defaultTimeout - timeoutMargin},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", c.header)
		if got := timeout(r); got != c.want {
			t.Errorf("%q: %s, want %s", c.header, got, c.want)
		}
	}
	h := New(func(ctx context.Context) ([]signal.Sample, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, quiet())
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("X-Prometheus-Scrape-Timeout-Seconds", "0.05")
	h.ServeHTTP(httptest.NewRecorder(), r) // hangs unless the deadline reaches the round
}

func TestConcurrencyLimit(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := New(func(context.Context) ([]signal.Sample, error) {
		entered <- struct{}{}
		<-leave
		return nil, nil
	}, quiet())
	done := make(chan struct{})
	for range maxInFlight {
		go func() { scrape(t, h, textFormat); done <- struct{}{} }()
		<-entered
	}
	if w := scrape(t, h, textFormat); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("scrape %d of %d: %d", maxInFlight+1, maxInFlight, w.Code)
	}
	close(leave)
	for range maxInFlight {
		<-done
	}
}

// TestPromtool runs the linter that users run.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: apt-get install prometheus")
	}
	w := scrape(t, New(fixed(world(), nil), quiet()), textFormat)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = w.Body
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// big is n series, a quarter of them histograms of 64 buckets.
func big(n int) []signal.Sample {
	gauge := schema("huatuo_container_memory_usage_bytes", signal.Gauge, "bytes", signal.Workload)
	wait := schema("huatuo_container_runqueue_wait_seconds", signal.Histogram, "seconds", signal.Workload)
	var out []signal.Sample
	for i := range n {
		s := signal.Sample{Schema: gauge, Value: float64(i), Labels: []string{"shop", fmt.Sprintf("web-%d", i), "app", ""}}
		if i%4 == 0 {
			s.Schema, s.Hist = wait, &signal.Hist{First: -30, Counts: make([]uint64, 64), Sum: 1}
			for b := 10; b < 40; b++ {
				s.Hist.Counts[b] = uint64(b)
			}
		}
		out = append(out, s)
	}
	return out
}

func BenchmarkScrape(b *testing.B) {
	samples := big(1000)
	for _, c := range []struct{ name, accept string }{{"text", textFormat}, {"openmetrics", openFormat}, {"protobuf", protoForm}} {
		b.Run(c.name, func(b *testing.B) {
			h := New(fixed(samples, nil), quiet())
			b.ReportAllocs()
			for b.Loop() {
				if w := scrape(b, h, c.accept); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}

// FuzzFamilies checks that nothing in a label breaks the exposition.
func FuzzFamilies(f *testing.F) {
	f.Add("a", "b", 1.5)
	f.Add("\xff\xfe", "\"\n\\", math.Inf(1))
	f.Fuzz(func(t *testing.T, a, b string, v float64) {
		s := schema("huatuo_x", signal.Gauge, "1", signal.Host, "a", "b")
		w := scrape(t, New(fixed([]signal.Sample{{Schema: s, Labels: []string{a, b}, Value: v}}, nil), quiet()), protoForm)
		d := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
		for {
			var m dto.MetricFamily
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}
