package pyroscope

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

// query makes a query of a type's id, a selector and a window. The type is nil
// when there is none of that id.
func (s *server) query(id, selector string, start, end int64) (t *signal.ProfileType, q signal.ProfileQuery, err error) {
	if t, err = s.typeOf(id); err != nil {
		return nil, q, err
	}
	if q.From, q.To, err = window(start, end, true); err != nil {
		return nil, q, err
	}
	sel, err := parseSelectors(s.parser, selector)
	if err != nil || t == nil {
		return nil, q, err
	}
	q.Type, q.Match = t.Name, s.matcher(sel, t)
	return t, q, nil
}

// merged asks for the stacks of a query, those with a call site if it names one.
// The graph is nil when there is no such type.
func (s *server) merged(ctx context.Context, id, selector string, start, end int64, only *typesv1.StackTraceSelector) (*signal.ProfileType, *signal.FlameGraph, error) {
	if only.GetGoPgo() != nil {
		return nil, nil, unimplemented("stack_trace_selector.go_pgo: get the whole profile, go build reads it as it is")
	}
	t, q, err := s.query(id, selector, start, end)
	if err != nil || t == nil {
		return nil, nil, err
	}
	g, err := s.opt.Profiles.Flame(ctx, q, 0)
	if err != nil {
		return nil, nil, err
	}
	if site := only.GetCallSite(); len(site) > 0 {
		g = narrow(g, site)
	}
	return t, g, nil
}

// SelectMergeStacktraces merges stacks into a flame graph, by the names of
// functions, or gives them as a pprof profile.
func (s *server) SelectMergeStacktraces(ctx context.Context, r *connect.Request[querierv1.SelectMergeStacktracesRequest]) (*connect.Response[querierv1.SelectMergeStacktracesResponse], error) {
	m := r.Msg
	if err := stacksOnly(m); err != nil {
		return nil, err
	}
	t, g, err := s.merged(ctx, m.ProfileTypeID, m.LabelSelector, m.Start, m.End, m.StackTraceSelector)
	if err != nil {
		return nil, err
	}
	out := &querierv1.SelectMergeStacktracesResponse{}
	switch m.Format {
	case querierv1.ProfileFormat_PROFILE_FORMAT_UNSPECIFIED, querierv1.ProfileFormat_PROFILE_FORMAT_FLAMEGRAPH:
		out.Flamegraph = flamegraph(prune(byName(g), m.GetMaxNodes()))
	case querierv1.ProfileFormat_PROFILE_FORMAT_PPROF:
		p, err := s.pprof(t, g, m.MaxNodes)
		if err != nil {
			return nil, err
		}
		out.Pprof = &querierv1.PprofProfile{Profile: p}
	default:
		return nil, unimplemented(fmt.Sprintf("format %v: ask for a flame graph or for pprof", m.Format))
	}
	return connect.NewResponse(out), nil
}

// stacksOnly refuses what would select by what is not kept.
func stacksOnly(m *querierv1.SelectMergeStacktracesRequest) error {
	switch {
	case len(m.GetProfileIdSelector()) > 0:
		return unimplemented("profile_id_selector: samples are kept, not profiles with an id")
	case len(m.GetTraceIdSelector()) > 0 || len(m.GetSpanSelector()) > 0:
		return unimplemented("trace_id_selector, span_selector: samples are not told apart by span here")
	case m.GetAsync().GetType() != querierv1.AsyncQueryType_ASYNC_QUERY_TYPE_DISABLED || m.GetAsync().GetRequestId() != "":
		return unimplemented("async: queries are answered at once")
	}
	return nil
}

// SelectMergeProfile gives stacks as a pprof profile.
func (s *server) SelectMergeProfile(ctx context.Context, r *connect.Request[querierv1.SelectMergeProfileRequest]) (*connect.Response[googlev1.Profile], error) {
	m := r.Msg
	if err := stacksOnly(&querierv1.SelectMergeStacktracesRequest{ProfileIdSelector: m.ProfileIdSelector, TraceIdSelector: m.TraceIdSelector}); err != nil {
		return nil, err
	}
	t, g, err := s.merged(ctx, m.ProfileTypeID, m.LabelSelector, m.Start, m.End, m.StackTraceSelector)
	if err != nil {
		return nil, err
	}
	p, err := s.pprof(t, g, m.MaxNodes)
	return connect.NewResponse(p), err
}

// pprof encodes a graph, with the names that the type has in pprof.
func (s *server) pprof(t *signal.ProfileType, g *signal.FlameGraph, maxNodes *int64) (*googlev1.Profile, error) {
	if t == nil {
		return &googlev1.Profile{StringTable: []string{""}}, nil
	}
	if maxNodes != nil {
		g = prune(g, *maxNodes)
	}
	var b bytes.Buffer
	if err := s.opt.Profiles.Encode(&b, g, "pprof"); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		return nil, fmt.Errorf("read pprof: %w", err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("read pprof: %w", err)
	}
	p := &googlev1.Profile{}
	if err := p.UnmarshalVT(raw); err != nil { // which lets names pass that are not UTF-8
		return nil, fmt.Errorf("read pprof: %w", err)
	}
	for i, s := range p.StringTable {
		p.StringTable[i] = clean(s)
	}
	for _, x := range p.Sample {
		x.Value = x.Value[len(x.Value)-1:] // the number of samples stands before it
	}
	name := t.Pprof()
	p.SampleType = []*googlev1.ValueType{{Type: text(p, name.SampleType), Unit: text(p, name.SampleUnit)}}
	p.PeriodType = &googlev1.ValueType{Type: text(p, name.PeriodType), Unit: text(p, name.PeriodUnit)}
	p.DefaultSampleType = p.SampleType[0].Type
	return p, nil
}

// text returns the index of a string, which it adds when it is not there.
func text(p *googlev1.Profile, s string) int64 {
	for i, x := range p.StringTable {
		if x == s {
			return int64(i)
		}
	}
	p.StringTable = append(p.StringTable, s)
	return int64(len(p.StringTable) - 1)
}

// flamegraph lays a tree out: a level is a row of boxes, each told by the gap
// before it, its total, its own value and the number of its name. Nil when there
// is nothing.
func flamegraph(g *signal.FlameGraph) *querierv1.FlameGraph {
	if g == nil || g.Total == 0 {
		return nil
	}
	out := &querierv1.FlameGraph{Names: append([]string{"total"}, names(g)...), Total: g.Total}
	b := boxes{g: g, children: children(g)}
	for i, c := range b.children { // a box of no width has no place
		b.children[i] = slices.DeleteFunc(c, func(n int) bool { return g.Nodes[n].Total <= 0 })
	}
	out.Levels = b.levels(func(n *box) []int64 { return []int64{n.left, n.total, n.self, int64(n.name)} })
	for _, n := range g.Nodes {
		out.MaxSelf = max(out.MaxSelf, n.Self)
	}
	return out
}

func names(g *signal.FlameGraph) []string {
	out := make([]string, len(g.Frames))
	for i := range g.Frames {
		out[i] = clean(g.Frames[i].Title())
	}
	return out
}

// clean makes text of a name: any bytes may stand in a symbol table.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
