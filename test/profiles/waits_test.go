package profiles

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// program is one of testdata: it works on nothing in begin until a file is
// there, then does its work, and tells in lines of a name and a number how much
// that was by its own clock.
type program struct {
	args  []string
	flag  string
	pid   int
	ended chan struct{}
	told  map[string]float64
}

// begin starts a program; it works on nothing until there is a file of the flag's name.
func begin(t *testing.T, flag string, args ...string) *program {
	t.Helper()
	p := &program{args: args, flag: flag, ended: make(chan struct{}), told: map[string]float64{}}
	c := exec.Command(args[0], args[1:]...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	p.pid = c.Process.Pid
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan() && s.Text() != "end"; {
			name, value, _ := strings.Cut(s.Text(), " ")
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				p.told[name] = n
			}
		}
	}()
	return p
}

// work lets the program begin once the agent knows its functions, and waits for
// its end. It returns when that began.
func (p *program) work(a *agent) time.Time {
	a.t.Helper()
	from := time.Now().Add(-time.Minute)
	a.eventually(90*time.Second, "samples of begin", func() error {
		g := a.flame("cpu", p.pid, from)
		if value(g, "begin") == 0 {
			return fmt.Errorf("none among %d samples", g.Samples)
		}
		return nil
	})
	began := time.Now()
	if err := os.WriteFile(p.flag, nil, 0o600); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		a.t.Fatalf("%q does not end", p.args)
	}
	return began
}

// value sums what has a function on its stack, of whatever class or package.
func value(g *signal.FlameGraph, function string) (sum int64) {
	in := make([]bool, len(g.Nodes))
	for i, n := range g.Nodes {
		inside := n.Parent >= 0 && in[n.Parent]
		in[i] = inside || is(g.Frames[n.Frame].Function, function)
		if in[i] && !inside {
			sum += n.Total
		}
	}
	return sum
}

func is(name, function string) bool {
	name, _, _ = strings.Cut(name, "(")
	return name == function || strings.HasSuffix(name, "."+function)
}

// settled asks for types until all samples are there: names may take seconds.
func (a *agent) settled(p *program, from time.Time, function string, types ...string) (sum float64) {
	a.t.Helper()
	same := 0
	a.eventually(30*time.Second, "a profile that does not change", func() error {
		var now float64
		for _, typ := range types {
			now += float64(value(a.flame(typ, p.pid, from), function))
		}
		if now != sum || now == 0 {
			same, sum = 0, now
		}
		if same++; same < 15 {
			return fmt.Errorf("%.4g of %s in %q", now, function, types)
		}
		return nil
	})
	return sum
}

// need skips a test that lacks a program.
func need(t *testing.T, programs ...string) {
	t.Helper()
	needRoot(t)
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: run `make deps`", p)
		}
	}
}

// TestWaits: programs in four languages wait for known times; the profiles have
// them in the functions that waited, within ten percent. What a program measures
// of a wait has the wait for a CPU behind it.
func TestWaits(t *testing.T) {
	needRoot(t)
	a := start(t, "cpu,offcpu.blocked,offcpu.runqueue,offcpu.idle,lock.user,io.file", "--set", "profiles.rate=1000",
		"--set", "profiles.wait=1ms") // short waits weigh little one by one: nearly all are taken
	for _, w := range []struct {
		name, needs, function, typ string
		command                    func(t *testing.T, dir, flag string) []string
		also                       func(t *testing.T, a *agent, p *program, from time.Time)
	}{
		{"python, a pipe", "/usr/bin/python3", "wait_for_pipe", "offcpu.blocked", func(t *testing.T, dir, flag string) []string {
			return []string{"/usr/bin/python3", "testdata/waits.py", flag}
		}, nil},
		{"java, a monitor", "javac", "waitForMonitor", "lock.user", javaWaits, nil},
		{"go, a pipe", "go", "waitForPipe", "offcpu.blocked", goWaits, noChannels},
		{"node, a slow disk", "node", "writeSlowly", "io.file", nodeWaits, nil},
	} {
		t.Run(w.name, func(t *testing.T) {
			need(t, w.needs)
			a := &agent{t: t, pid: a.pid, url: a.url}
			dir := t.TempDir()
			flag := filepath.Join(dir, "begin")
			p := begin(t, flag, w.command(t, dir, flag)...)
			from := p.work(a)
			want := p.told[w.function]
			sides := []string{w.typ, "offcpu.runqueue"}
			if w.needs == "javac" {
				sides = append(sides, "cpu") // HotSpot spins before it sleeps
			}
			alone, got := a.settled(p, from, w.function, w.typ), a.settled(p, from, w.function, sides...)
			t.Logf("%s of %s: %.4g, with what goes with it %.4g, the program measured %.4g", w.typ, w.function, alone, got, want)
			if want < 2e9 || got < 0.9*want || got > 1.1*want || alone < 0.5*want {
				t.Errorf("%s of %s: %.4g, want %.4g ± 10 %%", w.typ, w.function, got, want)
				for _, f := range a.flame(w.typ, p.pid, from).Frames {
					t.Logf("%+v", f)
				}
			}
			if w.also != nil {
				w.also(t, a, p, from)
			}
		})
	}
}

func javaWaits(t *testing.T, dir, flag string) []string {
	build(t, "javac", "-d", dir, "testdata/Waits.java")
	return []string{"java", "-cp", dir, "Waits", flag}
}

func goWaits(t *testing.T, dir, flag string) []string {
	build(t, "cp", "testdata/waits.go.txt", dir+"/main.go")
	build(t, "go", "build", "-o", dir+"/waits", dir+"/main.go")
	return []string{dir + "/waits", flag}
}

// nodeWaits has the program write to a file whose every write takes 60 ms.
func nodeWaits(t *testing.T, dir, flag string) []string {
	mount := filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := slowdisk.Mount(mount, 1<<20)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	d.SetDelay(60 * time.Millisecond)
	return []string{"node", "testdata/waits.js", flag, d.Path}
}

// noChannels: a goroutine that waits for a channel is no thread that waits.
// docs/reference/languages.md says so.
func noChannels(t *testing.T, a *agent, p *program, from time.Time) {
	for _, typ := range []string{"offcpu.blocked", "lock.user", "offcpu.idle"} {
		if v := value(a.flame(typ, p.pid, from), "waitForChannel"); v != 0 {
			t.Errorf("%d of a wait for a channel in %s: it is seen now, and the documentation says that it is not", v, typ)
		}
	}
}

func build(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// TestLeaks: memory that is not given back is found where it is leaked, in the
// very line.
func TestLeaks(t *testing.T) {
	needRoot(t)
	a := start(t, "cpu,mem.inuse", "--set", "profiles.rate=1000")
	for _, l := range []struct {
		name, needs, file string
		line              int
	}{
		{"python", "/usr/bin/python3", "leak.py", 15},
		{"node", "node", "leak.js", 12},
	} {
		t.Run(l.name, func(t *testing.T) {
			need(t, l.needs)
			a := &agent{t: t, pid: a.pid, url: a.url}
			flag := filepath.Join(t.TempDir(), "begin")
			p := begin(t, flag, l.needs, "testdata/"+l.file, flag)
			from := p.work(a)
			var g *signal.FlameGraph
			a.eventually(90*time.Second, "memory in use of leak", func() error { // it counts after half a minute
				g = a.flame("mem.inuse", p.pid, from)
				if v := float64(value(g, "leak")); v < 0.5*p.told["leak"] {
					return fmt.Errorf("%.4g of %.4g bytes, %.4g in all", v, p.told["leak"], float64(g.Total))
				}
				return nil
			})
			in, other := value(g, "leak"), value(g, "churn")
			t.Logf("leak %d, churn %d, all %d of %.0f bytes", in, other, g.Total, p.told["leak"])
			if float64(in) > 1.4*p.told["leak"] || other > in/4 {
				t.Errorf("leak has %d bytes and churn %d; %.0f were leaked", in, other, p.told["leak"])
			}
			var there int64
			for _, n := range g.Nodes {
				if f := g.Frames[n.Frame]; is(f.Function, "leak") && filepath.Base(f.File) == l.file && f.Line == l.line {
					there += n.Total
				}
			}
			if float64(there) < 0.9*float64(in) {
				t.Errorf("%d of %d bytes are in line %d", there, in, l.line)
			}
		})
	}
}
