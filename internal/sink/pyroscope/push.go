package pyroscope

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

const (
	// maxRequest is where a request is full: servers take 4 MB and more.
	maxRequest = 1 << 20
	// maxStacks and maxProfileFrames bound one profile. Servers take 16,000 samples
	// and 4 MB, unpacked.
	maxStacks        = 10_000
	maxProfileFrames = 20_000
	// maxLabel is the longest value that a server takes by default.
	maxLabel = 2048
)

// push sends by Pyroscope's push.v1.
type push struct {
	opt    Options
	client pushv1connect.PusherServiceClient
}

func newPush(o Options, c *http.Client) *push {
	return &push{o, pushv1connect.NewPusherServiceClient(c, o.Client.URL)}
}

func (p *push) encode(w *window) ([]request, error) {
	var out []request
	size := 0
	for _, k := range w.sorted() {
		for i, part := range parts(w.series[k]) {
			var b bytes.Buffer
			if err := pprofOf(w, &k, part, i).Write(&b); err != nil {
				return nil, fmt.Errorf("encode pprof: %w", err)
			}
			if len(out) == 0 || size+b.Len() > maxRequest {
				out = append(out, request{body: &pushv1.PushRequest{}})
				size = 0
			}
			r := &out[len(out)-1]
			m := r.body.(*pushv1.PushRequest)
			m.Series = append(m.Series, &pushv1.RawProfileSeries{
				Labels:  p.labels(&k),
				Samples: []*pushv1.RawSample{{RawProfile: b.Bytes(), ID: uuid()}}, // the same when it is tried again
			})
			r.samples += part.count()
			size += b.Len()
		}
	}
	return out, nil
}

// parts splits a series whose profile a server would refuse as too large.
func parts(s series) []series {
	var out []series
	frames := 0
	for stack, x := range s {
		if len(out) == 0 || len(out[len(out)-1]) == maxStacks || frames > maxProfileFrames {
			out = append(out, series{})
			frames = 0
		}
		out[len(out)-1][stack] = x
		frames += len(stack.Frames)
	}
	return out
}

// labels are those of a series, by name. A label of the configuration stands in
// for none of ours.
func (p *push) labels(k *seriesKey) []*typesv1.LabelPair {
	m := map[string]string{}
	for _, l := range p.opt.Labels {
		m[l.Name] = l.Value
	}
	for _, n := range signal.ProfileLabelNames() {
		if v, _ := k.labels.Get(n); v != "" {
			m[n] = v
		}
	}
	m["__name__"], m["service_name"], m["instance"] = k.typ.Pprof().Name, k.serviceName(), p.opt.Instance
	m["__delta__"] = "false" // values are of this interval alone
	var out []*typesv1.LabelPair
	for n, v := range m {
		if v = cut(clean(v)); v != "" {
			out = append(out, &typesv1.LabelPair{Name: n, Value: v})
		}
	}
	slices.SortFunc(out, func(a, b *typesv1.LabelPair) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// clean makes text of a name: any bytes may stand in a symbol table.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// cut bounds a value, at the end of a character.
func cut(v string) string {
	if len(v) <= maxLabel {
		return v
	}
	return strings.ToValidUTF8(v[:maxLabel], "")
}

// pprofOf encodes the samples of a part of a series. No two parts have the same
// time.
func pprofOf(w *window, k *seriesKey, s series, part int) *profile.Profile {
	t := k.typ.Pprof()
	b := pprofBuilder{
		p: &profile.Profile{
			SampleType: []*profile.ValueType{{Type: t.SampleType, Unit: t.SampleUnit}},
			PeriodType: &profile.ValueType{Type: t.PeriodType, Unit: t.PeriodUnit},
			Period:     s.period(),
			TimeNanos:  w.begin.UnixNano() + int64(part), DurationNanos: max(w.end.Sub(w.begin).Nanoseconds(), 1),
		},
		locations: map[signal.Frame]*profile.Location{}, mappings: map[string]*profile.Mapping{},
	}
	for stack, of := range s {
		x := &profile.Sample{Value: []int64{of.value}}
		fs := frames(stack)
		for i := range fs {
			x.Location = append(x.Location, b.location(&fs[i], i < stack.Kernel))
		}
		b.p.Sample = append(b.p.Sample, x)
	}
	return b.p
}

// pprofBuilder gives each frame a location of its own.
type pprofBuilder struct {
	p         *profile.Profile
	locations map[signal.Frame]*profile.Location
	mappings  map[string]*profile.Mapping
}

func (b *pprofBuilder) location(f *signal.Frame, kernel bool) *profile.Location {
	if l, ok := b.locations[*f]; ok {
		return l
	}
	fn := &profile.Function{ID: uint64(len(b.p.Function) + 1), Name: clean(f.Title()), SystemName: clean(f.Function), Filename: clean(f.File)}
	b.p.Function = append(b.p.Function, fn)
	l := &profile.Location{
		ID: uint64(len(b.p.Location) + 1), Mapping: b.mapping(f.Module, kernel), Line: []profile.Line{{Function: fn, Line: int64(f.Line)}},
	}
	b.p.Location = append(b.p.Location, l)
	b.locations[*f] = l
	return l
}

func (b *pprofBuilder) mapping(file string, kernel bool) *profile.Mapping {
	if kernel && file == "" {
		file = "[kernel]"
	}
	file = clean(file)
	m := b.mappings[file]
	if m == nil {
		m = &profile.Mapping{ID: uint64(len(b.p.Mapping) + 1), File: file, HasFunctions: true, HasFilenames: true, HasLineNumbers: true}
		b.p.Mapping = append(b.p.Mapping, m)
		b.mappings[file] = m
	}
	return m
}

func (p *push) send(ctx context.Context, r request) *sendError {
	_, err := p.client.Push(ctx, connect.NewRequest(r.body.(*pushv1.PushRequest)))
	if err == nil {
		return nil
	}
	out := &sendError{err: fmt.Errorf("push: %w", err)}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeUnimplemented, connect.CodeOutOfRange, connect.CodeFailedPrecondition:
		out.final = true
	}
	if ce := new(connect.Error); errors.As(err, &ce) {
		out.after = retryAfter(ce.Meta())
	}
	return out
}

// retryAfter reads how many seconds a server asks to wait.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// uuid returns a random UUID, version 4.
func uuid() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
