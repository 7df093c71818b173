package pyroscope

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

var (
	epoch   = time.UnixMilli(1_700_000_000_000)
	cpu     = &signal.ProfileType{Name: "cpu", Unit: "nanoseconds"}
	blocked = &signal.ProfileType{Name: "offcpu.blocked", Unit: "nanoseconds"}
	locks   = &signal.ProfileType{Name: "lock.user.contentions", Unit: "count"}
	bytes_  = &signal.ProfileType{Name: "mem.inuse", Unit: "bytes"}
)

// fake keeps samples in memory.
type fake struct {
	samples []signal.LabeledSample
	hang    bool
	fail    error
}

func (f *fake) Types() []*signal.ProfileType {
	return []*signal.ProfileType{cpu, blocked, locks, bytes_}
}

func (f *fake) each(ctx context.Context, q signal.ProfileQuery, do func(*signal.LabeledSample)) error {
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if len(q.Labels) > 0 || q.PID != 0 || q.Columns != nil {
		return errors.New("BUG: the fake knows Match only")
	}
	for i := range f.samples {
		s := &f.samples[i]
		if s.Type.Name == q.Type && !s.Time.Before(q.From) && s.Time.Before(q.To) && (q.Match == nil || q.Match(&s.Labels)) {
			do(s)
		}
	}
	return f.fail
}

func (f *fake) Flame(ctx context.Context, q signal.ProfileQuery, _ float64) (*signal.FlameGraph, error) {
	g := &signal.FlameGraph{Type: q.Type, From: q.From, To: q.To}
	for _, t := range f.Types() {
		if t.Name == q.Type {
			g.Unit = t.Unit
		}
	}
	frames, nodes := map[signal.Frame]int{}, map[[2]int]int{}
	err := f.each(ctx, q, func(s *signal.LabeledSample) {
		g.Total += s.Value
		g.Samples++
		squared := float64(s.Value) * float64(s.Value)
		g.Squares += squared
		at := -1
		for _, fr := range slices.Backward(s.Stack.Frames) {
			id, ok := frames[fr]
			if !ok {
				id = len(g.Frames)
				frames[fr] = id
				g.Frames = append(g.Frames, fr)
			}
			n, ok := nodes[[2]int{at, id}]
			if !ok {
				n = len(g.Nodes)
				nodes[[2]int{at, id}] = n
				g.Nodes = append(g.Nodes, signal.FlameNode{Frame: id, Parent: at})
			}
			at = n
			g.Nodes[at].Total += s.Value
			g.Nodes[at].Count++
			g.Nodes[at].Squares += squared
		}
		g.Nodes[at].Self += s.Value
		g.Nodes[at].SelfCount++
		g.Nodes[at].SelfSquares += squared
	})
	return g, err
}

func (f *fake) Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error) {
	out := make([]int64, int((q.To.Sub(q.From)+column-1)/column))
	err := f.each(ctx, q, func(s *signal.LabeledSample) { out[s.Time.Sub(q.From)/column] += s.Value })
	return out, err
}

func (f *fake) Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error) {
	var out []signal.ProfileSeries
	err := f.each(ctx, q, func(s *signal.LabeledSample) {
		m := map[string]string{}
		for _, n := range by {
			m[n], _ = s.Labels.Get(n)
		}
		out = append(out, signal.ProfileSeries{Labels: m, Value: s.Value, Samples: 1}) // whoever reads it has to add up
	})
	return out, err
}

func (f *fake) Encode(w io.Writer, g *signal.FlameGraph, format string) error {
	return profile.Encode(w, format, g)
}

// add keeps a sample so many seconds after the epoch.
func (f *fake) add(t *signal.ProfileType, second float64, v int64, l signal.ProfileLabels, frames ...signal.Frame) {
	f.samples = append(f.samples, signal.LabeledSample{
		StackSample: signal.StackSample{Type: t, Time: epoch.Add(time.Duration(second * float64(time.Second))), Value: v, Stack: &signal.Stack{Frames: frames}},
		Labels:      l,
	})
}

func fn(name string) signal.Frame { return signal.Frame{Function: name} }

var (
	cart  = signal.ProfileLabels{PID: 1, Process: "java", Thread: "main", Namespace: "shop", Pod: "cart-1", Container: "cart"}
	nginx = signal.ProfileLabels{PID: 2, Process: "nginx", Thread: "nginx", Unit: "nginx.service"}
	bash  = signal.ProfileLabels{PID: 3, Process: "bash", Thread: "bash"}
)

// workload has three workloads on the CPU, one of them blocked as well.
func workload() *fake {
	f := &fake{}
	f.add(cpu, 1, 100, cart, fn("hot"), fn("main"))
	f.add(cpu, 2, 50, cart, fn("cold"), fn("main"))
	f.add(cpu, 2, 30, cart, fn("main"))
	f.add(cpu, 11, 7, nginx, signal.Frame{Function: "send", Line: 3}, fn("worker"))
	f.add(cpu, 12, 8, nginx, signal.Frame{Function: "send", Line: 4}, fn("worker"))
	f.add(cpu, 12, 5, bash, fn("bad\xffname"))
	f.add(cpu, 12, 0, cart, fn("nothing"), fn("main"))
	f.add(blocked, 3, 1000, cart, fn("futex"), fn("main"))
	f.add(locks, 3, 12, cart, fn("futex"), fn("main"))
	return f
}

// clients are the two encodings in which Grafana and others ask.
func clients(t *testing.T, p Profiles) map[string]querierv1connect.QuerierServiceClient {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(Path, New(Options{Profiles: p, Instance: "node1", Timeout: 5 * time.Second}))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return map[string]querierv1connect.QuerierServiceClient{
		"protobuf": querierv1connect.NewQuerierServiceClient(srv.Client(), srv.URL),
		"json":     querierv1connect.NewQuerierServiceClient(srv.Client(), srv.URL, connect.WithProtoJSON(), connect.WithSendGzip()),
	}
}
