package pyroscope

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

func raw(t *testing.T, change func(*profile.Profile)) []byte {
	t.Helper()
	f := &profile.Function{ID: 1, Name: "main"}
	l := &profile.Location{ID: 1, Line: []profile.Line{{Function: f}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "cpu", Unit: "nanoseconds"}}, PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		TimeNanos: time.Now().UnixNano(), DurationNanos: 1, Function: []*profile.Function{f}, Location: []*profile.Location{l},
		Sample: []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{3}}},
	}
	change(p)
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func labels(pairs ...string) (out []*typesv1.LabelPair) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &typesv1.LabelPair{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// TestStrict: the double takes what is right, and refuses each thing that is not.
func TestStrict(t *testing.T) {
	good := labels("__name__", "process_cpu", "service_name", "a")
	same := func(*profile.Profile) {}
	many := append([]*typesv1.LabelPair{}, good...)
	for i := range maxLabelNames {
		many = append(many, &typesv1.LabelPair{Name: "l" + strings.Repeat("x", i), Value: "v"})
	}
	one := func(ls []*typesv1.LabelPair, samples ...[]byte) *pushv1.PushRequest {
		s := &pushv1.RawProfileSeries{Labels: ls}
		for _, x := range samples {
			s.Samples = append(s.Samples, &pushv1.RawSample{RawProfile: x})
		}
		return &pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{s}}
	}
	for _, tt := range []struct {
		what string
		req  *pushv1.PushRequest
		want string // in the refusal; empty: it is taken
	}{
		{"right", one(good, raw(t, same)), ""},
		{"nothing", &pushv1.PushRequest{}, "no profiles received"},
		{"no profile", one(good), "no profile"},
		{"no labels", one(nil, raw(t, same)), "at least one label pair"},
		{"no name", one(labels("service_name", "a"), raw(t, same)), "invalid metric name"},
		{"no service", one(labels("__name__", "a"), raw(t, same)), "service name is not provided"},
		{"bad name", one(append(labels("a-b", "c"), good...), raw(t, same)), "invalid label name"},
		{"dotted name", one(append(labels("a.b", "c"), good...), raw(t, same)), "invalid label name"},
		{"twice", one(append(labels("service_name", "c"), good...), raw(t, same)), "duplicate label name"},
		{"long", one(append(labels("x", strings.Repeat("v", maxLabelValue+1)), good...), raw(t, same)), "value too long"},
		{"many", one(many, raw(t, same)), "limit 30"},
		{"no pprof", one(good, []byte("text")), "failed to parse"},
		{"empty", one(good, raw(t, func(p *profile.Profile) { p.Sample = nil })), "is empty"},
		{"no stack", one(good, raw(t, func(p *profile.Profile) { p.Sample[0].Location = nil })), "0 frames"},
		{"no time", one(good, raw(t, func(p *profile.Profile) { p.TimeNanos = 0 })), "has no time"},
		{"old", one(good, raw(t, func(p *profile.Profile) { p.TimeNanos -= int64(2 * time.Hour) })), "ingestion window"},
		{"of the future", one(good, raw(t, func(p *profile.Profile) { p.TimeNanos += int64(time.Hour) })), "ingestion window"},
		{"out of order", one(good, raw(t, same), raw(t, func(p *profile.Profile) { p.TimeNanos -= int64(time.Minute) })), "out of order"},
		{"minus", one(good, raw(t, func(p *profile.Profile) { p.SampleType[0].Type = "a-b" })), "contains -"},
		{"many samples", one(good, raw(t, func(p *profile.Profile) {
			for range maxSamples {
				p.Sample = append(p.Sample, p.Sample[0])
			}
		})), "samples count limit"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			d := New(Options{})
			srv := httptest.NewServer(d)
			defer srv.Close()
			_, err := pushv1connect.NewPusherServiceClient(srv.Client(), srv.URL).Push(context.Background(), connect.NewRequest(tt.req))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v; want %q", err, tt.want)
			}
			if (len(d.Stored()) > 0) != (tt.want == "") || (len(d.Refused()) > 0) != (tt.want != "") {
				t.Errorf("%d stored, refused %v", len(d.Stored()), d.Refused())
			}
		})
	}
}

func TestOrder(t *testing.T) {
	d := New(Options{})
	srv := httptest.NewServer(d)
	defer srv.Close()
	c := pushv1connect.NewPusherServiceClient(srv.Client(), srv.URL)
	for i, want := range []bool{true, false} {
		_, err := c.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
			Labels:  labels("__name__", "process_cpu", "service_name", "a"),
			Samples: []*pushv1.RawSample{{RawProfile: raw(t, func(p *profile.Profile) { p.TimeNanos -= int64(i) * int64(time.Minute) })}},
		}}}))
		if (err == nil) != want {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestOTLPRefusals(t *testing.T) {
	for _, tt := range []struct {
		kind, body string
		status     int
	}{
		{"text/plain", "", http.StatusUnsupportedMediaType},
		{"application/json", "{}", http.StatusUnsupportedMediaType},
		{"application/x-protobuf", "", http.StatusBadRequest},
		{"application/x-protobuf", "\xff", http.StatusBadRequest},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/v1development/profiles", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.kind)
		New(Options{}).ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s %q: %d %s", tt.kind, tt.body, w.Code, w.Body)
		}
	}
}
