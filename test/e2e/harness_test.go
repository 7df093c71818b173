// Package e2e starts the built binary as a user does, makes the kernel do
// things, and looks at what the agent says from outside: /metrics, the API,
// the store, the console, the command line.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// binary is the agent under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(spinEnv) != "" { // a child of TestPyroscope
		busyForPyroscope()
		return 0
	}
	if file := os.Getenv(faultFile); file != "" { // a child of TestMajorFaults
		if err := touch(file); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "huatuo-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "huatuo")
	build := exec.Command("go", "build", "-o", binary, "huatuo/cmd/huatuo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// agent is a running agent.
type agent struct {
	t    testing.TB
	cmd  *exec.Cmd
	url  string
	data string
	log  *syncBuffer
	done chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make e2e` as root")
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the agent with a store of its own and waits until it is ready.
func start(t testing.TB, args ...string) *agent {
	t.Helper()
	return startIn(t, t.TempDir(), args...)
}

func startIn(t testing.TB, data string, args ...string) *agent {
	t.Helper()
	needRoot(t)
	addr := freePort(t)
	a := &agent{t: t, url: "http://" + addr, data: data, log: &syncBuffer{}, done: make(chan error, 1)}
	if !slices.ContainsFunc(args, func(s string) bool { return strings.HasPrefix(s, "budget.") }) {
		args = append([]string{"--set", "budget.enforce=false"}, args...) // what a test loads must not make the agent lean
	}
	a.cmd = exec.Command(binary, append([]string{"--listen", addr, "--data", data, "--set", "profiles.enabled=false"}, args...)...)
	a.cmd.Stderr, a.cmd.Stdout = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.done <- a.cmd.Wait() }()
	t.Cleanup(func() {
		a.stop()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log)
		}
	})
	a.eventually(20*time.Second, "ready", func() error {
		code, body := a.get("/readyz")
		if code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	return a
}

// stop ends the agent by SIGTERM and returns how long that took; it fails the
// test when the agent does not end by itself.
func (a *agent) stop() time.Duration {
	if a.cmd.ProcessState != nil || a.done == nil {
		return 0
	}
	began := time.Now()
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.done:
		if err != nil {
			a.t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(8 * time.Second):
		a.cmd.Process.Kill()
		<-a.done
		a.t.Error("the agent did not end within 8 s of SIGTERM")
	}
	a.done = nil
	return time.Since(began)
}

// eventually repeats f until it returns nil.
func (a *agent) eventually(patience time.Duration, what string, f func() error) {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: %v (after %v)\n%s", what, err, patience, a.log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (a *agent) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
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

// json gets a path that must answer 200 with JSON.
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

// event waits for an event that match says yes to.
func (a *agent) event(kind string, patience time.Duration, match func(*signal.Document) bool) *signal.Document {
	a.t.Helper()
	var found *signal.Document
	a.eventually(patience, "event "+kind, func() error {
		var page signal.EventPage
		a.json("/api/v1/events?limit=500&kind="+kind, &page)
		for _, d := range page.Events {
			if match(d) {
				found = d
				return nil
			}
		}
		return fmt.Errorf("%d of the kind, none that matches", len(page.Events))
	})
	return found
}

// query evaluates a PromQL expression over the agent's history and returns the
// first value.
func (a *agent) query(expr string) (float64, bool) {
	a.t.Helper()
	var r struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	a.json("/api/v1/query?query="+url.QueryEscape(expr), &r)
	if len(r.Data.Result) == 0 || len(r.Data.Result[0].Value) < 2 {
		return 0, false
	}
	var v float64
	s, _ := r.Data.Result[0].Value[1].(string)
	if _, err := fmt.Sscan(s, &v); err != nil {
		return 0, false
	}
	return v, true
}

// balanced checks the conservation law of every probe: what one reading says was
// observed is, a moment later, dropped for a reason or routed, and what was
// routed is delivered, dropped or failed; and nothing is counted twice. It holds
// also while other events keep coming.
func (a *agent) balanced() {
	a.t.Helper()
	a.eventually(15*time.Second, "conservation law", func() error {
		before := a.accounts()
		if len(before) == 0 {
			return fmt.Errorf("no accounts")
		}
		time.Sleep(1500 * time.Millisecond) // a drain of the ring, the store's linger, and then some
		for name, now := range a.accounts() {
			if err := settled(before[name], now); err != nil {
				return fmt.Errorf("%w\nbefore %+v\nafter  %+v", err, before[name], now)
			}
		}
		return nil
	})
}

func (a *agent) accounts() map[string]signal.Account {
	a.t.Helper()
	var sys struct{ Accounts []signal.Account }
	a.json("/api/v1/system", &sys)
	out := map[string]signal.Account{}
	for _, acc := range sys.Accounts {
		out[acc.Probe] = acc
	}
	return out
}

// settled compares two readings of one probe's account.
func settled(before, now signal.Account) error {
	handled := now.Routed
	for _, n := range now.Dropped {
		handled += n
	}
	switch {
	case handled < before.Observed:
		return fmt.Errorf("%s: %d of %d events observed are neither dropped nor routed", now.Probe, before.Observed-handled, before.Observed)
	case handled > now.Observed && before.Observed == now.Observed:
		return fmt.Errorf("%s: %d events handled, %d observed", now.Probe, handled, now.Observed)
	case before.Observed == now.Observed && !now.Balanced():
		return fmt.Errorf("%s: does not balance at rest", now.Probe)
	}
	for _, s := range now.Sinks {
		if done := s.Delivered + s.Dropped + s.Failed; done < before.Routed || done > now.Routed {
			return fmt.Errorf("%s: sink %s is done with %d of %d events", now.Probe, s.Sink, done, before.Routed)
		}
	}
	return nil
}

// cli runs a subcommand and returns its exit code, standard output and error.
func cli(t testing.TB, args ...string) (int, string, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// cgroupName of this test run.
func cgroupName(what string) string { return fmt.Sprintf("huatuo-e2e-%s-%d", what, os.Getpid()) }
