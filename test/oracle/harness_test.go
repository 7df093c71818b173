package oracle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"huatuo/internal/probe"
	"huatuo/internal/probes"
)

// agentBinary is the agent under test, built once.
var agentBinary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "huatuo-oracle-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	agentBinary = filepath.Join(dir, "huatuo")
	build := exec.Command("go", "build", "-o", agentBinary, "huatuo/cmd/huatuo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// start runs the agent with those probes alone, so that a scrape is short, and
// without history, until the test ends. It returns the agent's URL.
func start(t *testing.T, only ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make e2e` as root")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var log strings.Builder
	args := []string{"--listen", addr, "--store", "none", "--set", "profiles.enabled=false"}
	for _, p := range probes.All() {
		if !slices.Contains(only, p.Name) {
			args = append(args, "--set", "probes."+p.Name+".enabled=false")
		}
	}
	c := exec.Command(agentBinary, args...)
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", &log)
		}
	})
	url := "http://" + addr
	eventually(t, "probes run", func() error {
		var r struct{ Probes []probe.Status }
		if err := getJSON(url+"/api/v1/probes", &r); err != nil {
			return err
		}
		for _, p := range r.Probes {
			if slices.Contains(only, p.Name) && p.State != probe.Running {
				return fmt.Errorf("%s is %s: %s", p.Name, p.State, p.Reason)
			}
		}
		return nil
	})
	return url
}

func getJSON(url string, into any) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(into)
}

// eventually repeats f until it returns nil, for 20 s.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// scrape gets /metrics as protobuf, which has native histograms.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	out := map[string]*dto.MetricFamily{}
	for in := bufio.NewReader(r.Body); ; {
		f := &dto.MetricFamily{}
		err := protodelim.UnmarshalOptions{MaxSize: -1}.UnmarshalFrom(in, f)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("read /metrics: %v", err)
		}
		out[f.GetName()] = f
	}
}

// series returns the sample that has all the labels, given as name, value, …;
// nil when there is none.
func series(f *dto.MetricFamily, labels ...string) *dto.Metric {
	for _, m := range f.GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		match := true
		for i := 0; i < len(labels); i += 2 {
			match = match && have[labels[i]] == labels[i+1]
		}
		if match {
			return m
		}
	}
	return nil
}
