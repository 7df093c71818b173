package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"huatuo/internal/signal"
)

// fake is a Backend with real metric storage and events that are made up.
type fake struct {
	storage.Queryable
	got  signal.EventFilter
	err  error
	hold chan struct{} // Events waits for it, when it is not nil
	in   atomic.Int32
}

func (f *fake) Events(ctx context.Context, q signal.EventFilter) (signal.EventPage, error) {
	f.got = q
	if f.hold != nil {
		f.in.Add(1)
		select {
		case <-f.hold:
		case <-ctx.Done():
			return signal.EventPage{}, ctx.Err()
		}
	}
	return signal.EventPage{Next: "x"}, f.err
}

func (f *fake) Event(_ context.Context, id string) (*signal.Document, error) {
	if id != "there" {
		return nil, fmt.Errorf("read event: %w", fs.ErrNotExist)
	}
	return &signal.Document{ID: id}, f.err
}

func (f *fake) Timeline(_ context.Context, q signal.EventFilter, n int) ([]signal.EventBucket, error) {
	f.got = q
	return make([]signal.EventBucket, n), f.err
}

func (f *fake) CountEvents(_ context.Context, _ signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error) {
	return []signal.EventCount{{Count: g.Limit}}, f.err
}

func (f *fake) EventValues(_ context.Context, _ signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error) {
	return []signal.ValueCount{{Value: path + part, Count: limit}}, f.err
}

// t0 is when the first of the eleven samples of each series was taken; one
// follows each 10 s.
var t0 = time.Unix(1_700_000_000, 0)

func backend(tb testing.TB) *fake {
	tb.Helper()
	db, err := tsdb.Open(tb.TempDir(), slog.New(slog.DiscardHandler), nil, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	app := db.AppenderV2(context.Background())
	add := func(i int, v float64, h *histogram.Histogram, ls ...string) {
		if _, err := app.Append(0, labels.FromStrings(ls...), 0, t0.Add(time.Duration(i)*10*time.Second).UnixMilli(), v, h, nil, storage.AOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range 11 {
		add(i, float64(i*50), nil, "__name__", "reads_total", "device", "sda")
		add(i, float64(i*100), nil, "__name__", "reads_total", "device", "sdb")
		n := int64(10 * (i + 1))
		add(i, 0, &histogram.Histogram{
			Count: uint64(2*n) + 1, ZeroCount: 1, ZeroThreshold: 0.5, Sum: float64(n),
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{n, 0},
		}, "__name__", "wait_seconds")
	}
	if err := app.Commit(); err != nil {
		tb.Fatal(err)
	}
	return &fake{Queryable: db}
}

func TestInstantAndRange(t *testing.T) {
	r := New(backend(t), Limits{})
	end := t0.Add(100 * time.Second)
	tests := []struct {
		expr string
		step time.Duration // 0: instant
		want string
	}{
		{`reads_total{device="sda"}`, 0, `[{"metric":{"__name__":"reads_total","device":"sda"},"value":[1700000100,"500"]}]`},
		{`sum(rate(reads_total[1m]))`, 0, `[{"metric":{},"value":[1700000100,"15"]}]`},
		{`1 + 1`, 0, `[1700000100,"2"]`},
		{`"text"`, 0, `[1700000100,"text"]`},
		{`no_such_metric`, 0, `[]`},
		{`reads_total{device="sdb"}`, 50 * time.Second, `[{"metric":{"__name__":"reads_total","device":"sdb"},"values":[[1700000000,"0"],[1700000050,"500"],[1700000100,"1000"]]}]`},
		{`wait_seconds`, 0, `[{"metric":{"__name__":"wait_seconds"},"histogram":[1700000100,{"count":"221","sum":"110","buckets":[[3,"-0.5","0.5","1"],[0,"1","2","110"],[0,"2","4","110"]]}]}]`},
		{`wait_seconds`, 100 * time.Second, `[{"metric":{"__name__":"wait_seconds"},"histograms":[` +
			`[1700000000,{"count":"21","sum":"10","buckets":[[3,"-0.5","0.5","1"],[0,"1","2","10"],[0,"2","4","10"]]}],` +
			`[1700000100,{"count":"221","sum":"110","buckets":[[3,"-0.5","0.5","1"],[0,"1","2","110"],[0,"2","4","110"]]}]]}]`},
		{`histogram_quantile(0.25, wait_seconds)`, 0, `[{"metric":{},"value":[1700000100,"1.4075`},
		{`max_over_time(rate(reads_total{device="sda"}[30s])[1m:])`, 0, `[{"metric":{"device":"sda"},"value":[1700000100,"5"]}]`},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			var res Result
			var err error
			if tt.step == 0 {
				res, err = r.Instant(context.Background(), tt.expr, end)
			} else {
				res, err = r.Range(context.Background(), tt.expr, t0, end, tt.step)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(res.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(got), tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A later query must not write into the result of an earlier one.
func TestResultsAreKept(t *testing.T) {
	r := New(backend(t), Limits{})
	get := func(dev string) Result {
		res, err := r.Range(context.Background(), `reads_total{device="`+dev+`"}`, t0, t0.Add(100*time.Second), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	first := get("sda")
	before, _ := json.Marshal(first.Value)
	for range 20 {
		get("sdb")
	}
	if after, _ := json.Marshal(first.Value); string(after) != string(before) {
		t.Errorf("was %s\nis  %s", before, after)
	}
}

func TestWarnings(t *testing.T) {
	r := New(backend(t), Limits{})
	res, err := r.Instant(context.Background(), `histogram_quantile(7, wait_seconds)`, t0)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "quantile value should be between 0 and 1") {
		t.Errorf("warnings %q", res.Warnings)
	}
}

func TestErrors(t *testing.T) {
	b := backend(t)
	end := t0.Add(100 * time.Second)
	ctx := context.Background()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	instant := func(ctx context.Context, l Limits, expr string) error {
		_, err := New(b, l).Instant(ctx, expr, end)
		return err
	}
	ranged := func(l Limits, expr string, from, to time.Time, step time.Duration) error {
		_, err := New(b, l).Range(ctx, expr, from, to, step)
		return err
	}
	series := func(l Limits, m ...string) error {
		_, _, err := New(b, l).Series(ctx, MetaQuery{Match: m})
		return err
	}
	tests := []struct {
		name, typ, text string
		err             error
	}{
		{"syntax", BadData, "1:5: parse error: unclosed left parenthesis", instant(ctx, Limits{}, `sum(`)},
		{"empty", BadData, "no expression found", instant(ctx, Limits{}, ``)},
		{"unknown function", BadData, `unknown function with name "nope"`, instant(ctx, Limits{}, `nope(x)`)},
		{"matrix over a range", BadData, "invalid expression type", ranged(Limits{}, `reads_total[1m]`, t0, end, time.Second)},
		{"backwards", BadData, "end timestamp", ranged(Limits{}, `1`, end, t0, time.Second)},
		{"no step", BadData, "zero or negative", ranged(Limits{}, `1`, t0, end, 0)},
		{"small step", BadData, "resolution of 1 ms", ranged(Limits{}, `1`, t0, end, time.Microsecond)},
		{"too many points", BadData, "exceeded maximum resolution of 10 points", ranged(Limits{MaxPoints: 10}, `1`, t0, end, 9*time.Second)},
		{"many to many", Execution, "found duplicate series for the match group", instant(ctx, Limits{}, `reads_total + on() reads_total`)},
		{"too many samples", Execution, "too many samples", ranged(Limits{MaxSamples: 5}, `reads_total`, t0, end, time.Second)},
		{"too many series", Execution, "too many series", instant(ctx, Limits{MaxSeries: 1}, `reads_total`)},
		{"timeout", Timeout, "timed out", instant(ctx, Limits{Timeout: time.Nanosecond}, `reads_total`)},
		{"canceled", Canceled, "", instant(gone, Limits{}, `reads_total`)},
		{"no selector", BadData, "no match[]", series(Limits{})},
		{"bad selector", BadData, "parse error", series(Limits{}, `{`)},
		{"empty selector", BadData, "at least one non-empty matcher", series(Limits{}, `{}`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e *Error
			if !errors.As(tt.err, &e) || e.Type != tt.typ || !strings.Contains(e.Error(), tt.text) {
				t.Fatalf("got %T %v, want type %s and %q", tt.err, tt.err, tt.typ, tt.text)
			}
			if typed, ok := tt.err.(interface{ ErrorType() string }); !ok || typed.ErrorType() != tt.typ {
				t.Error("the type is not to be had without this package")
			}
		})
	}
	var e *Error
	if errors.As(instant(ctx, Limits{}, `sum(reads_total) by(`), &e); e.Start == 0 {
		t.Errorf("no position: %+v", e)
	}
}

func TestStorageFails(t *testing.T) {
	b := backend(t)
	r := New(broken{b}, Limits{})
	for name, err := range map[string]error{
		"query":  second(r.Instant(context.Background(), "up", t0)),
		"labels": third(r.LabelNames(context.Background(), MetaQuery{})),
	} {
		var e *Error
		if !errors.As(err, &e) || e.Type != Internal || !strings.Contains(e.Error(), "disk is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type broken struct{ *fake }

func (broken) Querier(int64, int64) (storage.Querier, error) { return nil, errors.New("disk is gone") }

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

func TestMeta(t *testing.T) {
	r := New(backend(t), Limits{})
	ctx := context.Background()
	check := func(name string, got any, more bool, err error, want any, wantMore bool) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" || more != wantMore {
			t.Errorf("%s: more %v (-want +got):\n%s", name, more, d)
		}
	}
	names, more, err := r.LabelNames(ctx, MetaQuery{})
	check("names", names, more, err, []string{"__name__", "device"}, false)
	names, more, err = r.LabelNames(ctx, MetaQuery{Match: []string{"wait_seconds"}})
	check("names of one", names, more, err, []string{"__name__"}, false)
	values, more, err := r.LabelValues(ctx, "__name__", MetaQuery{})
	check("values", values, more, err, []string{"reads_total", "wait_seconds"}, false)
	values, more, err = r.LabelValues(ctx, "device", MetaQuery{Match: []string{`reads_total{device="sdb"}`, `{device=~"sd."}`}})
	check("values of two", values, more, err, []string{"sda", "sdb"}, false)
	values, more, err = r.LabelValues(ctx, "device", MetaQuery{Limit: 1})
	check("limit", values, more, err, []string{"sda"}, true)
	values, more, err = r.LabelValues(ctx, "device", MetaQuery{From: t0.Add(24 * time.Hour)})
	check("later", values, more, err, []string{}, false)
	if _, _, err = r.LabelValues(ctx, "", MetaQuery{}); err == nil {
		t.Error("took an empty label name")
	}
	sets, more, err := r.Series(ctx, MetaQuery{Match: []string{"reads_total", `{device="sda"}`}})
	check("series", fmt.Sprint(sets), more, err, `[{__name__="reads_total", device="sda"} {__name__="reads_total", device="sdb"}]`, false)
	sets, more, err = r.Series(ctx, MetaQuery{Match: []string{"reads_total"}, Limit: 1})
	check("series limit", fmt.Sprint(sets), more, err, `[{__name__="reads_total", device="sda"}]`, true)
}

func TestEvents(t *testing.T) {
	b := backend(t)
	r := New(b, Limits{})
	ctx := context.Background()
	if p, err := r.Events(ctx, signal.EventFilter{Comm: "x"}); err != nil || p.Next != "x" || b.got.Comm != "x" || b.got.Limit != 100 {
		t.Errorf("page %+v %v, filter %+v", p, err, b.got)
	}
	if bs, err := r.Timeline(ctx, signal.EventFilter{}, 7); err != nil || len(bs) != 7 {
		t.Errorf("timeline %v %v", bs, err)
	}
	if d, err := r.Event(ctx, "there"); err != nil || d.ID != "there" {
		t.Errorf("event %v %v", d, err)
	}
	if cs, err := r.CountEvents(ctx, signal.EventFilter{}, signal.EventGrouping{Kind: true}); err != nil || len(cs) != 1 || cs[0].Count != 10_000 {
		t.Errorf("count %v %v: want the limit of groups", cs, err)
	}
	if vs, err := r.EventValues(ctx, signal.EventFilter{}, "field.reason", "x", 3); err != nil || len(vs) != 1 || vs[0].Value != "field.reasonx" {
		t.Errorf("values %v %v", vs, err)
	}
	many := make([]string, maxTerms+1)
	b.err = errors.New("boom")
	for _, tt := range []struct {
		name, typ string
		err       error
	}{
		{"not there", NotFound, second(r.Event(ctx, "gone"))},
		{"page too large", BadData, second(r.Events(ctx, signal.EventFilter{Limit: 1001}))},
		{"negative page", BadData, second(r.Events(ctx, signal.EventFilter{Limit: -1}))},
		{"empty range", BadData, second(r.Events(ctx, signal.EventFilter{From: t0, To: t0}))},
		{"many kinds", BadData, second(r.Timeline(ctx, signal.EventFilter{Kinds: many}, 7))},
		{"no buckets", BadData, second(r.Timeline(ctx, signal.EventFilter{}, 0))},
		{"hostile condition", BadData, second(r.Events(ctx, signal.EventFilter{Where: []signal.Condition{{Path: "a'b", Op: signal.Equal}}}))},
		{"many conditions", BadData, second(r.Events(ctx, signal.EventFilter{Where: make([]signal.Condition, maxTerms+1)}))},
		{"count in many intervals", BadData, second(r.CountEvents(ctx, signal.EventFilter{}, signal.EventGrouping{Buckets: 2001}))},
		{"values of nothing", BadData, second(r.EventValues(ctx, signal.EventFilter{}, "", "", 1))},
		{"too many values", BadData, second(r.EventValues(ctx, signal.EventFilter{}, "comm", "", 1001))},
		{"many buckets", BadData, second(r.Timeline(ctx, signal.EventFilter{}, 2001))},
		{"store fails", Internal, second(r.Events(ctx, signal.EventFilter{}))},
	} {
		var e *Error
		if !errors.As(tt.err, &e) || e.Type != tt.typ {
			t.Errorf("%s: %v, want type %s", tt.name, tt.err, tt.typ)
		}
	}
}

func TestConcurrentLimit(t *testing.T) {
	b := backend(t)
	b.hold = make(chan struct{})
	r := New(b, Limits{Concurrent: 1, Timeout: 5 * time.Second})
	done := make(chan error, 1)
	go func() {
		_, err := r.Events(context.Background(), signal.EventFilter{})
		done <- err
	}()
	for b.in.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := r.Instant(ctx, "1", t0)
	var e *Error
	if !errors.As(err, &e) || e.Type != Timeout {
		t.Errorf("second query: %v, want to have waited in vain", err)
	}
	close(b.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := r.Instant(context.Background(), "1", t0); err != nil {
		t.Errorf("the slot was not given back: %v", err)
	}
}
