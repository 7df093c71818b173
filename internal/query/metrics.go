package query

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// Result is the answer to a PromQL query. Value encodes with encoding/json to
// the "result" of Prometheus' API, native histograms included.
type Result struct {
	Value           parser.Value
	Warnings, Infos []string
}

// maxAnnotations is how many warnings and how many infos a Result has at most.
const maxAnnotations = 10

// Instant evaluates expr at t.
func (r *Reader) Instant(ctx context.Context, expr string, t time.Time) (Result, error) {
	return r.run(ctx, expr, func(ctx context.Context) (promql.Query, error) {
		return r.engine.NewInstantQuery(ctx, storeOf{r.b}, nil, expr, t)
	})
}

// Range evaluates expr at start and then each step until end.
func (r *Reader) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Result, error) {
	switch {
	case end.Before(start):
		return Result{}, badData("end timestamp must not be before start time")
	case step <= 0:
		return Result{}, badData("zero or negative query resolution step widths are not accepted. Try a positive integer")
	case step < time.Millisecond:
		return Result{}, badData("a step of %v is less than the resolution of 1 ms", step)
	case end.Sub(start)/step > time.Duration(r.limits.MaxPoints):
		return Result{}, badData("exceeded maximum resolution of %d points per timeseries. Try decreasing the query resolution (?step=XX)", r.limits.MaxPoints)
	}
	return r.run(ctx, expr, func(ctx context.Context) (promql.Query, error) {
		return r.engine.NewRangeQuery(ctx, storeOf{r.b}, nil, expr, start, end, step)
	})
}

// storeOf marks the errors of a Queryable as the store's: the engine does so
// with those of its queriers only.
type storeOf struct{ storage.Queryable }

func (s storeOf) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	if err != nil {
		return nil, promql.ErrStorage{Err: err}
	}
	return q, nil
}

// run runs the query that make makes.
func (r *Reader) run(ctx context.Context, expr string, make func(context.Context) (promql.Query, error)) (Result, error) {
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return Result{}, err
	}
	defer end()
	q, err := make(ctx)
	if err != nil {
		// Whatever is wrong before the query runs is wrong with the question,
		// unless there was no time left for it.
		if e, ok := classify(err).(*Error); ok && e.Type == Execution {
			return Result{}, &Error{Type: BadData, Err: err}
		}
		return Result{}, classify(err)
	}
	// The query is not closed: that would hand the memory of the result to the
	// next one, while it is still being written to the client.
	res := q.Exec(ctx)
	if res.Err != nil {
		return Result{}, classify(res.Err)
	}
	warn, info := res.Warnings.AsStrings(expr, maxAnnotations, maxAnnotations)
	return Result{Value: res.Value, Warnings: warn, Infos: info}, nil
}

// MetaQuery asks which series, labels or values there are.
type MetaQuery struct {
	Match    []string  // selectors; a series needs to match one of them. None means all, but for Series
	From, To time.Time // zero: no bound
	Limit    int       // most answers; 0 for the limit of the Reader
}

// limit returns how many answers m is given.
func (r *Reader) limit(m *MetaQuery) int {
	if m.Limit <= 0 || m.Limit > r.limits.MaxSeries {
		return r.limits.MaxSeries
	}
	return m.Limit
}

// Series returns the label sets of all series that match, sorted, and tells
// whether there were more than the limit.
func (r *Reader) Series(ctx context.Context, m MetaQuery) (sets []labels.Labels, more bool, err error) {
	if len(m.Match) == 0 {
		return nil, false, badData("no match[] parameter provided")
	}
	limit := r.limit(&m)
	err = r.meta(ctx, m, func(ctx context.Context, q storage.Querier, ms [][]*labels.Matcher) error {
		hints := &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64, Func: "series", Limit: limit + 1}
		var all []storage.SeriesSet
		for _, matchers := range ms {
			all = append(all, q.Select(ctx, true, hints, matchers...))
		}
		set := storage.NewMergeSeriesSet(all, limit+1, storage.ChainedSeriesMerge)
		for set.Next() {
			if len(sets) == limit {
				more = true
				return nil
			}
			sets = append(sets, set.At().Labels())
		}
		return set.Err()
	})
	return sets, more, err
}

// LabelNames returns the names of all labels of the series that match, sorted.
func (r *Reader) LabelNames(ctx context.Context, m MetaQuery) (names []string, more bool, err error) {
	return r.strings(ctx, m, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, h, ms...)
	})
}

// LabelValues returns all values of that label in the series that match, sorted.
func (r *Reader) LabelValues(ctx context.Context, name string, m MetaQuery) (values []string, more bool, err error) {
	if !model.UTF8Validation.IsValidLabelName(name) {
		return nil, false, badData("invalid label name: %q", name)
	}
	return r.strings(ctx, m, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, ms...)
	})
}

type askStrings func(context.Context, storage.Querier, *storage.LabelHints, []*labels.Matcher) ([]string, annotations.Annotations, error)

// strings collects what ask tells for each selector.
func (r *Reader) strings(ctx context.Context, m MetaQuery, ask askStrings) (all []string, more bool, err error) {
	limit := r.limit(&m)
	hints := &storage.LabelHints{Limit: limit + 1}
	all = []string{}
	err = r.meta(ctx, m, func(ctx context.Context, q storage.Querier, ms [][]*labels.Matcher) error {
		if len(ms) == 0 {
			ms = [][]*labels.Matcher{nil}
		}
		for _, matchers := range ms {
			ss, _, err := ask(ctx, q, hints, matchers)
			if err != nil {
				return err
			}
			for _, s := range ss {
				all = append(all, strings.Clone(s)) // they live in the querier's memory
			}
		}
		return nil
	})
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > limit {
		all, more = all[:limit], true
	}
	return all, more, err
}

// meta runs f with the querier and the parsed selectors of m.
func (r *Reader) meta(ctx context.Context, m MetaQuery, f func(context.Context, storage.Querier, [][]*labels.Matcher) error) error {
	matchers, err := r.parser.ParseMetricSelectors(m.Match)
	if err != nil {
		return classify(err)
	}
	for i, ms := range matchers {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return badData("match[] must contain at least one non-empty matcher: %s", m.Match[i])
		}
	}
	mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
	if !m.From.IsZero() {
		mint = m.From.UnixMilli()
	}
	if !m.To.IsZero() {
		maxt = m.To.UnixMilli()
	}
	if maxt < mint {
		return badData("end timestamp must not be before start time")
	}
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	q, err := r.b.Querier(mint, maxt)
	if err != nil {
		return storeError(err)
	}
	defer q.Close()
	return storeError(f(ctx, q, matchers))
}
