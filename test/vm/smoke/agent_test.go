package smoke

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// listen is the agent's address in the guest, which has no other.
const listen = "127.0.0.1:19704"

// patience with an emulated machine that shares its host with another.
const patience = 60 * time.Second

// agent is a running agent.
type agent struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *buffer
	done chan error
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs the agent that HUATUO_AGENT names and waits until it is ready and
// no probe is starting any more.
func start(t *testing.T, args ...string) *agent {
	t.Helper()
	binary := os.Getenv("HUATUO_AGENT")
	if binary == "" {
		t.Skip("runs in the guests of `make vmtest`; HUATUO_AGENT names the agent's binary")
	}
	a := &agent{t: t, log: &buffer{}, done: make(chan error, 1)}
	a.cmd = exec.Command(binary, append([]string{"--listen", listen, "--data", t.TempDir(), "--set", "budget.enforce=false", "--set", "profiles.enabled=false"}, args...)...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HUATUO_") { // configuration, to the agent
			a.cmd.Env = append(a.cmd.Env, e)
		}
	}
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.done <- a.cmd.Wait() }()
	t.Cleanup(func() {
		if a.done != nil {
			a.cmd.Process.Kill()
			<-a.done
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log)
		}
	})
	a.eventually("ready", func() error {
		if code, body := a.get("/readyz"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		for _, p := range a.probes() {
			if p.State == probe.Starting {
				return fmt.Errorf("%s is starting", p.Name)
			}
		}
		return nil
	})
	return a
}

// stop ends the agent by SIGTERM, for which it has 5 s.
func (a *agent) stop() {
	a.t.Helper()
	began := time.Now()
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.done:
		if err != nil {
			a.t.Errorf("the agent ended with %v", err)
		}
		a.t.Logf("the agent ended %v after SIGTERM", time.Since(began).Round(10*time.Millisecond))
	case <-time.After(5 * time.Second):
		a.t.Error("the agent did not end within 5 s of SIGTERM")
		a.cmd.Process.Kill()
		<-a.done
	}
	a.done = nil
}

// eventually repeats f until it returns nil.
func (a *agent) eventually(what string, f func() error) {
	a.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("%s: %v (after %v)", what, err, patience)
		}
	}
}

func (a *agent) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(b)
}

func (a *agent) json(path string, into any) {
	a.t.Helper()
	code, body := a.get(path)
	if code != http.StatusOK {
		a.t.Fatalf("GET %s: %d %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		a.t.Fatalf("GET %s: %v in %.300s", path, err, body)
	}
}

func (a *agent) probes() []probe.Status {
	var r struct{ Probes []probe.Status }
	a.json("/api/v1/probes", &r)
	return r.Probes
}

// node is what the smoke test needs of /api/v1/node.
type node struct {
	Cgroup string `json:"cgroup_mode"`
	BTF    string `json:"btf"`
}

func (a *agent) node() node {
	var n node
	a.json("/api/v1/node", &n)
	return n
}

// kinds are the kinds of event that this build knows.
func (a *agent) kinds() map[string]bool {
	var r struct {
		Kinds []struct{ Name string }
	}
	a.json("/api/v1/event-kinds", &r)
	m := map[string]bool{}
	for _, k := range r.Kinds {
		m[k.Name] = true
	}
	return m
}

// event waits for an event that match says yes to.
func (a *agent) event(kind string, match func(*signal.Document) bool) *signal.Document {
	a.t.Helper()
	var found *signal.Document
	a.eventually("event "+kind, func() error {
		var page signal.EventPage
		a.json("/api/v1/events?limit=200&kind="+kind, &page)
		for _, d := range page.Events {
			if match(d) {
				found = d
				return nil
			}
		}
		if len(page.Events) == 0 {
			return fmt.Errorf("none of the kind")
		}
		return fmt.Errorf("%d of the kind, none that matches: %s of %+v in %+v", len(page.Events), page.Events[0].Title, page.Events[0].Process, page.Events[0].Container)
	})
	return found
}

// metric waits for a line of /metrics that has all the parts and a value that
// is not zero.
func (a *agent) metric(parts ...string) {
	a.t.Helper()
	a.eventually("metric "+strings.Join(parts, " "), func() error {
		code, body := a.get("/metrics")
		if code != http.StatusOK {
			return fmt.Errorf("GET /metrics: %d", code)
		}
	lines:
		for line := range strings.Lines(body) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue lines
				}
			}
			if f := strings.Fields(line); f[len(f)-1] != "0" {
				return nil
			}
		}
		return fmt.Errorf("no such line")
	})
}

// balanced waits until observed = delivered + Σ dropped holds for every probe
// that makes events, with nothing on the way.
func (a *agent) balanced() {
	a.t.Helper()
	a.eventually("conservation law", func() error {
		var sys struct{ Accounts []signal.Account }
		a.json("/api/v1/system", &sys)
		if len(sys.Accounts) == 0 {
			return fmt.Errorf("no accounts")
		}
		for _, acc := range sys.Accounts {
			if !acc.Balanced() {
				return fmt.Errorf("does not balance: %+v", acc)
			}
			for _, s := range acc.Sinks {
				if s.Queued > 0 {
					return fmt.Errorf("still queued: %+v", acc)
				}
			}
		}
		return nil
	})
}
