package pyroscope

import (
	"context"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

const (
	// maxPoints of one series: what Prometheus allows too.
	maxPoints = 11_000
	// maxSeries of one answer when it does not say how many: each is a query of
	// its own, and no chart can be read with more.
	maxSeries = 50
)

// SelectSeries sums by time: a point stands at the end of its step. Steps
// without samples have none.
func (s *server) SelectSeries(ctx context.Context, r *connect.Request[querierv1.SelectSeriesRequest]) (*connect.Response[querierv1.SelectSeriesResponse], error) {
	m := r.Msg
	out := &querierv1.SelectSeriesResponse{}
	if m.StackTraceSelector != nil && (len(m.StackTraceSelector.CallSite) > 0 || m.StackTraceSelector.GoPgo != nil) {
		return nil, unimplemented("stack_trace_selector: series are of whole stacks here")
	}
	step, err := seconds(m.Step)
	if err != nil {
		return nil, err
	}
	t, q, err := s.query(m.ProfileTypeID, m.LabelSelector, m.Start, m.End)
	if err != nil || t == nil {
		return connect.NewResponse(out), err
	}
	if q.To.Sub(q.From)/step >= maxPoints {
		return nil, invalid("step %v makes more than %d points: ask for a longer one, or a shorter window", step, maxPoints)
	}
	groups, err := s.groups(ctx, t, q, m.GroupBy)
	if err != nil {
		return nil, err
	}
	limit := maxSeries
	if m.Limit != nil && *m.Limit > 0 {
		limit = int(min(*m.Limit, maxSeries))
	}
	q.From = q.From.Add(-step) // the first point stands at the start
	for _, g := range groups[:min(limit, len(groups))] {
		one := q
		if len(m.GroupBy) > 0 {
			one.Match = s.within(t, q.Match, g, m.GroupBy)
		}
		points, err := s.points(ctx, one, step, m.GetAggregation())
		if err != nil {
			return nil, err
		}
		if len(points) > 0 {
			out.Series = append(out.Series, &typesv1.Series{Labels: g.labels, Points: points})
		}
	}
	return connect.NewResponse(out), nil
}

// within narrows a match to the series of a group.
func (s *server) within(t *signal.ProfileType, match func(*signal.ProfileLabels) bool, g *group, names []string) func(*signal.ProfileLabels) bool {
	constant, want := s.constants(t), g.key()
	return func(l *signal.ProfileLabels) bool {
		if match != nil && !match(l) {
			return false
		}
		mine := group{labels: pairs(subject{constant, l}, names)}
		return mine.key() == want
	}
}

func (s *server) points(ctx context.Context, q signal.ProfileQuery, step time.Duration, agg typesv1.TimeSeriesAggregationType) ([]*typesv1.Point, error) {
	columns, err := s.opt.Profiles.Heat(ctx, q, step)
	if err != nil {
		return nil, err
	}
	var out []*typesv1.Point
	for i, v := range columns {
		at := q.From.Add(time.Duration(i+1) * step)
		if v == 0 || at.After(q.To.Add(step)) {
			continue
		}
		p := &typesv1.Point{Value: float64(v), Timestamp: at.UnixMilli()}
		if agg == typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_AVERAGE {
			p.Value /= step.Seconds()
		}
		out = append(out, p)
	}
	return out, nil
}
