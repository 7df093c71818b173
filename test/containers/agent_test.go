package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// agent is the agent under test, running.
type agent struct {
	t    testing.TB
	pid  int
	url  string
	log  *syncBuffer
	stop func()
}

// syncBuffer is a buffer that a process writes to while a test reads.
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

// startAgent runs the agent with the given containers section and a store of
// its own, and waits until it is ready.
func startAgent(t testing.TB, containers string, args ...string) *agent {
	t.Helper()
	dir := t.TempDir()
	cfg := filepath.Join(dir, "huatuo.yaml")
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(containers), "\n", "\n  ")
	if err := os.WriteFile(cfg, []byte("containers:\n"+indented+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a := &agent{t: t, url: "http://" + addr, log: &syncBuffer{}}
	cmd := exec.Command(binary, append([]string{
		"--config", cfg, "--set", "profiles.enabled=false", "--listen", addr, "--data", filepath.Join(dir, "data"), "--set", "store.interval=1s", "--set", "budget.enforce=false",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = a.log, a.log
	done := make(chan error, 1)
	if err := startChild(cmd, done); err != nil {
		t.Fatal(err)
	}
	a.pid = cmd.Process.Pid
	a.stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the agent ended with %v", err)
			}
		case <-time.After(8 * time.Second):
			cmd.Process.Kill()
			t.Error("the agent did not end within 8 s of SIGTERM")
		}
	})
	t.Cleanup(func() {
		a.stop()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log)
		}
	})
	a.eventually(20*time.Second, "ready", func() error {
		if code, body := a.get("/readyz"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
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
		time.Sleep(50 * time.Millisecond)
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

// oomKill waits for the kill in the container with that id, and returns whom
// the agent says that it hit.
func (a *agent) oomKill(id string) signal.Container {
	a.t.Helper()
	return a.kill(10*time.Second, "container "+id[:12], func(c *signal.Container) bool { return c.ID == id })
}

// oomKillIn is oomKill in a container of a pod.
func (a *agent) oomKillIn(namespace, pod string) signal.Container {
	a.t.Helper()
	return a.kill(30*time.Second, "pod "+namespace+"/"+pod, func(c *signal.Container) bool { return c.Namespace == namespace && c.Pod == pod })
}

func (a *agent) kill(patience time.Duration, where string, match func(*signal.Container) bool) signal.Container {
	a.t.Helper()
	var found signal.Container
	a.eventually(patience, "oom_kill in "+where, func() error {
		var page signal.EventPage
		a.json("/api/v1/events?limit=500&kind=oom_kill", &page)
		for _, d := range page.Events {
			if d.Container != nil && match(d.Container) {
				found = *d.Container
				return nil
			}
		}
		others := ""
		for _, d := range page.Events {
			if d.Container != nil {
				others += fmt.Sprintf("\n%+v", *d.Container)
			}
		}
		return fmt.Errorf("%d kills, none in it%s", len(page.Events), others)
	})
	return found
}

// series waits for a series of /metrics with these labels, in any order, and
// returns its line.
func (a *agent) series(metric string, labels ...string) (line string) {
	a.t.Helper()
	a.eventually(10*time.Second, fmt.Sprintf("%s%q", metric, labels), func() error {
		_, body := a.get("/metrics")
		like := ""
	lines:
		for _, l := range strings.Split(body, "\n") {
			if !strings.HasPrefix(l, metric+"{") {
				continue
			}
			like += l + "\n"
			for _, want := range labels {
				if !strings.Contains(l, want) {
					continue lines
				}
			}
			line = l
			return nil
		}
		return fmt.Errorf("not among\n%s", like)
	})
	return line
}
