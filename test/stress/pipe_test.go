package stress

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/console"
	"huatuo/internal/pipe"
	"huatuo/internal/signal"
	"huatuo/internal/store"
)

// happening is the body of a made-up event.
type happening struct {
	N    int    `json:"n" help:"number"`
	Text string `json:"text" help:"some words"`
}

var happened = signal.EventOf[happening]("happening", signal.AreaSystem, signal.Info, "Something happened.")

type storeSink struct{ s *store.Store }

func (k storeSink) Deliver(ctx context.Context, docs []*signal.Document) error {
	return k.s.AppendEvents(ctx, docs)
}

// TestFlood offers 50,000 events a second to a pipe with the agent's own sinks.
// The store cannot take so many: what it does not get must be counted, to the
// last event, and memory must stay bounded.
func TestFlood(t *testing.T) {
	const rate = 50_000
	d := pick(10*time.Second, time.Minute)
	s, err := store.Open(t.TempDir(), store.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := pipe.New(pipe.Options{Log: slog.New(slog.DiscardHandler), Host: "h", Queue: 4096, Enrich: func(r *signal.Record) { r.Process.Comm = "flood" }})
	p.Add("store", storeSink{s})
	p.Add("stream", console.NewHub())
	emit, _ := p.Probe("flood")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx, 10*time.Second) }()

	debug.FreeOSMemory()
	before := usageOf(t, os.Getpid()).rss
	top := peak(t, os.Getpid())
	slow := slowness()
	offered, began := 0, time.Now()
	for time.Since(began) < d {
		due := int(rate * time.Since(began).Seconds())
		for ; offered < due; offered++ {
			emit(&signal.Record{Schema: happened, Time: time.Now(), Title: "something happened again", Process: signal.Process{PID: 7},
				Body: &happening{offered, "in the middle of the night"}})
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	cancel()
	<-ended
	rss := top()

	a := p.Accounts()[0]
	if got := float64(offered) / took.Seconds(); got < rate*0.98/slow {
		t.Errorf("only %.0f events a second were offered", got)
	}
	if a.Observed != uint64(offered) || !a.Balanced() {
		t.Errorf("%d offered; %+v", offered, a)
	}
	for _, k := range a.Sinks {
		if k.Queued != 0 || k.Failed != 0 {
			t.Errorf("at rest: %+v", k)
		}
	}
	if kept := s.Stats().Events; kept != a.Sinks[0].Delivered {
		t.Errorf("the store has %d events, the account says %d", kept, a.Sinks[0].Delivered)
	}
	if rss > before+150e6 {
		t.Errorf("resident memory went from %d to %d MB", before/1e6, rss/1e6)
	}
	t.Logf("%d events offered in %v; %+v; RSS %d → %d MB at most", offered, took.Round(time.Millisecond), a, before/1e6, rss/1e6)
}

// TestFloodFromKernel lets every wait for a CPU be an event while processes
// wake each other up all the time.
func TestFloodFromKernel(t *testing.T) {
	a := start(t, t.TempDir(), nil, "--set", "probes.runqueue.stall=1us", "--set", "probes.runqueue.rate=0")
	time.Sleep(2 * time.Second)
	a.accountedFor()
	before := usageOf(t, a.pid)
	top := peak(t, a.pid)
	chatter(t, pick(5*time.Second, 20*time.Second))
	rss, after := top(), usageOf(t, a.pid)
	if rss > before.rss+150e6 {
		t.Errorf("resident memory went from %d to %d MB", before.rss/1e6, rss/1e6)
	}
	var acc signal.Account
	for _, x := range a.accountedFor() {
		if x.Probe == "runqueue" {
			acc = x
		}
	}
	if acc.Observed < 20_000 {
		t.Errorf("only %d events: nothing was tested", acc.Observed)
	}
	t.Logf("%+v; RSS %d → %d MB at most, CPU %v", acc, before.rss/1e6, rss/1e6, after.cpu-before.cpu)
}

// accountedFor reads the accounts while events flow, which no reading catches at
// rest: observed must lie between what was routed or dropped before and after.
func (a *agent) accountedFor() []signal.Account {
	a.t.Helper()
	read := func() map[string]signal.Account {
		m := map[string]signal.Account{}
		for _, x := range a.system().Accounts {
			m[x.Probe] = x
		}
		return m
	}
	early := read()
	time.Sleep(time.Second)
	accounts := a.system().Accounts
	time.Sleep(time.Second)
	late := read()
	for _, x := range accounts {
		if e := accounted(early[x.Probe]); x.Observed < e {
			a.t.Errorf("%s: observed %d, but %d were accounted for before", x.Probe, x.Observed, e)
		}
		if l := accounted(late[x.Probe]); x.Observed > l {
			a.t.Errorf("%s: observed %d, a second later %d were accounted for", x.Probe, x.Observed, l)
		}
	}
	return accounts
}

func accounted(a signal.Account) uint64 {
	n := a.Routed
	for _, d := range a.Dropped {
		n += d
	}
	return n
}

// chatter runs processes that wake each other up all the time.
func chatter(t testing.TB, d time.Duration) {
	t.Helper()
	path, err := exec.LookPath("hackbench")
	if err != nil {
		t.Skip("needs hackbench: apt-get install rt-tests")
	}
	c := exec.Command(path, "-g", "1", "-s", "64", "-l", "100000000")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	c.Wait()
}
