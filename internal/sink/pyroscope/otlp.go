package pyroscope

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"

	"huatuo/internal/profile/otlp"
	"huatuo/internal/signal"
)

// otlpWire sends OTLP profiles.
type otlpWire struct {
	opt    Options
	client *http.Client
}

func newOTLP(o Options, c *http.Client) *otlpWire { return &otlpWire{o, c} }

// encode makes requests of a window: a resource for each series. One that has
// grown too large ends, and the next begins with an empty dictionary.
func (o *otlpWire) encode(w *window) ([]request, error) {
	var out []request
	var m *message
	end := func() error {
		if m == nil {
			return nil
		}
		raw, err := m.Marshal()
		if err != nil {
			return err
		}
		var z bytes.Buffer
		gz := gzip.NewWriter(&z)
		gz.Write(raw) // into memory
		gz.Close()
		out[len(out)-1].body = z.Bytes()
		m = nil
		return nil
	}
	for _, k := range w.sorted() {
		for i, part := range parts(w.series[k]) {
			if m == nil {
				m = &message{otlp.New(), map[*signal.Stack]int32{}}
				out = append(out, request{})
			}
			m.Add(o.attributes(&k), m.profile(w, &k, part, i))
			out[len(out)-1].samples += part.count()
			if m.Size() > 4*maxRequest { // which is packed to about a quarter
				if err := end(); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, end()
}

// attributes are those of a series, by the names that OpenTelemetry has for them.
func (o *otlpWire) attributes(k *seriesKey) []otlp.Attribute {
	container := "container.name"
	if k.labels.Namespace != "" {
		container = "k8s.container.name"
	}
	out := []otlp.Attribute{
		{Name: "service.name", Value: k.serviceName()},
		{Name: "host.name", Value: o.opt.Instance},
		{Name: "k8s.namespace.name", Value: k.labels.Namespace},
		{Name: "k8s.pod.name", Value: k.labels.Pod},
		{Name: container, Value: k.labels.Container},
		{Name: "systemd.unit", Value: k.labels.Unit},
		{Name: "process.executable.name", Value: k.labels.Process},
		{Name: "thread.name", Value: k.labels.Thread},
	}
	for _, l := range o.opt.Labels {
		out = append(out, otlp.Attribute{Name: l.Name, Value: l.Value})
	}
	for i := range out {
		out[i].Value = cut(clean(out[i].Value))
	}
	return out
}

// message is a request that is being made. It knows stacks by their pointers.
type message struct {
	*otlp.Encoder
	stacks map[*signal.Stack]int32
}

// profile encodes the samples of a part of a series. On-CPU time is told as profilers tell
// it: how many samples, and what each stands for.
func (m *message) profile(w *window, k *seriesKey, s series, part int) otlp.Profile {
	t, unit := k.typ.Pprof(), int64(1)
	p := otlp.Profile{
		Type: t.SampleType, Unit: t.SampleUnit, PeriodType: t.PeriodType, PeriodUnit: t.PeriodUnit, Period: 1,
		Begin: w.begin.UnixNano() + int64(part), Nanoseconds: w.end.Sub(w.begin).Nanoseconds(),
		Samples: make([]otlp.Sample, 0, len(s)),
	}
	if t.Name == "process_cpu" {
		unit = s.period()
		p.Type, p.Unit, p.Period = "samples", "count", unit
	}
	for stack, x := range s {
		p.Samples = append(p.Samples, otlp.Sample{Stack: m.stack(stack), Value: x.value / unit})
	}
	return p
}

func (m *message) stack(s *signal.Stack) int32 {
	i, ok := m.stacks[s]
	if !ok {
		fs := frames(s)
		locations := make([]int32, len(fs))
		for j := range fs {
			locations[j] = m.Location(&fs[j], j < s.Kernel)
		}
		i = m.Stack(locations)
		m.stacks[s] = i
	}
	return i
}

// maxAnswer is how much of an error's text is read.
const maxAnswer = 2048

func (o *otlpWire) send(ctx context.Context, r request) *sendError {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, o.opt.Client.URL, bytes.NewReader(r.body.([]byte)))
	if err != nil {
		return &sendError{err: err, final: true}
	}
	q.Header.Set("Content-Type", otlp.ContentType)
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
