package pyroscope

import (
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"huatuo/internal/signal"
	double "huatuo/test/doubles/pyroscope"
)

// kinds are the two ways of sending.
func kinds() map[string]func(Options) (*Sink, error) {
	return map[string]func(Options) (*Sink, error){"pprof": New, "otlp": NewOTLP}
}

var (
	cpu     = &signal.ProfileType{Name: "cpu", Unit: "nanoseconds"}
	blocked = &signal.ProfileType{Name: "offcpu.blocked", Unit: "nanoseconds"}
	locks   = &signal.ProfileType{Name: "lock.user.contentions", Unit: "count"}
)

// run starts a sink that sends to a double, and returns what ends it.
func run(t *testing.T, kind string, o Options, d http.Handler) (s *Sink, end func()) {
	t.Helper()
	if o.Client.URL == "" {
		srv := httptest.NewServer(d)
		t.Cleanup(srv.Close)
		o.Client.URL = srv.URL
	}
	if kind == "otlp" {
		o.Client.URL += "/v1development/profiles"
	}
	o.Name, o.Log, o.Instance = kind, slog.New(slog.DiscardHandler), "node1"
	if o.Interval == 0 {
		o.Interval = time.Hour // the test says when
	}
	if o.Queue == 0 {
		o.Queue = 32
	}
	if o.GroupBy == nil {
		o.GroupBy = []string{"namespace", "pod", "container", "unit", "process"}
	}
	o.pause = time.Millisecond
	s, err := kinds()[kind](o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return s, end
}

func stack(functions ...string) *signal.Stack {
	s := &signal.Stack{}
	for _, f := range functions {
		s.Frames = append(s.Frames, signal.Frame{Function: f, Module: "/bin/" + f, File: f + ".c", Line: 7})
	}
	return s
}

func sample(typ *signal.ProfileType, l signal.ProfileLabels, v int64, s *signal.Stack) signal.LabeledSample {
	return signal.LabeledSample{StackSample: signal.StackSample{Type: typ, Time: time.Now(), Value: v, Stack: s}, Labels: l}
}

// account is all of a sink's samples by what became of them, as text.
func account(s *Sink) string {
	taken, a := s.Account()
	return fmt.Sprintf("%d: %d delivered, %d dropped, %d failed, %d queued", taken, a.Delivered, a.Dropped, a.Failed, a.Queued)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// TestSent: what is added arrives with its type, labels, names and values.
func TestSent(t *testing.T) {
	for kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			d := double.New(double.Options{})
			s, end := run(t, kind, Options{Labels: []Label{{"env", "test"}}}, d)
			shop := signal.ProfileLabels{PID: 7, Process: "java", Thread: "main", Namespace: "shop", Pod: "cart-1", Container: "cart"}
			hot := stack("hot", "main")
			s.Add(sample(cpu, shop, 50, hot))
			shop.PID, shop.Thread = 8, "gc" // which tell nothing apart by default
			s.Add(sample(cpu, shop, 50, hot))
			s.Add(sample(cpu, shop, 100, stack("hot", "main"))) // the same stack, another pointer
			s.Add(sample(cpu, signal.ProfileLabels{Unit: "nginx.service", Process: "nginx"}, 50, &signal.Stack{
				Frames: []signal.Frame{{Function: "tcp_sendmsg"}, {Missing: "no symbols", Module: "/usr/sbin/nginx", Offset: 0x12}, {Function: "bad\xffname"}}, Kernel: 1,
			}))
			s.Add(sample(blocked, signal.ProfileLabels{}, 9, stack("wait")))
			s.Add(sample(locks, shop, 12, hot))
			s.Add(sample(cpu, signal.ProfileLabels{Process: "kworker"}, 0, stack()))
			s.Add(sample(cpu, signal.ProfileLabels{Process: "kworker"}, 2, stack()))
			end()
			if got := account(s); got != "8: 8 delivered, 0 dropped, 0 failed, 0 queued" {
				t.Error(got, d.Refused())
			}
			got := map[string]double.Stored{}
			for _, p := range d.Stored() {
				got[p.Type+" "+p.Labels["service_name"]] = p
			}
			cart := got["process_cpu:cpu:nanoseconds:cpu:nanoseconds shop/cart"]
			if cart.Stacks["main;hot"] != 200 || cart.Total != 200 {
				t.Errorf("%+v", cart)
			}
			want := map[string]string{"namespace": "shop", "pod": "cart-1", "container": "cart", "process": "java", "instance": "node1", "env": "test"}
			if kind == "otlp" {
				want = map[string]string{"service_name": "shop/cart", "k8s_namespace_name": "shop", "k8s_pod_name": "cart-1", "k8s_container_name": "cart", "process_executable_name": "java", "host_name": "node1", "env": "test"}
			}
			for n, v := range want {
				if cart.Labels[n] != v {
					t.Errorf("label %s: %q, want %q", n, cart.Labels[n], v)
				}
			}
			for _, n := range []string{"thread", "thread_name", "pid"} {
				if _, ok := cart.Labels[n]; ok {
					t.Errorf("label %s tells series apart", n)
				}
			}
			if p := got["process_cpu:cpu:nanoseconds:cpu:nanoseconds nginx.service"]; p.Stacks["bad\uFFFDname;nginx+0x12;tcp_sendmsg"] != 50 {
				t.Errorf("%+v", p)
			}
			if p := got["process_cpu:cpu:nanoseconds:cpu:nanoseconds kworker"]; p.Stacks["[unknown]"] != 2 {
				t.Errorf("%+v", p)
			}
			if p := got["lock:user.contentions:count:lock:count shop/cart"]; p.Stacks["main;hot"] != 12 {
				t.Errorf("%+v of %v", p, d.Stored())
			}
			if p := got["offcpu:blocked:nanoseconds:offcpu:nanoseconds unknown"]; p.Total != 9 {
				t.Errorf("%+v of %v", p, d.Stored())
			}
		})
	}
}

// TestRetry: what fails for a while is tried again and arrives once; what is
// wrong is not.
func TestRetry(t *testing.T) {
	for kind := range kinds() {
		for _, tt := range []struct {
			what   string
			arm    func(*double.Server)
			want   string
			stored int
		}{
			{"a server that restarts", func(d *double.Server) { d.Fail(3, connect.CodeUnavailable, 0) }, "1: 1 delivered, 0 dropped, 0 failed, 0 queued", 1},
			{"a request that is wrong", func(d *double.Server) { d.Fail(1, connect.CodeInvalidArgument, 0) }, "1: 0 delivered, 0 dropped, 1 failed, 0 queued", 0},
			{"a dead server", func(d *double.Server) { d.Fail(maxTries, connect.CodeUnavailable, 0) }, "1: 0 delivered, 0 dropped, 1 failed, 0 queued", 0},
			{"a server that is busy", func(d *double.Server) { d.Fail(1, connect.CodeResourceExhausted, time.Second) }, "1: 1 delivered, 0 dropped, 0 failed, 0 queued", 1},
		} {
			t.Run(kind+": "+tt.what, func(t *testing.T) {
				d := double.New(double.Options{})
				tt.arm(d)
				began := time.Now()
				s, end := run(t, kind, Options{Interval: 20 * time.Millisecond}, d)
				s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, stack("f")))
				eventually(t, "the sample is done with", func() bool { _, a := s.Account(); return a.Queued == 0 })
				if strings.Contains(tt.what, "busy") && time.Since(began) < time.Second {
					t.Error("did not wait as it was asked to")
				}
				if st := s.State(); (st.Err == nil) != (tt.stored == 1) {
					t.Errorf("state %+v", st)
				}
				end()
				if got := account(s); got != tt.want || len(d.Stored()) != tt.stored {
					t.Errorf("%s, %d stored; want %s, %d", got, len(d.Stored()), tt.want, tt.stored)
				}
			})
		}
	}
}

// TestLostAnswer: what was taken although the answer said otherwise is not kept
// twice.
func TestLostAnswer(t *testing.T) {
	d := double.New(double.Options{})
	d.LoseAnswer()
	s, end := run(t, "pprof", Options{Interval: 20 * time.Millisecond}, d)
	s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, stack("f")))
	eventually(t, "delivered", func() bool { _, a := s.Account(); return a.Delivered == 1 })
	end()
	if n := len(d.Stored()); n != 1 {
		t.Errorf("%d profiles kept", n)
	}
}

// TestQueue: the oldest go when the server is away, and each sample is counted
// once.
func TestQueue(t *testing.T) {
	for kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			hold, held := make(chan struct{}), make(chan struct{}, 100)
			d := double.New(double.Options{})
			s, end := run(t, kind, Options{Queue: 2}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				held <- struct{}{}
				<-hold
				d.ServeHTTP(w, r)
			}))
			for i := range 6 {
				for range i + 1 {
					s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, stack("f")))
				}
				s.flush()
				if i == 0 {
					<-held // the first is on its way, 5 follow, 2 have room
				}
			}
			if st := s.State(); st.Queued != 2 || st.Capacity != 2 {
				t.Errorf("state %+v", st)
			}
			if got := account(s); got != "21: 0 delivered, 9 dropped, 0 failed, 12 queued" {
				t.Error(got)
			}
			close(hold)
			eventually(t, "all done", func() bool { _, a := s.Account(); return a.Queued == 0 })
			end()
			var total int64
			for _, p := range d.Stored() {
				total += p.Total
			}
			if got := account(s); got != "21: 12 delivered, 9 dropped, 0 failed, 0 queued" || total != 12 {
				t.Errorf("%s; %d arrived, refused %v", got, total, d.Refused())
			}
		})
	}
}

// TestLarge: a window that is larger than a server takes goes in parts, and one
// that is larger than memory may be ends early.
func TestLarge(t *testing.T) {
	for kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			d := double.New(double.Options{})
			s, end := run(t, kind, Options{}, d)
			const stacks = 12_000
			callers := strings.Split(strings.Repeat("caller ", 20)+"main", " ")
			for i := range stacks {
				leaf := fmt.Sprintf("%s_%d", strings.Repeat("a_rather_long_name", 5), i)
				s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 3, stack(append([]string{leaf}, callers...)...)))
			}
			eventually(t, "a window that is full", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.now.samples < stacks })
			token(s.full) // the rest
			eventually(t, "all done", func() bool { _, a := s.Account(); return a.Queued == 0 })
			end()
			var total int64
			for _, p := range d.Stored() {
				total += p.Total
			}
			if len(d.Stored()) < 3 {
				t.Errorf("%d parts", len(d.Stored()))
			}
			if got := account(s); got != fmt.Sprintf("%d: %d delivered, 0 dropped, 0 failed, 0 queued", stacks, stacks) || total != 3*stacks {
				t.Errorf("%s; %d arrived; refused %.300v", got, total, d.Refused())
			}
		})
	}
}

// TestFull: samples that come while there is no room are dropped and counted.
func TestFull(t *testing.T) {
	s := newSink(Options{GroupBy: []string{"process"}}, nil)
	long := &signal.Stack{Frames: make([]signal.Frame, maxFrames)}
	s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, long))
	s.Add(sample(cpu, signal.ProfileLabels{Process: "b"}, 1, long))
	s.Add(sample(cpu, signal.ProfileLabels{Process: "b"}, 1, long))
	if got := account(s); got != "3: 0 delivered, 1 dropped, 0 failed, 2 queued" {
		t.Error(got)
	}
	select {
	case <-s.full:
	default:
		t.Error("nobody was told that it is full")
	}
}

// TestAccess: credentials and the tenant are sent, secrets are read anew, and a
// redirect does not get them.
func TestAccess(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	right, wrong := file("right", "s3cret\n"), file("wrong", "guess")
	for kind := range kinds() {
		for _, tt := range []struct {
			what   string
			server double.Options
			client Client
			ok     bool
		}{
			{"user", double.Options{Username: "me", Password: "s3cret"}, Client{Username: "me", PasswordFile: right}, true},
			{"wrong password", double.Options{Username: "me", Password: "s3cret"}, Client{Username: "me", PasswordFile: wrong}, false},
			{"token", double.Options{Token: "s3cret"}, Client{TokenFile: right}, true},
			{"no token", double.Options{Token: "s3cret"}, Client{}, false},
			{"token file is gone", double.Options{Token: "s3cret"}, Client{TokenFile: filepath.Join(dir, "none")}, false},
			{"tenant", double.Options{Tenants: true}, Client{Tenant: "team-a"}, true},
			{"no tenant", double.Options{Tenants: true}, Client{}, false},
		} {
			t.Run(kind+": "+tt.what, func(t *testing.T) {
				d := double.New(tt.server)
				s, end := run(t, kind, Options{Client: tt.client}, d)
				s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, stack("f")))
				end()
				stored := d.Stored()
				if (len(stored) == 1) != tt.ok {
					t.Fatalf("%d stored, %v, refused %v", len(stored), s.State().Err, d.Refused())
				}
				if tt.ok && stored[0].Tenant != tt.client.Tenant {
					t.Errorf("tenant %q", stored[0].Tenant)
				}
			})
		}
	}
}

// TestRedirect: credentials are for the server that was named.
func TestRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked, with %q", r.Header.Get("Authorization"))
	}))
	defer other.Close()
	s, end := run(t, "otlp", Options{Client: Client{Username: "me"}}, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	s.Add(sample(cpu, signal.ProfileLabels{Process: "a"}, 1, stack("f")))
	end()
	if got := account(s); got != "1: 0 delivered, 0 dropped, 1 failed, 0 queued" {
		t.Error(got)
	}
}

// TestTLS: the server's certificate is checked, against ca_file when it is named.
func TestTLS(t *testing.T) {
	d := double.New(double.Options{})
	srv := httptest.NewTLSServer(d)
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind := range kinds() {
		for _, tt := range []struct {
			what   string
			client Client
			ok     bool
		}{{"unknown", Client{}, false}, {"ca_file", Client{CAFile: ca}, true}, {"insecure", Client{Insecure: true}, true}} {
			t.Run(kind+": "+tt.what, func(t *testing.T) {
				before := len(d.Stored())
				tt.client.URL = srv.URL
				s, end := run(t, kind, Options{Client: tt.client}, nil)
				s.Add(sample(cpu, signal.ProfileLabels{Process: kind + tt.what}, 1, stack("f")))
				end()
				if (len(d.Stored()) == before+1) != tt.ok {
					t.Errorf("%v", s.State().Err)
				}
			})
		}
	}
	for _, bad := range []Client{{CAFile: "/none"}, {CAFile: os.Args[0]}, {CertFile: ca}, {CertFile: ca, KeyFile: "/none"}} {
		if _, err := New(Options{Client: bad}); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
