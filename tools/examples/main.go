// Command examples captures the documents that docs/reference/events.md shows,
// one of each kind of event. It starts an agent and runs the kernel tests of the
// probes beside it: what a test provokes and waits for is kept as the agent tells
// it, as testdata/example_<kind>.json of the probe. It needs root, and takes some
// ten minutes; names of probes as arguments choose.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/probes"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// settings are what the agent runs with besides its defaults, by probe: what the
// tests provoke is smaller than what is an event otherwise, or comes sooner.
var settings = map[string][]string{
	"blockio": {"stall=300ms"},
	"fs":      {"interval=1s"},
	"process": {"exec=true"},
	"reclaim": {"reclaim=1ms", "compaction=100us"},
	"tcp":     {"listen_interval=1s"},
}

func main() {
	agent := flag.String("agent", "bin/huatuo", "binary to run")
	flag.Parse()
	missing, err := capture(*agent, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "examples:", err)
		os.Exit(1)
	}
	for _, m := range missing {
		fmt.Println("not captured in this run:", m)
	}
}

// capture returns the kinds that nothing provoked.
func capture(binary string, names []string) (missing []string, err error) {
	url, stop, err := start(binary)
	if err != nil {
		return nil, err
	}
	defer stop()
	began := time.Now()
	for _, s := range probes.All() {
		if kinds := events(s); len(kinds) == 0 || len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		dir := filepath.Join("internal", "probes", s.Name)
		note := strings.Join(settings[s.Name], ", ")
		if note != "" {
			note = "with " + note
		}
		fmt.Println("==", s.Name)
		if err := provoke(dir, url, note); err != nil {
			fmt.Println(err) // what was captured before is good all the same
		}
		for _, kind := range events(s) {
			st, err := os.Stat(filepath.Join(dir, probetest.ExampleFile(kind)))
			if err == nil && st.ModTime().After(began) {
				continue
			}
			ok, err := harvest(dir, url, kind)
			if err != nil {
				return nil, err
			}
			if !ok {
				missing = append(missing, kind)
			}
		}
	}
	return missing, nil
}

func events(s probe.Spec) []string {
	var kinds []string
	for _, e := range s.Emits {
		if e.Kind == signal.Event {
			kinds = append(kinds, e.Name)
		}
	}
	return kinds
}

// provoke runs the tests of one probe that keep examples.
func provoke(dir, url, note string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "test", "-count=1", "-run", "^Test(Kernel|Example)", "./"+dir)
	c.Env = append(os.Environ(), probetest.ExamplesURL+"="+url, probetest.ExamplesNote+"="+note)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test ./%s: %w\n%s", dir, err, out)
	}
	return nil
}

// harvest takes the newest event of a kind that no test waited for, but that the
// load of the tests made, and that is not about this program or the agent.
func harvest(dir, url, kind string) (bool, error) {
	var page signal.EventPage
	if err := get(url+"/api/v1/events?limit=100&kind="+kind, &page); err != nil {
		return false, err
	}
	for _, d := range page.Events {
		if p := d.Process; p == nil || int(p.PID) != os.Getpid() && int(p.ParentPID) != os.Getpid() {
			return true, probetest.WriteExample(dir, d, probetest.Captured("while the tests ran"))
		}
	}
	return false, nil
}

// start runs the agent on a store of its own until stop is called.
func start(binary string) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("find a port: %w", err)
	}
	addr := l.Addr().String()
	l.Close()
	data, err := os.MkdirTemp("", "huatuo-examples-")
	if err != nil {
		return "", nil, fmt.Errorf("make a store: %w", err)
	}
	args := []string{"--listen", addr, "--data", data, "--set", "budget.enforce=false", "--set", "profiles.enabled=false"}
	for p, sets := range settings {
		for _, s := range sets {
			args = append(args, "--set", "probes."+p+"."+s)
		}
	}
	c := exec.Command(binary, args...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		os.RemoveAll(data)
		return "", nil, fmt.Errorf("start the agent: %w", err)
	}
	stop = func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		os.RemoveAll(data)
	}
	url = "http://" + addr
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if r, err := http.Get(url + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return url, stop, nil
			}
		}
	}
	stop()
	return "", nil, errors.New("the agent is not ready after 30 s")
}

func get(url string, into any) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, r.Status)
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	return nil
}
