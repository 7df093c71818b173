//go:build !noprofiler

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"huatuo/internal/signal"
)

// language is a program that spends three quarters of its time in one function
// and a quarter in another, and how to run it.
type language struct {
	name         string
	needs        string // a command, and what has it
	pkg          string
	build        func(t *testing.T, dir string) []string // what to run
	heavy, light string
}

func languages() []language {
	run := func(args ...string) func(*testing.T, string) []string {
		return func(*testing.T, string) []string { return args }
	}
	return []language{
		{"c++", "g++", "g++", func(t *testing.T, dir string) []string {
			return []string{made(t, filepath.Join(dir, "cpp"), "g++", "-O2", "-fomit-frame-pointer", "-o", filepath.Join(dir, "cpp"), "testdata/shares.cpp")}
		}, "Work::heavy", "Work::light"},
		{"go", "go", "Go", func(t *testing.T, dir string) []string {
			src, err := os.ReadFile("testdata/shares.go.txt")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "main.go"), src, 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{made(t, filepath.Join(dir, "gobin"), "go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "gobin"), filepath.Join(dir, "main.go"))}
		}, "main.heavy", "main.light"},
		{"python", "python3", "python3", run("python3", "testdata/shares.py"), "heavy", "light"},
		{"node", "node", "nodejs", run("node", "testdata/shares.js"), "heavy", "light"},
		{"php", "php", "php-cli", run("php", "testdata/shares.php"), "heavy", "light"},
		{"java", "javac", "default-jdk-headless", func(t *testing.T, dir string) []string {
			made(t, filepath.Join(dir, "Shares.class"), "javac", "-d", dir, "testdata/Shares.java")
			return []string{"java", "-cp", dir, "Shares"}
		}, "heavy", "light"},
	}
}

// made runs a compiler and returns what it should have made.
func made(t *testing.T, out string, args ...string) string {
	t.Helper()
	if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, b)
	}
	return out
}

// TestKernelLanguages: in each language the functions have the share of time
// that they take, ± 10 points: 250 samples alone make 5 (two standard deviations),
// and seven programs that share two CPUs make their own time uneven.
func TestKernelLanguages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const want = 250 // samples of each
	pids := map[uint32]string{}
	var there []language
	for _, l := range languages() {
		if _, err := exec.LookPath(l.needs); err != nil {
			t.Run(l.name, func(t *testing.T) { t.Skipf("needs %s: install %s", l.needs, l.pkg) })
			continue
		}
		args := l.build(t, t.TempDir())
		pids[uint32(start(t, args[0], args[1:]...))] = l.name
		there = append(there, l)
	}
	if len(there) == 0 {
		t.Skip("needs a compiler or an interpreter: install one of g++, php-cli, python3, nodejs")
	}
	var mu sync.Mutex
	got := map[string][]*signal.StackSample{}
	enough := 0
	o := Options{Hertz: 199}
	take(t, o, len(there), func(s *signal.StackSample) bool {
		mu.Lock()
		defer mu.Unlock()
		name := pids[s.PID]
		if name == "" || !settled(s) {
			return false
		}
		got[name] = append(got[name], s)
		if len(got[name]) == want {
			enough++
			return true
		}
		return false
	})
	for _, l := range there {
		t.Run(l.name, func(t *testing.T) {
			h, light := shareOf(got[l.name], l.heavy), shareOf(got[l.name], l.light)
			t.Logf("heavy %.3f, light %.3f of %d samples", h, light, len(got[l.name]))
			if total := h + light; total < 0.9 || h/total < 0.65 || h/total > 0.85 {
				t.Errorf("heavy %.3f, light %.3f; want 0.75 and 0.25", h, light)
				t.Log(describe(got[l.name][0]), describe(got[l.name][len(got[l.name])-1]))
			}
		})
	}
}

// settled tells whether the process was known to the unwinder: it takes up to
// a second to learn of a new one.
func settled(s *signal.StackSample) bool {
	for _, f := range s.Stack.Frames {
		if f.Missing == notKnownYet {
			return false
		}
	}
	return true
}

// shareOf is like share, for functions whose name has others around it: a class,
// a package, parameters.
func shareOf(samples []*signal.StackSample, function string) float64 {
	var in, total int64
	for _, s := range samples {
		total += s.Value
		for _, f := range s.Stack.Frames {
			name, _, _ := strings.Cut(f.Function, "(")
			if name == function || strings.HasSuffix(name, "."+function) || strings.HasSuffix(name, " "+function) {
				in += s.Value
				break
			}
		}
	}
	return float64(in) / float64(max(total, 1))
}
