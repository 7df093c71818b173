package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// ready starts a program that prints a line when it is ready.
func ready(t *testing.T, args ...string) int {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		os.Remove(fmt.Sprintf("/tmp/.java_pid%d", c.Process.Pid))
	})
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("%v: %q, %v", args, line, err)
	}
	go io.Copy(io.Discard, r)
	return c.Process.Pid
}

const runtimeData = "../../internal/profile/runtimes/testdata/"

// goServer starts a Go program that serves its profiles: it has leaked in main.leak,
// and waited for a mutex that main.hold held.
func goServer(t *testing.T) int {
	t.Helper()
	src, err := os.ReadFile(runtimeData + "serve.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	main, bin := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "serve")
	if err := os.WriteFile(main, src, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("go", "build", "-o", bin, main).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, b)
	}
	return ready(t, bin, "127.0.0.1:0")
}

// javaProgram starts a JVM with 4321 objects of class Kept$Thing.
func javaProgram(t *testing.T) int {
	t.Helper()
	for _, c := range []string{"javac", "java"} {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("needs %s: apt-get install default-jdk-headless", c)
		}
	}
	dir := t.TempDir()
	if b, err := exec.Command("javac", "-d", dir, runtimeData+"Kept.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, b)
	}
	return ready(t, "java", "-cp", dir, "Kept")
}

// ask posts without a body, and returns the status and the answer.
func (a *agent) ask(path string, header ...string) (int, string) {
	a.t.Helper()
	r, err := http.NewRequest(http.MethodPost, a.url+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for h := range slices.Chunk(header, 2) {
		r.Header.Set(h[0], h[1])
	}
	answer, err := (&http.Client{Timeout: 90 * time.Second}).Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// pprofTop is what go tool pprof makes of a file.
func pprofTop(t *testing.T, file, sample string) string {
	t.Helper()
	top, err := exec.Command("go", "tool", "pprof", "-top", "-sample_index="+sample, file).CombinedOutput()
	if err != nil {
		t.Errorf("go tool pprof %s: %v: %s", file, err, top)
	}
	return string(top)
}

// TestRuntimeProfiles: the API lists a Go program and a JVM, tells what they offer,
// and gives their profiles in the forms of other profiles; with profiling itself off.
func TestRuntimeProfiles(t *testing.T) {
	a := start(t)
	server, jvm := goServer(t), javaProgram(t)
	var list struct{ Processes []signal.RuntimeProcess }
	a.json("/api/v1/profiles/runtimes", &list)
	for pid, runtime := range map[int]string{server: "go", jvm: "jvm"} {
		if !slices.ContainsFunc(list.Processes, func(p signal.RuntimeProcess) bool { return int(p.PID) == pid && p.Runtime == runtime }) {
			t.Errorf("no %s process %d in %+v", runtime, pid, list.Processes)
		}
	}
	a.json(fmt.Sprintf("/api/v1/profiles/runtimes?pid=%d", a.cmd.Process.Pid), &list)
	if len(list.Processes) != 1 || list.Processes[0].Runtime != "go" || len(list.Processes[0].Profiles) != 0 {
		t.Errorf("the agent itself: %+v", list.Processes)
	}
	path := "/api/v1/profiles/runtimes/" + fmt.Sprint(server)
	if code, b := a.ask(path); code != 200 || strings.Count(b, `"at":"http://127.0.0.1:`) != 5 || !strings.Contains(b, `"name":"mutex"`) {
		t.Errorf("%d %s", code, b)
	}
	for _, tt := range []struct{ path, sample, want string }{
		{path + "/heap?collect=true", "inuse_space", "main.leak"},
		{path + "/mutex", "delay", "main.hold"},
		{fmt.Sprintf("/api/v1/profiles/runtimes/%d/classes", jvm), "instances", "4321"},
		{fmt.Sprintf("/api/v1/profiles/runtimes/%d/classes", jvm), "space", "Kept$Thing"},
	} {
		code, b := a.ask(tt.path)
		file := filepath.Join(t.TempDir(), "out.pb.gz")
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil || code != 200 {
			t.Fatalf("%s: %d %.300s %v", tt.path, code, b, err)
		}
		if top := pprofTop(t, file, tt.sample); !strings.Contains(top, tt.want) {
			t.Errorf("%s: no %s in\n%s", tt.path, tt.want, top)
		}
	}
	for format, want := range map[string]string{"folded": ";main.leak ", "svg": "<svg", "speedscope": `"exporter":"huatuo"`, "json": `"unit":"bytes"`} {
		if code, b := a.ask(path + "/heap?format=" + format); code != 200 || !strings.Contains(b, want) || !strings.Contains(b, "main.leak") {
			t.Errorf("%s: %d %.300s", format, code, b)
		}
	}
	if code, b := a.ask(fmt.Sprintf("/api/v1/profiles/runtimes/%d/heap", jvm)); code != 404 || !strings.Contains(b, "it runs jvm, which has classes") {
		t.Errorf("heap of a JVM: %d %s", code, b)
	}
	if code, b := a.ask(path+"/heap", "Sec-Fetch-Site", "cross-site"); code != 403 {
		t.Errorf("from another page: %d %s", code, b)
	}
}

// TestRuntimesOff: with profiles.runtimes off nobody is asked, and the key is named.
func TestRuntimesOff(t *testing.T) {
	a := start(t, "--set", "profiles.runtimes=false")
	path := "/api/v1/profiles/runtimes"
	if code, b := a.get(path); code != 403 || !strings.Contains(b, "profiles.runtimes is false") {
		t.Errorf("%d %s", code, b)
	}
	if code, b := a.ask(path + "/1/heap"); code != 403 || !strings.Contains(b, "profiles.runtimes is false") {
		t.Errorf("%d %s", code, b)
	}
	t.Setenv("HUATUO_PROFILES_RUNTIMES", "false")
	if code, out, errs := cli(t, "profile", "runtime"); code != 1 || !strings.Contains(errs, "profiles.runtimes is false") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

// TestRuntimeCommand: huatuo profile runtime lists, tells, prints and writes, without
// an agent, and a process that is neither lives on.
func TestRuntimeCommand(t *testing.T) {
	needRoot(t)
	server, jvm := fmt.Sprint(goServer(t)), fmt.Sprint(javaProgram(t))
	file := filepath.Join(t.TempDir(), "out.pb.gz")
	for _, tt := range []struct{ args, want string }{
		{"profile runtime", server + " "},
		{"profile runtime", jvm + " "},
		{"profile runtime --pid " + server, "/debug/pprof/mutex"},
		{"profile runtime --pid " + server + " heap -o " + file, "main.leak (serve)"},
		{"profile runtime --pid " + server + " goroutine", "main.await"},
		{"profile runtime --pid " + server + " block -o -", ";main.hold;"},
		{"profile runtime --pid " + jvm, "/tmp/.java_pid" + jvm},
		{"profile runtime --pid " + jvm + " classes --sample instances", "Kept$Thing (jvm)"},
	} {
		if code, out, errs := cli(t, strings.Fields(tt.args)...); code != 0 || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit %d, no %q in %s%s", tt.args, code, tt.want, out, errs)
		}
	}
	if top := pprofTop(t, file, "inuse_space"); !strings.Contains(top, "main.leak") {
		t.Error(top)
	}
	other := ready(t, "sh", "-c", "echo ready; exec sleep 600")
	for _, bad := range []struct {
		args string
		code int
		want string
	}{
		{fmt.Sprintf("profile runtime --pid %d", other), 1, "neither a Go program nor a JVM"},
		{fmt.Sprintf("profile runtime --pid %d classes", other), 1, "neither a Go program nor a JVM"},
		{"profile runtime heap", 2, "name the process by --pid"},
		{"profile runtime --pid 1 -o x.svg", 2, "name a profile"},
		{"profile runtime --pid " + server + " cpu", 1, `no profile "cpu"`},
		{"profile runtime heap mutex --pid 1", 2, "want one profile"},
	} {
		if code, _, errs := cli(t, strings.Fields(bad.args)...); code != bad.code || !strings.Contains(errs, bad.want) {
			t.Errorf("%s: exit %d, %s", bad.args, code, errs)
		}
	}
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", other)); err != nil {
		t.Errorf("the process that is neither has ended: %v", err)
	}
}
