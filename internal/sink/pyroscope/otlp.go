package pyroscope

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"huatuo/internal/signal"
)

// otlpWire sends OTLP profiles. The generated types of the protocol are used and
// not the collector's: those write resources in a way that the servers which
// take profiles today do not read.
type otlpWire struct {
	opt    Options
	client *http.Client
}

func newOTLP(o Options, c *http.Client) *otlpWire { return &otlpWire{o, c} }

// encode makes requests of a window: a resource for each series. One that has
// grown too large ends, and the next begins with an empty dictionary.
func (o *otlpWire) encode(w *window) ([]request, error) {
	var out []request
	var d *dictionary
	var at int
	end := func() error {
		if d == nil {
			return nil
		}
		// ExportProfilesServiceRequest has the members of ProfilesData.
		raw, err := proto.Marshal(&otlp.ProfilesData{ResourceProfiles: d.resources, Dictionary: &d.ProfilesDictionary})
		if err != nil {
			return fmt.Errorf("encode OTLP profiles: %w", err)
		}
		var z bytes.Buffer
		gz := gzip.NewWriter(&z)
		gz.Write(raw) // into memory
		gz.Close()
		out[at].body = z.Bytes()
		d = nil
		return nil
	}
	for _, k := range w.sorted() {
		for i, part := range parts(w.series[k]) {
			if d == nil {
				d = newDictionary()
				at = len(out)
				out = append(out, request{})
			}
			d.resources = append(d.resources, &otlp.ResourceProfiles{
				Resource: &resourcev1.Resource{Attributes: o.attributes(&k)},
				ScopeProfiles: []*otlp.ScopeProfiles{{
					Scope: &commonv1.InstrumentationScope{Name: "huatuo"}, Profiles: []*otlp.Profile{d.profile(w, &k, part, i)},
				}},
			})
			out[at].samples += part.count()
			if d.size > 4*maxRequest { // which is packed to about a quarter
				if err := end(); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, end()
}

// attributes are those of a series, by the names that OpenTelemetry has for them.
func (o *otlpWire) attributes(k *seriesKey) []*commonv1.KeyValue {
	container := "container.name"
	if k.labels.Namespace != "" {
		container = "k8s.container.name"
	}
	out := []*commonv1.KeyValue{}
	add := func(name, value string) {
		if value = cut(clean(value)); value != "" {
			out = append(out, &commonv1.KeyValue{Key: name, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}})
		}
	}
	add("service.name", k.serviceName())
	add("host.name", o.opt.Instance)
	add("k8s.namespace.name", k.labels.Namespace)
	add("k8s.pod.name", k.labels.Pod)
	add(container, k.labels.Container)
	add("systemd.unit", k.labels.Unit)
	add("process.executable.name", k.labels.Process)
	add("thread.name", k.labels.Thread)
	for _, l := range o.opt.Labels {
		add(l.Name, l.Value)
	}
	return out
}

// dictionary is what the profiles of a request share. Index 0 of each table is
// nothing.
type dictionary struct {
	otlp.ProfilesDictionary
	resources []*otlp.ResourceProfiles
	size      int // about, before it is packed
	strings   map[string]int32
	frames    map[signal.Frame]int32
	mappings  map[string]int32
	stacks    map[*signal.Stack]int32
}

func newDictionary() *dictionary {
	d := &dictionary{strings: map[string]int32{"": 0}, frames: map[signal.Frame]int32{}, mappings: map[string]int32{"": 0}, stacks: map[*signal.Stack]int32{}}
	d.StringTable = []string{""}
	d.MappingTable = []*otlp.Mapping{{}}
	d.LocationTable = []*otlp.Location{{}}
	d.FunctionTable = []*otlp.Function{{}}
	d.LinkTable = []*otlp.Link{{}}
	d.AttributeTable = []*otlp.KeyValueAndUnit{{}}
	d.StackTable = []*otlp.Stack{{}}
	return d
}

func (d *dictionary) text(s string) int32 {
	s = clean(s)
	i, ok := d.strings[s]
	if !ok {
		i = int32(len(d.StringTable))
		d.strings[s] = i
		d.StringTable = append(d.StringTable, s)
		d.size += len(s) + 4
	}
	return i
}

// profile encodes the samples of a part of a series. On-CPU time is told as profilers tell
// it: how many samples, and what each stands for.
func (d *dictionary) profile(w *window, k *seriesKey, s series, part int) *otlp.Profile {
	t, unit := k.typ.Pprof(), int64(1)
	p := &otlp.Profile{
		SampleType:   &otlp.ValueType{TypeStrindex: d.text(t.SampleType), UnitStrindex: d.text(t.SampleUnit)},
		PeriodType:   &otlp.ValueType{TypeStrindex: d.text(t.PeriodType), UnitStrindex: d.text(t.PeriodUnit)},
		Period:       1,
		TimeUnixNano: uint64(w.begin.UnixNano() + int64(part)), DurationNano: uint64(max(w.end.Sub(w.begin), 1)),
	}
	if t.Name == "process_cpu" {
		unit = s.period()
		p.Period = unit
		p.SampleType = &otlp.ValueType{TypeStrindex: d.text("samples"), UnitStrindex: d.text("count")}
	}
	for stack, x := range s {
		p.Samples = append(p.Samples, &otlp.Sample{StackIndex: d.stack(stack), Values: []int64{x.value / unit}})
		d.size += 16
	}
	return p
}

func (d *dictionary) stack(s *signal.Stack) int32 {
	i, ok := d.stacks[s]
	if ok {
		return i
	}
	fs := frames(s)
	x := &otlp.Stack{LocationIndices: make([]int32, len(fs))}
	for j := range fs {
		x.LocationIndices[j] = d.location(&fs[j], j < s.Kernel)
	}
	i = int32(len(d.StackTable))
	d.stacks[s] = i
	d.StackTable = append(d.StackTable, x)
	d.size += 3*len(fs) + 4
	return i
}

func (d *dictionary) location(f *signal.Frame, kernel bool) int32 {
	i, ok := d.frames[*f]
	if ok {
		return i
	}
	file := f.Module
	if kernel && file == "" {
		file = "[kernel]"
	}
	m, ok := d.mappings[file]
	if !ok {
		m = int32(len(d.MappingTable))
		d.mappings[file] = m
		d.MappingTable = append(d.MappingTable, &otlp.Mapping{FilenameStrindex: d.text(file)})
	}
	fn := int32(len(d.FunctionTable))
	d.FunctionTable = append(d.FunctionTable, &otlp.Function{
		NameStrindex: d.text(f.Title()), SystemNameStrindex: d.text(f.Function), FilenameStrindex: d.text(f.File),
	})
	i = int32(len(d.LocationTable))
	d.frames[*f] = i
	d.LocationTable = append(d.LocationTable, &otlp.Location{MappingIndex: m, Lines: []*otlp.Line{{FunctionIndex: fn, Line: int64(f.Line)}}})
	d.size += 30
	return i
}

// maxAnswer is how much of an error's text is read.
const maxAnswer = 2048

func (o *otlpWire) send(ctx context.Context, r request) *sendError {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, o.opt.Client.URL, bytes.NewReader(r.body.([]byte)))
	if err != nil {
		return &sendError{err: err, final: true}
	}
	q.Header.Set("Content-Type", "application/x-protobuf")
	q.Header.Set("Content-Encoding", "gzip")
	a, err := o.client.Do(q)
	if err != nil {
		return &sendError{err: fmt.Errorf("export: %w", err)}
	}
	defer a.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(a.Body, maxAnswer)) // what there is of it
	if a.StatusCode/100 == 2 {
		return nil
	}
	out := &sendError{err: fmt.Errorf("export: %s: %s", a.Status, bytes.TrimSpace(text)), after: retryAfter(a.Header)}
	switch a.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
	default:
		out.final = a.StatusCode/100 != 5
	}
	return out
}
