package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// scrape gets /metrics in one of its forms.
func scrape(t testing.TB, a *agent, accept string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, a.url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(r.Body).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics: %d %s", r.StatusCode, b.String())
	}
	return b.String()
}

func checkScrape(t testing.TB, a *agent, want ...string) {
	t.Helper()
	text := scrape(t, a, "text/plain")
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("/metrics lacks %s", w)
		}
	}
}

// checkExemplar: a histogram that events are instances of carries the id of one.
func checkExemplar(t testing.TB, a *agent) {
	t.Helper()
	text := scrape(t, a, "application/openmetrics-text; version=1.0.0")
	for line := range strings.Lines(text) {
		_, ex, ok := strings.Cut(line, ` # {event_id="`)
		if !ok || !strings.HasPrefix(line, "huatuo_runqueue_wait_seconds_bucket") {
			continue
		}
		id, _, _ := strings.Cut(ex, `"`)
		var d signal.Document
		a.eventually(5*time.Second, "the exemplar's event", func() error { // the store keeps it a moment later
			code, body := a.get("/api/v1/events/" + id)
			if code != http.StatusOK {
				return fmt.Errorf("%d %s", code, body)
			}
			return json.Unmarshal([]byte(body), &d)
		})
		if d.Kind != "sched_stall" {
			t.Errorf("the exemplar leads to %+v", d)
		}
		return
	}
	t.Error("no exemplar in the OpenMetrics form of /metrics")
}

// TestPromtool: the live /metrics is clean.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: apt-get install prometheus")
	}
	a := start(t)
	time.Sleep(time.Second)
	c := exec.Command(promtool, "check", "metrics")
	c.Stdin = strings.NewReader(scrape(t, a, "text/plain"))
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestProbesRun: on the development kernel every probe runs, and says how.
func TestProbesRun(t *testing.T) {
	a := start(t)
	var list struct{ Probes []probe.Status }
	a.eventually(20*time.Second, "probes started", func() error {
		a.json("/api/v1/probes", &list)
		for _, p := range list.Probes {
			if p.State == probe.Starting {
				return fmt.Errorf("%s is starting", p.Name)
			}
		}
		return nil
	})
	if len(list.Probes) < 12 {
		t.Errorf("%d probes", len(list.Probes))
	}
	devices := []string{"gpu", "nvme", "rdma", "thermal"} // a machine may have none of them
	for _, p := range list.Probes {
		if p.State == probe.Absent && slices.Contains(devices, p.Name) && p.Reason != "" {
			continue
		}
		if p.State != probe.Running {
			t.Errorf("%s is %s: %s", p.Name, p.State, p.Reason)
		}
		if len(p.Hooks) == 0 || p.Hooks[0].By == "" {
			t.Errorf("%s does not say by which hook it runs", p.Name)
		}
	}
}

// TestStartStop: the first sample is stored within a second of the start on an
// idle machine (two are granted here), SIGTERM ends the agent within 5 s, and
// history outlives a restart.
func TestStartStop(t *testing.T) {
	data := t.TempDir()
	a := startIn(t, data)
	a.eventually(10*time.Second, "first sample", func() error {
		if v, ok := a.query("huatuo_load_average"); !ok || v < 0 {
			return fmt.Errorf("no sample")
		}
		return nil
	})
	var sys struct {
		Cost struct {
			StartSeconds float64 `json:"start_seconds"`
			RSS          float64 `json:"rss_bytes"`
		}
	}
	a.json("/api/v1/system", &sys)
	if s := sys.Cost.StartSeconds; s <= 0 || s > 2 {
		t.Errorf("start to first sample %.2f s", s)
	}
	if sys.Cost.RSS > 120e6 {
		t.Errorf("resident memory %.0f MB", sys.Cost.RSS/1e6)
	}
	if d := a.stop(); d > 5*time.Second {
		t.Errorf("SIGTERM took %v", d)
	}
	time.Sleep(time.Second)
	b := startIn(t, data)
	b.eventually(10*time.Second, "history of both runs", func() error {
		if n, ok := b.query("count_over_time(huatuo_memory_total_bytes[5m])"); !ok || n < 2 {
			return fmt.Errorf("%v samples after the restart, %v", n, ok)
		}
		return nil
	})
}

// TestTwoAgents: a second agent on the same port or the same store says what to do.
func TestTwoAgents(t *testing.T) {
	a := start(t)
	addr := strings.TrimPrefix(a.url, "http://")
	code, _, errs := cli(t, "--listen", addr, "--data", t.TempDir())
	if code == 0 || !strings.Contains(errs, addr[strings.LastIndex(addr, ":")+1:]) || !strings.Contains(errs, "in use") {
		t.Errorf("same port: exit %d, %s", code, errs)
	}
	code, _, errs = cli(t, "--listen", freePort(t), "--data", a.data)
	if code == 0 || !strings.Contains(errs, a.data) {
		t.Errorf("same store: exit %d, %s", code, errs)
	}
}

// TestReload: SIGHUP puts a changed probe's configuration into force, and a
// broken file changes nothing.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "huatuo.yaml")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("probes:\n  loadavg:\n    enabled: true\n")
	a := start(t, "--config", file)
	state := func() probe.State {
		var p struct{ State probe.State }
		a.json("/api/v1/probes/loadavg", &p)
		return p.State
	}
	if s := state(); s != probe.Running {
		t.Fatalf("loadavg is %s", s)
	}
	wait := func(want probe.State) {
		t.Helper()
		a.eventually(5*time.Second, "reload", func() error {
			if s := state(); s != want {
				return fmt.Errorf("loadavg is %s, want %s", s, want)
			}
			return nil
		})
	}
	write("probes:\n  loadavg:\n    enabled: false\n")
	a.cmd.Process.Signal(syscall.SIGHUP)
	wait(probe.Disabled)
	write("probes:\n  loadavg:\n    enbled: true\n")
	a.cmd.Process.Signal(syscall.SIGHUP)
	a.eventually(5*time.Second, "complaint", func() error {
		if !strings.Contains(a.log.String(), "enabled") || !strings.Contains(a.log.String(), "not reloaded") {
			return fmt.Errorf("no complaint in the log")
		}
		return nil
	})
	wait(probe.Disabled)
	write("probes:\n  loadavg:\n    enabled: true\n")
	a.cmd.Process.Signal(syscall.SIGHUP)
	wait(probe.Running)
}

// TestOneProbeFails: a probe that cannot load leaves the others running, and
// says why.
func TestOneProbeFails(t *testing.T) {
	a := start(t, "--set", "kernel.hooks=kprobe") // no BPF probe of the foundation has a kprobe
	var list struct{ Probes []probe.Status }
	a.json("/api/v1/probes", &list)
	running, refused := 0, 0
	for _, p := range list.Probes {
		switch p.State {
		case probe.Running:
			running++
		case probe.Unsupported, probe.Failed:
			refused++
			if p.Reason == "" {
				t.Errorf("%s does not run and does not say why", p.Name)
			}
		}
	}
	if running < 8 || refused < 4 {
		t.Errorf("%d run, %d do not: want the pollers to run and the BPF probes to say why not", running, refused)
	}
	if _, ok := a.query("huatuo_load_average"); !ok {
		a.eventually(10*time.Second, "pollers", func() error {
			if _, ok := a.query("huatuo_load_average"); !ok {
				return fmt.Errorf("no sample")
			}
			return nil
		})
	}
}

// TestErrors: mistakes get an answer that says what to do.
func TestErrors(t *testing.T) {
	needRoot(t)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("stor:\n  dir: /x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--nonsense"}, 2, "--help"},
		{[]string{"agnt"}, 2, "agent"},
		{[]string{"--listen", "nonsense"}, 2, "listen"},
		{[]string{"--listen", "0.0.0.0:0", "--data", t.TempDir()}, 1, "web."},
		{[]string{"--config", "/nonexistent.yaml"}, 2, "/nonexistent.yaml"},
		{[]string{"--config", bad}, 2, "store"},
		{[]string{"--store", "some"}, 2, "none"},
		{[]string{"--set", "nokey=1"}, 2, "nokey"},
		{[]string{"--btf", "/nonexistent"}, 1, "/nonexistent"},
		{[]string{"--data", "/proc/nope"}, 1, "/proc/nope"},
		{[]string{"watch", "oomkil"}, 2, "oom_kill"},
		{[]string{"watch", "drops", "--filter", "tcp prt 443"}, 2, "at column 5"},
		{[]string{"watch", "oom", "--filter", "tcp"}, 2, "takes no packet filter"},
		{[]string{"--set", "probes.netdrop.filter=vlan 5"}, 2, "VLAN"},
		{[]string{"watch", "-o", "xml"}, 2, "json"},
		{[]string{"explain", "runq"}, 2, "runqueue"},
		{[]string{"doctor", "-o", "xml"}, 2, "json"},
	} {
		code, out, errs := cli(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Contains(errs, "goroutine") {
			t.Errorf("huatuo %v: exit %d (want %d), stderr %q (want %q), stdout %q", c.args, code, c.code, errs, c.want, out)
		}
	}
}

// TestNotRoot: an ordinary user is told what is missing.
func TestNotRoot(t *testing.T) {
	needRoot(t)
	c := exec.Command(binary, "watch")
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CAP_BPF") {
		t.Errorf("as nobody: %v, %s", err, out)
	}
}

// TestCLI looks at what the subcommands print.
func TestCLI(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"doctor", "watch", "explain", "--listen", "--btf", "19704"}},
		{[]string{"version"}, []string{"huatuo", "go1."}},
		{[]string{"explain", "runqueue"}, []string{"What it shows", "probes.runqueue.stall", "huatuo_runqueue_wait_seconds"}},
		{[]string{"explain", "sched_stall"}, []string{"wait_seconds", "culprit"}},
		{[]string{"config", "print", "--set", "store.interval=7s"}, []string{"7s", "store:"}},
		{[]string{"config", "sample"}, []string{"# interval:", "runqueue"}},
		{[]string{"doctor"}, []string{"kernel", "runqueue", "tp_btf", "capabilities", "NAMES FROM", "docker"}},
		{[]string{"completion", "bash"}, []string{"complete"}},
	} {
		code, out, errs := cli(t, c.args...)
		if code != 0 {
			t.Errorf("huatuo %v: exit %d, %s", c.args, code, errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("huatuo %v: no %q in\n%s", c.args, w, out)
			}
		}
	}
	code, out, _ := cli(t, "doctor", "-o", "json")
	var doc struct{ Probes []probe.Status }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 || len(doc.Probes) == 0 {
		t.Errorf("doctor -o json: exit %d, %v, %s", code, err, out)
	}
}

// TestWatch: without an agent, one event is printed and the command ends.
func TestWatch(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "watch", "packet_drop", "-o", "json", "-n", "1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop := refuse(t)
	line, _ := bufio.NewReader(out).ReadString('\n')
	stop()
	var d signal.Document
	if err := json.Unmarshal([]byte(line), &d); err != nil || d.Kind != "packet_drop" {
		t.Errorf("watch printed %q: %v", line, err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("watch -n 1 ended with %v", err)
	}
}
