package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
	double "huatuo/test/doubles/pyroscope"
)

// spinner starts a Python program that spends its time in a function of that
// name.
func spinner(t *testing.T, function string) int {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	c := exec.Command(python, "-c", fmt.Sprintf("def %[1]s(n):\n  s = 0\n  for i in range(n): s += i\n  return s\nwhile True: %[1]s(100000)", function))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process.Pid
}

// TestProfileCommand: huatuo profile names the function that takes the time, and
// go tool pprof reads what it writes.
func TestProfileCommand(t *testing.T) {
	needRoot(t)
	pid := spinner(t, "busy_in_profile")
	file := filepath.Join(t.TempDir(), "cpu.pb.gz")
	code, out, errs := cli(t, "profile", "cpu", "--pid", fmt.Sprint(pid), "--for", "8s", "-o", file)
	if code != 0 || !strings.Contains(out, "busy_in_profile") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
	if err != nil || !strings.Contains(string(top), "busy_in_profile") || !strings.Contains(string(top), "Type: cpu") {
		t.Errorf("%v: %s", err, top)
	}
	for _, bad := range []struct{ args, want string }{
		{"profile", "name what to profile: io, lock, mem, offcpu, cpu"},
		{"profile nonsense", "there are: io, lock, mem, offcpu, cpu"},
		{"profile cpu -o x.gif", "end it in .pb.gz"},
		{"profile cpu --hz 5000", "want 1 to 999"},
		{"profile cpu --for 0s", "want more than 0"},
	} {
		if code, _, errs := cli(t, strings.Fields(bad.args)...); code != 2 || !strings.Contains(errs, bad.want) {
			t.Errorf("%s: exit %d, %s", bad.args, code, errs)
		}
	}
}

// TestProfileUnits: waits for locks come with how many there were, in the table
// and as a sample type of the same stacks; the API keeps both.
func TestProfileUnits(t *testing.T) {
	needRoot(t)
	c := exec.Command("python3", "-c", `import threading, time
lock = threading.Lock()
def work():
  while True:
    with lock: time.sleep(0.02)
for _ in range(3): threading.Thread(target=work).start()`)
	if err := c.Start(); err != nil {
		t.Skipf("needs python3: %v", err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	file := filepath.Join(t.TempDir(), "lock.pb.gz")
	code, out, errs := cli(t, "profile", "lock", "--pid", fmt.Sprint(c.Process.Pid), "--for", "8s", "-o", file)
	if code != 0 || !strings.Contains(out, " contentions in ") || !strings.Contains(out, "CONTENTIONS") {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	raw, err := exec.Command("go", "tool", "pprof", "-raw", file).CombinedOutput()
	if err != nil || !strings.Contains(string(raw), "samples/count lock/nanoseconds[dflt] lock.contentions/count") {
		t.Errorf("%v: %.1000s", err, raw)
	}
	a := start(t, "--set", "profiles.enabled=true")
	q := "&pid=" + fmt.Sprint(c.Process.Pid)
	var g signal.FlameGraph
	a.eventually(90*time.Second, "contentions", func() error {
		if a.json("/api/v1/profiles/flame?type=lock.user.contentions"+q, &g); g.Total < 20 || g.Unit != "count" {
			return fmt.Errorf("%d of the unit %q", g.Total, g.Unit)
		}
		return nil
	})
	var long signal.FlameGraph
	a.json("/api/v1/profiles/flame?type=lock.user"+q, &long)
	if one := float64(long.Total) / float64(g.Total); one < 10e6 || one > 200e6 {
		t.Errorf("a wait takes %.3g ns on average, of %d; want some 40 ms", one, g.Total)
	}
	var heat struct{ Values []int64 }
	if a.json("/api/v1/profiles/heat?type=lock.user.contentions&column=1"+q, &heat); len(heat.Values) == 0 {
		t.Error("no heat map of contentions")
	}
	if code, b := a.get("/api/v1/profiles/download?type=io.block.bytes&format=folded" + q); code != 200 {
		t.Errorf("download of bytes: %d %.300s", code, b)
	}
}

// TestProfiles: the agent keeps stacks with whose they are; the API gives them
// as a tree, by time, by label and as files.
func TestProfiles(t *testing.T) {
	needRoot(t)
	data := t.TempDir()
	a := startIn(t, data, "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=97")
	q := "pid=" + fmt.Sprint(spinner(t, "busy_in_agent"))
	var g signal.FlameGraph
	a.eventually(90*time.Second, "stacks with the function", func() error {
		a.json("/api/v1/profiles/flame?"+q, &g)
		var in int64
		for _, n := range g.Nodes {
			if g.Frames[n.Frame].Function == "busy_in_agent" {
				in += n.Total
			}
		}
		if g.Samples < 50 || float64(in) < 0.5*float64(g.Total) {
			return fmt.Errorf("%d samples, %d of %d in the function", g.Samples, in, g.Total)
		}
		return nil
	})
	if g.Unit != "nanoseconds" || g.Type != "cpu" {
		t.Errorf("%s in %s", g.Type, g.Unit)
	}
	var series struct{ Series []signal.ProfileSeries }
	a.json("/api/v1/profiles/series?by=process&"+q, &series)
	if len(series.Series) != 1 || !strings.HasPrefix(series.Series[0].Labels["process"], "python3") {
		t.Errorf("series %+v", series)
	}
	var heat struct{ Values []int64 }
	a.json("/api/v1/profiles/heat?column=1&"+q, &heat)
	var sum int64
	for _, v := range heat.Values {
		sum += v
	}
	if sum < g.Total {
		t.Errorf("the columns have %d, the tree had %d", sum, g.Total)
	}
	if code, b := a.get("/api/v1/profiles/download?format=folded&" + q); code != 200 || !strings.Contains(b, ";busy_in_agent") {
		t.Errorf("folded: %d %.300s", code, b)
	}
	checkOTLP(a, q)
	var none signal.FlameGraph
	if a.json("/api/v1/profiles/flame?process=nobody", &none); none.Samples != 0 {
		t.Errorf("of nobody: %d samples", none.Samples)
	}
	if code, b := a.get("/api/v1/profiles/series?by=color"); code != 422 || !strings.Contains(b, "none of the labels") {
		t.Errorf("by=color: %d %.300s", code, b)
	}
	if code, b := a.get("/metrics"); code != 200 || !strings.Contains(b, `huatuo_profile_samples_total{outcome="kept"} `) || !strings.Contains(b, `huatuo_profile_samples_total{outcome="lost"} `) {
		t.Errorf("no count of samples in /metrics: %d", code)
	}
	if _, err := os.Stat(filepath.Join(data, "profiles")); err != nil {
		t.Error(err)
	}
}

// checkOTLP compares what a window has as OTLP with what it has as pprof, and
// sends the file to a server.
func checkOTLP(a *agent, q string) {
	a.t.Helper()
	q = fmt.Sprintf("%s&from=%d&to=%d", q, time.Now().Add(-30*time.Minute).Unix(), time.Now().Unix()-2)
	_, raw := a.get("/api/v1/profiles/download?format=pprof&" + q)
	p, err := profile.ParseData([]byte(raw))
	if err != nil {
		a.t.Fatal(err)
	}
	last := len(p.SampleType) - 1
	var want int64
	for _, s := range p.Sample {
		want += s.Value[last]
	}
	r, err := http.Get(a.url + "/api/v1/profiles/download?format=otlp&" + q)
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	if typ, name := r.Header.Get("Content-Type"), r.Header.Get("Content-Disposition"); typ != "application/x-protobuf" || !strings.Contains(name, ".otlp") {
		a.t.Errorf("%s, %s", typ, name)
	}
	d := double.New(double.Options{})
	to := httptest.NewServer(d)
	defer to.Close()
	answer, err := http.Post(to.URL+"/v1development/profiles", r.Header.Get("Content-Type"), r.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	answer.Body.Close()
	stored := d.Stored()
	if len(stored) != 1 || want == 0 || stored[0].Total != want || p.SampleType[last].Type != "cpu" || !strings.HasSuffix(stored[0].Type, ":cpu:nanoseconds:cpu:nanoseconds") {
		a.t.Errorf("pprof has %d of %s; OTLP: %s, %v, %+v", want, p.SampleType[last].Type, answer.Status, d.Refused(), stored)
	}
}

// TestProfilesOff: without profiles the API says so and what to do.
func TestProfilesOff(t *testing.T) {
	needRoot(t)
	a := start(t, "--set", "profiles.enabled=false")
	var types struct {
		Status struct{ State, Reason string }
	}
	if a.json("/api/v1/profiles/types", &types); types.Status.State != "disabled" || !strings.Contains(types.Status.Reason, "profiles.enabled") {
		t.Errorf("%+v", types)
	}
	if code, b := a.get("/api/v1/profiles/flame"); code != 503 || !strings.Contains(b, "profiles.enabled") {
		t.Errorf("%d %s", code, b)
	}
}

// TestProfilesNotRoot: an ordinary user is told once why there are no profiles,
// and the rest of the agent works.
func TestProfilesNotRoot(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "huatuo-nobody-") // where he can get to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	if err := os.Chown(data, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	log := &syncBuffer{}
	c := exec.Command(binary, "--listen", addr, "--data", data)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	a := &agent{t: t, url: "http://" + addr, log: log}
	a.eventually(20*time.Second, "the reason why there are no profiles", func() error {
		r, err := http.Get(a.url + "/api/v1/profiles/types")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || !strings.Contains(string(b), `"state":"unsupported"`) || !strings.Contains(string(b), "CAP_BPF") {
			return fmt.Errorf("%.300s, %v", b, err)
		}
		return nil
	})
	c.Process.Signal(syscall.SIGTERM)
	c.Wait()
	if n := strings.Count(log.String(), "there are no profiles"); n != 1 || strings.Contains(log.String(), "no stacks are being taken") {
		t.Errorf("the log tells it %d times:\n%s", n, log.String())
	}
}
