package pyroscope

import (
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"huatuo/internal/signal"
)

// Labels beside those of signal.ProfileLabelNames.
const (
	service     = "service_name" // signal.ProfileLabels.Service
	instance    = "instance"     // name of the machine
	profileType = "__profile_type__"
)

// serviceOf are the labels that service_name is made of.
func serviceOf() []string { return []string{"namespace", "container", "unit", "process"} }

// private are the labels that say what type a series is of.
func private(t signal.PprofType) map[string]string {
	return map[string]string{
		profileType: t.String(), "__name__": t.Name, "__type__": t.SampleType, "__unit__": t.SampleUnit,
		"__period_type__": t.PeriodType, "__period_unit__": t.PeriodUnit,
	}
}

// subject is what a selector is asked about: one series.
type subject struct {
	constant map[string]string // labels that all series of a type have
	labels   *signal.ProfileLabels
}

// get returns the value of a label, empty when there is none of the name.
func (s subject) get(name string) string {
	if name == service {
		return s.labels.Service()
	}
	if v, ok := s.labels.Get(name); ok {
		return v
	}
	return s.constant[name]
}

// selectors are sets of matchers; a series is selected when all of one set match
// it. No sets select all.
type selectors [][]*labels.Matcher

// parseSelectors reads selectors in PromQL's syntax: {namespace="shop", process=~"java.*"}.
// An empty one selects all.
func parseSelectors(p parser.Parser, texts ...string) (selectors, error) {
	var out selectors
	for _, text := range texts {
		if strings.TrimSpace(text) == "" {
			text = "{}"
		}
		m, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, invalid("selector %.200q: %v", text, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func (s selectors) match(x subject) bool {
	if len(s) == 0 {
		return true
	}
	for _, set := range s {
		if matchAll(set, x) {
			return true
		}
	}
	return false
}

func matchAll(set []*labels.Matcher, x subject) bool {
	for _, m := range set {
		if !m.Matches(x.get(m.Name)) {
			return false
		}
	}
	return true
}

// constants are the labels that all series of a type have.
func (s *server) constants(t *signal.ProfileType) map[string]string {
	c := private(t.Pprof())
	c[instance] = s.opt.Instance
	return c
}

// matcher makes a selector the match of a query of that type; nil when it
// selects all.
func (s *server) matcher(sel selectors, t *signal.ProfileType) func(*signal.ProfileLabels) bool {
	if len(sel) == 0 {
		return nil
	}
	c := s.constants(t)
	return func(l *signal.ProfileLabels) bool { return sel.match(subject{c, l}) }
}

// typeOf finds the type of an id, name:type:unit:period type:period unit. Nil: it
// is an id, of nothing that is kept here.
func (s *server) typeOf(id string) (*signal.ProfileType, error) {
	parts := strings.Split(id, ":")
	// Pyroscope's ids may have a sixth part, for profiles that are differences.
	if len(parts) == 6 && parts[5] == "delta" {
		parts = parts[:5]
	}
	if len(parts) != 5 || parts[0] == "" || parts[1] == "" {
		return nil, invalid("profile type %.200q: want name:type:unit:period type:period unit, as process_cpu:cpu:nanoseconds:cpu:nanoseconds", id)
	}
	id = strings.Join(parts, ":")
	for _, t := range s.opt.Profiles.Types() {
		if t.Pprof().String() == id {
			return t, nil
		}
	}
	return nil, nil
}
