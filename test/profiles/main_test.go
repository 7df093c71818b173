package profiles

import (
	"bytes"
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

	"huatuo/internal/signal"
)

// binary is the agent under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "huatuo-profiles-")
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

// agent is a running agent that takes stacks.
type agent struct {
	t   testing.TB
	pid int
	url string
	log syncBuffer
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
		t.Skip("needs root: run `make profiles` as root")
	}
}

// start runs the agent with a store of its own, until stacks of these types are
// taken.
func start(t testing.TB, types string, args ...string) *agent {
	t.Helper()
	needRoot(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a := &agent{t: t, url: "http://" + addr}
	cmd := exec.Command(binary, append([]string{
		"--listen", addr, "--data", t.TempDir(), "--set", "budget.enforce=false", // what a test loads must not make the agent lean
		"--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=97", "--set", "profiles.engine=unwinder", "--set", "profiles.max_memory=1GiB", "--set", "profiles.types=" + types,
	}, args...)...)
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.pid = cmd.Process.Pid
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the agent ended with %v", err)
			}
		case <-time.After(15 * time.Second):
			cmd.Process.Kill()
			<-done
			t.Error("the agent did not end within 15 s of SIGTERM")
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", &a.log)
		}
	})
	a.eventually(time.Minute, "profiles", func() error {
		var types struct {
			Status struct{ State, Reason string }
		}
		if err := a.get("/api/v1/profiles/types", &types); err != nil {
			return err
		}
		if types.Status.State != "running" {
			return fmt.Errorf("%+v", types.Status)
		}
		return nil
	})
	return a
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
			a.t.Fatalf("%s: %v (after %v)", what, err, patience)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// get reads an answer in JSON.
func (a *agent) get(path string, into any) error {
	b, err := a.body(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func (a *agent) body(path string) ([]byte, error) {
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Get(a.url + path)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %d %.500s", path, r.StatusCode, b)
	}
	return b, err
}

// metric returns the value of a metric without labels.
func (a *agent) metric(name string) float64 {
	a.t.Helper()
	var b []byte
	a.eventually(time.Minute, "metrics", func() (err error) { // a starved agent may be late once
		b, err = a.body("/metrics")
		return err
	})
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				a.t.Fatal(err)
			}
			return v
		}
	}
	a.t.Fatalf("no %s in /metrics", name)
	return 0
}

// flame asks for the samples of a process.
func (a *agent) flame(typ string, pid int, from time.Time) *signal.FlameGraph {
	a.t.Helper()
	q := url.Values{"type": {typ}, "pid": {fmt.Sprint(pid)}, "min_share": {"0"}, "from": {from.UTC().Format(time.RFC3339Nano)}}
	var g signal.FlameGraph
	if err := a.get("/api/v1/profiles/flame?"+q.Encode(), &g); err != nil {
		a.t.Fatal(err)
	}
	return &g
}
