// Package stress treats the agent worse than a node should: it kills it, fills
// its disk, breaks its files, sets its clock, floods its pipe, hangs on its
// streams, and takes its rights away. Each test states a bound and prints what
// it measured.
//
// `make stress` runs all of it; `make test` runs the same with -short, which
// keeps rounds and durations small.
package stress

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// binary is the agent under test, built once; STRESS_BINARY names another.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "huatuo-stress-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // an ordinary user runs the binary too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if binary = os.Getenv("STRESS_BINARY"); binary != "" {
		return m.Run()
	}
	binary = filepath.Join(dir, "huatuo")
	build := exec.Command("go", "build", "-o", binary, "huatuo/cmd/huatuo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// pick returns short with -short and long without.
func pick[T any](short, long T) T {
	if testing.Short() {
		return short
	}
	return long
}

// fine tells whether a probe runs, or has nothing to watch on this machine.
//
// Without CAP_NET_ADMIN, which the guide does not ask for, no program may look at
// writes of sysctls: the probe compares their values instead, and says so.
func fine(p probe.Status) bool {
	return p.State == probe.Running || p.State == probe.Absent ||
		p.Name == "changes" && p.State == probe.Degraded && strings.Contains(p.Reason, "cgroup_sysctl")
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make stress` as root")
	}
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

// agent is a running agent.
type agent struct {
	t      testing.TB
	cmd    *exec.Cmd
	pid    int // of the agent, also when cmd is a wrapper that became it
	url    string
	data   string
	log    *syncBuffer
	exited chan struct{}
	err    error // of Wait, once exited is closed
	began  time.Time
}

// start runs the agent on data and waits until it is ready. wrap is a command
// that execs its arguments; it may be empty.
func start(t testing.TB, data string, wrap []string, args ...string) *agent {
	t.Helper()
	needRoot(t)
	a := launch(t, data, wrap, args...)
	a.ready(30 * time.Second)
	return a
}

func launch(t testing.TB, data string, wrap []string, args ...string) *agent {
	t.Helper()
	addr := freePort(t)
	a := &agent{t: t, url: "http://" + addr, data: data, log: &syncBuffer{}, exited: make(chan struct{})}
	argv := append(append(append([]string(nil), wrap...), binary, "--set", "profiles.enabled=false", "--listen", addr, "--data", data,
		"--set", "budget.enforce=false"), args...) // floods are no reason to end what is tested
	a.cmd = exec.Command(argv[0], argv[1:]...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	a.began = time.Now()
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.pid = a.cmd.Process.Pid
	go func() { a.err = a.cmd.Wait(); close(a.exited) }()
	t.Cleanup(func() {
		a.kill()
		if strings.Contains(a.log.String(), "DATA RACE") { // of an agent that was built with -race
			t.Error("the race detector complains")
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%.8000s", a.log)
		}
	})
	return a
}

func (a *agent) ready(patience time.Duration) time.Duration {
	a.t.Helper()
	deadline := a.began.Add(patience)
	for {
		select {
		case <-a.exited:
			a.t.Fatalf("the agent ended: %v\n%s", a.err, a.log)
		default:
		}
		if code, _ := a.get("/readyz"); code == http.StatusOK {
			return time.Since(a.began)
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("not ready after %v\n%s", patience, a.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kill is kill -9; nothing when the agent has ended.
func (a *agent) kill() {
	a.cmd.Process.Kill()
	<-a.exited
}

// stop ends the agent by SIGTERM, which must work.
func (a *agent) stop() {
	a.t.Helper()
	a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.exited:
		if a.err != nil {
			a.t.Errorf("the agent ended with %v", a.err)
		}
	case <-time.After(10 * time.Second):
		a.t.Error("the agent did not end within 10 s of SIGTERM")
		a.kill()
	}
}

// freePort returns an address that nothing listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually repeats f until it returns nil.
func eventually(t testing.TB, patience time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("%s: %v (after %v)", what, err, patience)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (a *agent) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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

// query evaluates a PromQL expression over the agent's history.
func (a *agent) query(expr string) (float64, bool) {
	a.t.Helper()
	var r struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	a.json("/api/v1/query?query="+url.QueryEscape(expr), &r)
	if len(r.Data.Result) == 0 {
		return 0, false
	}
	s, _ := r.Data.Result[0].Value[1].(string)
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

// metric reads a series without labels, or with exactly these, from /metrics.
func (a *agent) metric(series string) (float64, bool) {
	a.t.Helper()
	_, body := a.get("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v, err == nil
		}
	}
	return 0, false
}

// system is what the agent says of itself.
type system struct {
	Accounts []signal.Account
	Store    signal.StoreStatus
	Sinks    []struct{ Name, State, Error string }
	Cost     struct {
		Goroutines int
	}
}

func (a *agent) system() system {
	a.t.Helper()
	var s system
	a.json("/api/v1/system", &s)
	return s
}

// balanced checks the conservation law. It waits until nothing is on the way;
// where others on the machine make events all the time, so that this never is,
// it looks at three moments instead.
func (a *agent) balanced() []signal.Account {
	a.t.Helper()
	var accounts []signal.Account
	atRest := func() error {
		accounts = a.system().Accounts
		if len(accounts) == 0 {
			return fmt.Errorf("no accounts")
		}
		for _, acc := range accounts {
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
	}
	for range 30 {
		if atRest() == nil {
			return accounts
		}
		time.Sleep(100 * time.Millisecond)
	}
	return a.accountedFor()
}

// events pages through all kept events with an id after that one, oldest first.
func (a *agent) events(after string) []*signal.Document {
	a.t.Helper()
	var all []*signal.Document
	before := ""
	for {
		var page signal.EventPage
		a.json("/api/v1/events?limit=500&before="+before, &page)
		for _, d := range page.Events {
			if d.ID <= after {
				page.Next = ""
				break
			}
			all = append(all, d)
		}
		if page.Next == "" {
			break
		}
		before = page.Next
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}
