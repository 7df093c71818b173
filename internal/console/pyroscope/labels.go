package pyroscope

import (
	"context"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

// each calls do for each type that the matchers allow, with a query of what they
// select in the window.
func (s *server) each(start, end int64, matchers []string, do func(t *signal.ProfileType, q signal.ProfileQuery) error) error {
	from, to, err := window(start, end, false)
	if err != nil {
		return err
	}
	sel, err := parseSelectors(s.parser, matchers...)
	if err != nil {
		return err
	}
	for _, t := range s.opt.Profiles.Types() {
		if !sel.possible(s.constants(t)) {
			continue
		}
		if err := do(t, signal.ProfileQuery{Type: t.Name, From: from, To: to, Match: s.matcher(sel, t)}); err != nil {
			return err
		}
	}
	return nil
}

// possible tells whether anything with these labels can be selected.
func (s selectors) possible(constant map[string]string) bool {
	if len(s) == 0 {
		return true
	}
	for _, set := range s {
		ok := true
		for _, m := range set {
			if v, known := constant[m.Name]; known && !m.Matches(v) {
				ok = false
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// group is the series that have the same values of some labels.
type group struct {
	labels []*typesv1.LabelPair // sorted by name, those that are not empty
	value  int64
}

func (g *group) key() string {
	var b strings.Builder
	for _, l := range g.labels {
		b.WriteString(l.Name + "\x00" + l.Value + "\x00")
	}
	return b.String()
}

// groups lists what a query selects by labels, the largest first.
func (s *server) groups(ctx context.Context, t *signal.ProfileType, q signal.ProfileQuery, names []string) ([]*group, error) {
	list, err := s.opt.Profiles.Series(ctx, q, madeOf(names))
	if err != nil {
		return nil, err
	}
	constant := s.constants(t)
	found := map[string]*group{}
	for _, x := range list {
		l := labelsOf(x.Labels)
		g := &group{labels: pairs(subject{constant, &l}, names), value: x.Value}
		k := g.key()
		if old := found[k]; old != nil {
			old.value += g.value
			continue
		}
		found[k] = g
	}
	out := slices.Collect(maps.Values(found))
	slices.SortFunc(out, func(a, b *group) int {
		switch {
		case a.value > b.value:
			return -1
		case a.value < b.value:
			return 1
		}
		return strings.Compare(a.key(), b.key())
	})
	return out, nil
}

// madeOf are the labels that those of that name are made of.
func madeOf(names []string) []string {
	var by []string
	for _, n := range names {
		if n == service {
			by = append(by, serviceOf()...)
		} else if slices.Contains(signal.ProfileLabelNames(), n) {
			by = append(by, n)
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}

// labelsOf makes labels of their names and values.
func labelsOf(m map[string]string) signal.ProfileLabels {
	return signal.ProfileLabels{
		Process: m["process"], Thread: m["thread"], Namespace: m["namespace"], Pod: m["pod"], Container: m["container"], Unit: m["unit"],
	}
}

// pairs are the labels of these names that x has.
func pairs(x subject, names []string) []*typesv1.LabelPair {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	out := []*typesv1.LabelPair{}
	for _, n := range slices.Compact(sorted) {
		if v := x.get(n); v != "" {
			out = append(out, &typesv1.LabelPair{Name: n, Value: clean(v)})
		}
	}
	return out
}

// allNames are all labels that a series can have.
func (s *server) allNames(t *signal.ProfileType) []string {
	return append(slices.Collect(maps.Keys(s.constants(t))), append(signal.ProfileLabelNames(), service)...)
}

// ProfileTypes lists the types that there are samples of.
func (s *server) ProfileTypes(ctx context.Context, r *connect.Request[querierv1.ProfileTypesRequest]) (*connect.Response[querierv1.ProfileTypesResponse], error) {
	out := &querierv1.ProfileTypesResponse{}
	err := s.each(r.Msg.Start, r.Msg.End, nil, func(t *signal.ProfileType, q signal.ProfileQuery) error {
		there, err := s.opt.Profiles.Series(ctx, q, nil)
		if err != nil || len(there) == 0 {
			return err
		}
		p := t.Pprof()
		out.ProfileTypes = append(out.ProfileTypes, &typesv1.ProfileType{
			ID: p.String(), Name: p.Name, SampleType: p.SampleType, SampleUnit: p.SampleUnit, PeriodType: p.PeriodType, PeriodUnit: p.PeriodUnit,
		})
		return nil
	})
	return connect.NewResponse(out), err
}

// LabelNames lists the labels that samples have.
func (s *server) LabelNames(ctx context.Context, r *connect.Request[typesv1.LabelNamesRequest]) (*connect.Response[typesv1.LabelNamesResponse], error) {
	found := map[string]bool{}
	err := s.each(r.Msg.Start, r.Msg.End, r.Msg.Matchers, func(t *signal.ProfileType, q signal.ProfileQuery) error {
		groups, err := s.groups(ctx, t, q, s.allNames(t))
		for _, g := range groups {
			for _, l := range g.labels {
				found[l.Name] = true
			}
		}
		return err
	})
	return connect.NewResponse(&typesv1.LabelNamesResponse{Names: slices.Sorted(maps.Keys(found))}), err
}

// LabelValues lists the values of a label.
func (s *server) LabelValues(ctx context.Context, r *connect.Request[typesv1.LabelValuesRequest]) (*connect.Response[typesv1.LabelValuesResponse], error) {
	if r.Msg.Name == "" {
		return nil, invalid("name: want the name of a label")
	}
	found := map[string]bool{}
	err := s.each(r.Msg.Start, r.Msg.End, r.Msg.Matchers, func(t *signal.ProfileType, q signal.ProfileQuery) error {
		groups, err := s.groups(ctx, t, q, []string{r.Msg.Name})
		for _, g := range groups {
			for _, l := range g.labels {
				found[l.Value] = true
			}
		}
		return err
	})
	return connect.NewResponse(&typesv1.LabelValuesResponse{Names: slices.Sorted(maps.Keys(found))}), err
}

// Series lists the sets of labels that samples have.
func (s *server) Series(ctx context.Context, r *connect.Request[querierv1.SeriesRequest]) (*connect.Response[querierv1.SeriesResponse], error) {
	out := &querierv1.SeriesResponse{}
	seen := map[string]bool{}
	err := s.each(r.Msg.Start, r.Msg.End, r.Msg.Matchers, func(t *signal.ProfileType, q signal.ProfileQuery) error {
		names := r.Msg.LabelNames
		if len(names) == 0 {
			names = s.allNames(t)
		}
		groups, err := s.groups(ctx, t, q, names)
		for _, g := range groups {
			if k := g.key(); len(g.labels) > 0 && !seen[k] {
				seen[k] = true
				out.LabelsSet = append(out.LabelsSet, &typesv1.Labels{Labels: g.labels})
			}
		}
		return err
	})
	return connect.NewResponse(out), err
}
