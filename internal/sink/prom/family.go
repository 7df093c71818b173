package prom

import (
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"huatuo/internal/signal"
)

// maxExemplarRunes is OpenMetrics' limit on an exemplar's label names and values together.
const maxExemplarRunes = 128

const exemplarLabel = "event_id"

// maxResolution is the finest schema of a native histogram. Coarser ones than
// a power of two have no buckets that end on every classic bound.
const maxResolution = 8

// family is a MetricFamily while it is filled.
type family struct {
	out    *dto.MetricFamily
	schema *signal.Schema
	names  []string            // label names
	series map[string]struct{} // label values seen, joined
}

// families turns samples into metric families sorted by name. Series keep the
// order in which they came.
func (h *Handler) families(samples []signal.Sample) []*dto.MetricFamily {
	byName := map[string]*family{}
	var key []byte
	for i := range samples {
		key = h.add(byName, &samples[i], key)
	}
	for _, r := range reasons() {
		s := signal.Sample{Schema: h.schema, Labels: []string{r}, Value: float64(h.dropped[r].Load())}
		key = h.add(byName, &s, key)
	}
	out := make([]*dto.MetricFamily, 0, len(byName))
	for _, f := range byName {
		if len(f.out.Metric) > 0 {
			out = append(out, f.out)
		}
	}
	slices.SortFunc(out, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// add puts one sample into its family, or drops it. key is scratch space.
func (h *Handler) add(byName map[string]*family, s *signal.Sample, key []byte) []byte {
	if s.Schema == nil {
		h.drop(reasonValue, "", "a sample without a schema")
		return key
	}
	f := byName[s.Schema.Name]
	if f == nil {
		f = newFamily(s.Schema)
		byName[s.Schema.Name] = f
	}
	if len(s.Labels) != len(f.names) {
		h.drop(reasonLabels, s.Schema.Name, fmt.Sprintf("%d label values, want %d: %s", len(s.Labels), len(f.names), strings.Join(f.names, ",")))
		return key
	}
	m := f.metric(s)
	if m == nil {
		h.drop(reasonValue, s.Schema.Name, fmt.Sprintf("type %s, histogram present: %t", f.schema.Type, s.Hist != nil))
		return key
	}
	key = key[:0]
	for i, v := range s.Labels {
		v = strings.ToValidUTF8(v, "�")
		key = append(append(key, v...), 0xff) // 0xff is in no valid UTF-8
		// To Prometheus an empty label is a label that is not there.
		if v != "" {
			m.Label = append(m.Label, &dto.LabelPair{Name: &f.names[i], Value: &v})
		}
	}
	if _, ok := f.series[string(key)]; ok {
		h.drop(reasonDuplicate, s.Schema.Name, strings.Join(s.Labels, ","))
		return key
	}
	f.series[string(key)] = struct{}{}
	f.out.Metric = append(f.out.Metric, m)
	return key
}

func newFamily(s *signal.Schema) *family {
	names := make([]string, 0, len(s.Fields)+len(signal.WorkloadLabels))
	for _, l := range s.Fields {
		names = append(names, l.Name)
	}
	if s.Scope == signal.Workload {
		names = append(names, signal.WorkloadLabels[:]...)
	}
	out := &dto.MetricFamily{Name: &s.Name, Help: proto.String(strings.ToValidUTF8(s.Help, "�")), Type: typeOf(s).Enum()}
	// OpenMetrics wants the unit to be the end of the name; "1" is no unit.
	if s.Unit != "" && strings.HasSuffix(strings.TrimSuffix(s.Name, "_total"), "_"+s.Unit) {
		out.Unit = &s.Unit
	}
	return &family{out: out, schema: s, names: names, series: map[string]struct{}{}}
}

func typeOf(s *signal.Schema) dto.MetricType {
	switch s.Type {
	case signal.Counter:
		return dto.MetricType_COUNTER
	case signal.Histogram:
		return dto.MetricType_HISTOGRAM
	default:
		return dto.MetricType_GAUGE
	}
}

// metric makes the value of s without labels. It returns nil when s does not
// have the kind of value that the family's type needs.
func (f *family) metric(s *signal.Sample) *dto.Metric {
	if (f.schema.Type == signal.Histogram) != (s.Hist != nil) {
		return nil
	}
	v := s.Value
	switch f.schema.Type {
	case signal.Counter:
		// OpenMetrics knows no counter that is NaN or below zero.
		if !(v >= 0) {
			return nil
		}
		return &dto.Metric{Counter: &dto.Counter{Value: &v, Exemplar: exemplar(s.Exemplar)}}
	case signal.Histogram:
		if s.Hist.Resolution < 0 || s.Hist.Resolution > maxResolution {
			return nil
		}
		return &dto.Metric{Histogram: histogram(s.Hist, f.schema.Unit, exemplar(s.Exemplar))}
	default:
		return &dto.Metric{Gauge: &dto.Gauge{Value: &v}}
	}
}

// exemplar returns nil for an exemplar that OpenMetrics would not allow.
func exemplar(e *signal.Exemplar) *dto.Exemplar {
	if e == nil || e.EventID == "" || len(exemplarLabel)+len(e.EventID) > maxExemplarRunes {
		return nil
	}
	x := &dto.Exemplar{
		Label: []*dto.LabelPair{{Name: proto.String(exemplarLabel), Value: proto.String(strings.ToValidUTF8(e.EventID, "�"))}},
		Value: proto.Float64(e.Value),
	}
	if !e.Time.IsZero() {
		x.Timestamp = timestamppb.New(e.Time)
	}
	return x
}
