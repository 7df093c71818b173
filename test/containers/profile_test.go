package containers

import (
	"fmt"
	"math"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// sources are the programs that spend three quarters of their time in heavy and
// a quarter in light.
const sources = "../../internal/profile/engine/testdata/"

// workload is one of them in a container.
type workload struct {
	name         string
	needs        string
	build        [][]string // commands; OUT stands for the directory that becomes /app
	run          []string   // in the container
	process      string     // label of its samples
	thread       string     // name of the thread that works
	heavy, light string
	interpreter  string // of the host, a copy of which is in the container's own file system: the unwinder knows it by its name
}

func workloads() []workload {
	return []workload{
		{name: "in-c", needs: "gcc", build: [][]string{{"gcc", "-O2", "-fomit-frame-pointer", "-pthread", "-o", "OUT/shares", sources + "shares.c"}},
			run: []string{"/app/shares"}, process: "shares", thread: "worker", heavy: "heavy", light: "light"},
		{name: "in-go", needs: "go", build: [][]string{{"cp", sources + "shares.go.txt", "OUT/main.go"}, {"go", "build", "-ldflags=-s -w", "-o", "OUT/goshares", "OUT/main.go"}},
			run: []string{"/app/goshares"}, process: "goshares", heavy: "main.heavy", light: "main.light"},
		{name: "in-python", needs: "/usr/bin/python3.11", build: [][]string{{"cp", sources + "shares.py", "OUT"}},
			run: []string{"/app/python3.11", "/app/shares.py"}, process: "python3.11", heavy: "heavy", light: "light", interpreter: "/usr/bin/python3.11"},
		{name: "in-node", needs: "/usr/bin/node", build: [][]string{{"cp", sources + "shares.js", "OUT"}},
			run: []string{"/usr/bin/node", "/app/shares.js"}, process: "node", heavy: "heavy", light: "light"},
		{name: "in-java", needs: "javac", build: [][]string{{"javac", "-d", "OUT", sources + "Shares.java"}},
			run: []string{"/usr/bin/java", "-XX:CompileCommand=quiet", "-XX:CompileCommand=dontinline,Shares::heavy", "-XX:CompileCommand=dontinline,Shares::light", "-cp", "/app", "Shares"}, process: "java", thread: "worker", heavy: "double Shares.heavy(int)", light: "double Shares.light(int)"},
	}
}

// make builds the program and returns the directory that becomes /app.
func (w *workload) make(t *testing.T) string {
	dir := t.TempDir()
	for _, args := range w.build {
		args = append([]string(nil), args...)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "OUT", dir)
		}
		command(t, args[0], args[1:]...)
	}
	if w.interpreter != "" {
		command(t, "cp", w.interpreter, dir)
	}
	return dir
}

// hostFiles are mounts that give a container the host's libraries and
// interpreters; the programs are in its own file system.
func hostFiles() (args []string) {
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/etc/alternatives", "/etc/java-17-openjdk"} {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			args = append(args, "-v", real+":"+dir+":ro")
		}
	}
	return args
}

// inContainer starts the workload in a container of that name, and takes it
// back at the end.
func (w *workload) inContainer(c *cli, t *testing.T, name string) {
	args := append(append([]string{"create", "--name", name}, c.run...), hostFiles()...)
	c.do(append(append(args, "-e", "PYTHONHOME=/usr", imageName), w.run...)...)
	c.do("cp", w.make(t)+"/.", name+":/app")
	c.do("start", name)
}

func there(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// flame asks for the samples since a moment with these labels.
func (a *agent) flame(from time.Time, labels ...string) *signal.FlameGraph {
	a.t.Helper()
	q := url.Values{"from": {from.UTC().Format(time.RFC3339Nano)}, "min_share": {"0"}}
	for i := 0; i+1 < len(labels); i += 2 {
		q.Set(labels[i], labels[i+1])
	}
	var g signal.FlameGraph
	a.json("/api/v1/profiles/flame?"+q.Encode(), &g)
	return &g
}

// shareIn is the part of the value in stacks with a function that calls no
// function of the same name.
func shareIn(g *signal.FlameGraph, function string) float64 {
	var in int64
	for _, n := range g.Nodes {
		if g.Frames[n.Frame].Function == function {
			in += n.Total
		}
	}
	return float64(in) / float64(max(g.Total, 1))
}

// profiledFor waits until a query has 800 samples, or, where other work leaves
// less time, 200 within a minute.
func (a *agent) profiledFor(from time.Time, labels ...string) (g *signal.FlameGraph) {
	a.t.Helper()
	a.eventually(3*time.Minute, fmt.Sprintf("samples of %q", labels), func() error {
		g = a.flame(from, labels...)
		if g.Samples < 200 || g.Samples < 800 && time.Since(from) < time.Minute {
			return fmt.Errorf("%d samples", g.Samples)
		}
		return nil
	})
	return g
}

// checkShares compares with three quarters and a quarter, ± 5 points, or what
// chance does to so few samples.
func checkShares(t *testing.T, g *signal.FlameGraph, heavy, light string) {
	t.Helper()
	h, l, off := shareIn(g, heavy), shareIn(g, light), max(0.05, 3*math.Sqrt(0.75*0.25/float64(g.Samples)))
	t.Logf("heavy %.3f, light %.3f of %d samples", h, l, g.Samples)
	if math.Abs(h-0.75) > off || math.Abs(l-0.25) > off {
		t.Errorf("heavy %.3f, light %.3f; want 0.75 and 0.25 ± %.2f", h, l, off)
		for _, f := range g.Frames {
			t.Logf("%+v", f)
		}
	}
}

// TestProfiles: programs in containers, which have file systems and pid
// namespaces of their own, have their functions named, with the right shares,
// under their container's name.
func TestProfiles(t *testing.T) {
	c, address := startDocker(t)
	a := startAgent(t, "docker_host: "+address+"\nsources: [docker]", "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=199")
	a.profiling()
	var started []workload
	for _, w := range workloads() {
		if there(w.needs) {
			w.inContainer(c, t, w.name)
			started = append(started, w)
		} else {
			t.Run(w.name, func(t *testing.T) { t.Skipf("needs %s: run `make deps`", w.needs) })
		}
	}
	// A new process takes the unwinder up to a second, and its name up to some more.
	time.Sleep(3 * time.Second)
	from := time.Now()
	for _, w := range started {
		t.Run(w.name, func(t *testing.T) {
			labels := []string{"container", w.name, "process", w.process}
			if w.thread != "" {
				labels = append(labels, "thread", w.thread)
			}
			checkShares(t, a.profiledFor(from, labels...), w.heavy, w.light)
			c.do("kill", w.name) // its time is the others' now
		})
	}
	// Nothing of one container is under another's name.
	var all struct{ Series []signal.ProfileSeries }
	a.json("/api/v1/profiles/series?by=container,process&from="+url.QueryEscape(from.UTC().Format(time.RFC3339Nano)), &all)
	for _, s := range all.Series {
		for _, w := range started {
			if s.Labels["container"] != "" && (s.Labels["process"] == w.process) != (s.Labels["container"] == w.name) {
				t.Errorf("samples of %v", s.Labels)
			}
		}
	}
}

// profiling waits until stacks are taken.
func (a *agent) profiling() {
	a.t.Helper()
	a.eventually(40*time.Second, "profiles", func() error {
		var types struct {
			Status struct{ State, Reason string }
		}
		if a.json("/api/v1/profiles/types", &types); types.Status.State != "running" {
			return fmt.Errorf("%+v", types.Status)
		}
		return nil
	})
}

// TestProfilesPodman: the same with podman, whose containers have no daemon.
func TestProfilesPodman(t *testing.T) {
	c, dir := podmanCLI(t)
	a := startAgent(t, "sources: [podman-store]\npodman_stores: ["+dir+"/root, "+dir+"/run]", "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=199")
	a.profiling()
	for _, w := range workloads()[:3] {
		if w.name == "in-go" || !there(w.needs) {
			continue
		}
		w.inContainer(c, t, "pod-"+w.name)
		time.Sleep(3 * time.Second)
		checkShares(t, a.profiledFor(time.Now(), "container", "pod-"+w.name, "process", w.process), w.heavy, w.light)
		c.do("rm", "-f", "-t", "0", "pod-"+w.name)
	}
}

// TestProfilesCRI: samples of a container of a pod have the pod's names; a
// program without symbols is shown by file and offset.
func TestProfilesCRI(t *testing.T) {
	r := startContainerd(t)
	specs, _ := recordedPods(t)
	a := startAgent(t, "cri_endpoints: [unix://"+r.socket+"]\nsources: [cri]", "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=199")
	a.profiling()
	r.pod(specs[0]).start("busy", 0, 64<<20, "sh", "-c", "while :; do :; done")
	time.Sleep(3 * time.Second)
	g := a.profiledFor(time.Now(), "namespace", "team-a", "pod", specs[0].Metadata.Name, "container", "busy", "process", "busybox")
	var without int64
	for _, n := range g.Nodes {
		if f := g.Frames[n.Frame]; f.Function == "[unknown]" && f.Offset != 0 && f.Missing != "" && strings.HasSuffix(f.Module, "/busybox") {
			without += n.Self
		}
	}
	if float64(without) < 0.3*float64(g.Total) {
		t.Errorf("%d of %d in frames without a name", without, g.Total)
		for _, f := range g.Frames {
			t.Logf("%+v", f)
		}
	}
}
