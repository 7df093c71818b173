//go:build !noprofiler

package engine

import (
	"context"
	"debug/elf"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// enough samples that both shares of a right profile are within five points of
// the truth but for one time in three hundred.
const enough = 800

// tolerance is five points, or what chance does to so few samples: another load
// may leave no more in the time that a test has.
func tolerance(samples int) float64 {
	return max(0.05, 3*math.Sqrt(0.75*0.25/float64(samples)))
}

// crowd is programs that run, and their samples.
type crowd struct {
	t     *testing.T
	pids  map[uint32]language
	got   map[string][]*signal.StackSample
	early map[string]int // samples from before the unwinder knew the process and its runtime
	ready time.Time
}

// add starts one.
func (c *crowd) add(l language) {
	args := l.build(c.t, c.t.TempDir())
	c.pids[uint32(start(c.t, args[0], args[1:]...))] = l
}

// take keeps the samples of those that work, until each has enough.
func (c *crowd) take() {
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Minute)
	defer cancel()
	err := Run(ctx, Options{
		Hertz: 199, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Symbols: symbol.New(symbol.Options{}),
		Ready: func() { c.ready = time.Now() },
		Emit: func(s *signal.StackSample) {
			if c.keep(s) {
				cancel()
			}
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// keep keeps a sample, and tells whether there are enough of all. A program that
// has them ends, and leaves its time to the others.
func (c *crowd) keep(s *signal.StackSample) (done bool) {
	l, ok := c.pids[s.PID]
	if !ok || l.thread != "" && s.Thread != l.thread {
		return false
	}
	if len(c.got[l.name]) == 0 && !l.known(s) { // a new process, or a runtime that starts
		c.early[l.name]++
		return false
	}
	if len(c.got[l.name]) < enough {
		c.got[l.name] = append(c.got[l.name], s)
	}
	if len(c.got[l.name]) == enough {
		syscall.Kill(int(s.PID), syscall.SIGKILL)
	}
	want := enough
	if time.Since(c.ready) > time.Minute {
		want = 200
	}
	for _, l := range c.pids {
		if len(c.got[l.name]) < want {
			return false
		}
	}
	return true
}

// known tells whether a sample shows that the unwinder knows the program: it takes
// up to a second to learn of a new one, and longer until a runtime has started.
func (l *language) known(s *signal.StackSample) bool {
	one := []*signal.StackSample{s}
	return settled(s) && (l.bare || shareOf(one, l.heavy)+shareOf(one, l.light) > 0)
}

// TestKernelLanguages: in each language the functions have the share of time
// that they take, ± 5 points, and the names, files and threads are theirs.
func TestKernelLanguages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c := &crowd{t: t, pids: map[uint32]language{}, got: map[string][]*signal.StackSample{}, early: map[string]int{}}
	all := languages()
	for _, l := range all {
		if why := l.missing(); why != "" {
			t.Run(l.name, func(t *testing.T) { t.Skip(why) })
			continue
		}
		c.add(l)
	}
	if len(c.pids) == 0 {
		t.Skip("needs a compiler or an interpreter: run `make deps`")
	}
	c.take()
	for _, l := range all {
		if l.missing() == "" {
			t.Run(l.name, func(t *testing.T) {
				if len(c.got[l.name]) < 200 {
					t.Fatalf("%d samples, and %d without callers", len(c.got[l.name]), c.early[l.name])
				}
				l.check(t, c.got[l.name])
			})
		}
	}
	if file := os.Getenv("HUATUO_LANGUAGES_PAGE"); file != "" && !t.Failed() {
		if err := os.WriteFile(file, []byte(c.page(all)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// page is docs/reference/languages.md.
func (c *crowd) page(all []language) string {
	var b strings.Builder
	b.WriteString(`# Languages

Made by ` + "`make languages`" + `: in each language a program runs that spends 75 % of its time in one function and 25 % in another, all on the same CPUs at once.
The profile must show both shares within five points, with names, files and lines as told here; the same test runs in CI, and for some of them in containers of Docker and podman.

| language | tested | supported | heavy / light | names | file:line | inlined functions | limits |
|---|---|---|---|---|---|---|---|
`)
	for _, l := range all {
		samples := c.got[l.name]
		if samples == nil {
			c.t.Errorf("no line of %s: %s", l.name, l.missing())
			continue
		}
		names, lines, shares := "yes", "no", fmt.Sprintf("%.0f / %.0f %%", 100*shareOf(samples, l.heavy), 100*shareOf(samples, l.light))
		if l.file != "" && !l.noLines && !l.native {
			lines = "yes"
		}
		if l.native || l.bare {
			names, shares = "no", "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", l.name, versionOf(c.t, l.version), l.page.supported, shares, names, lines, l.page.inlined, l.page.limits)
	}
	b.WriteString(`
Not supported by the unwinder, or not in the versions that Debian 12 has: Erlang before OTP 27 (Debian has 25: native frames only), LuaJIT (its stacks end with
"generated code of an unknown runtime"), Lua (the interpreter's own functions in C). Code of a JIT compiler that writes ` + "`/tmp/perf-PID.map`" + ` has the names in it in events, not in profiles.

Of a new process the first samples, up to a second, have no callers: "the process was not known yet".
`)
	return b.String()
}

// TestLanguagesPage: the page has what is said here of each language.
func TestLanguagesPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/reference/languages.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range languages() {
		i := strings.Index(string(b), "| "+l.name+" |")
		if i < 0 {
			t.Errorf("nothing of %s: run `make languages`", l.name)
			continue
		}
		line, _, _ := strings.Cut(string(b)[i:], "\n")
		for _, want := range []string{"| " + l.page.supported + " |", "| " + l.page.inlined + " |", "| " + l.page.limits + " |"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s has no %q: run `make languages`", l.name, want)
			}
		}
	}
}

// versionOf is the first thing with a dot and digits in what a command prints.
func versionOf(t *testing.T, args []string) string {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v: %s", args, err, out)
	}
	return regexp.MustCompile(`[0-9]+(\.[0-9]+)+`).FindString(string(out))
}

// missing is why a language cannot be tested here, "" when it can.
func (l *language) missing() string {
	if strings.HasPrefix(l.needs, "HUATUO_") {
		if os.Getenv(l.needs) == "" {
			return fmt.Sprintf("needs %s: run `make languages`, which gets %s", l.needs, l.pkg)
		}
	} else if _, err := exec.LookPath(l.needs); err != nil {
		return fmt.Sprintf("needs %s: install %s", l.needs, l.pkg)
	}
	return ""
}

// check compares the shares, and what is known of the frames.
func (l *language) check(t *testing.T, samples []*signal.StackSample) {
	if l.bare {
		samples = renamed(t, samples)
	}
	heavy, light := shareOf(samples, l.heavy), shareOf(samples, l.light)
	t.Logf("heavy %.3f, light %.3f of %d samples of %s", heavy, light, len(samples), samples[0].Exe)
	if l.native {
		l.checkNative(t, samples)
		return
	}
	if off := tolerance(len(samples)); math.Abs(heavy-0.75) > off || math.Abs(light-0.25) > off {
		t.Errorf("heavy %.3f, light %.3f; want 0.75 and 0.25 ± %.2f", heavy, light, off)
		t.Log(describe(samples[0]), describe(samples[len(samples)-1]))
	}
	if l.inlined != "" && shareOf(samples, l.inlined) < 0.1 {
		t.Errorf("%.3f of the samples are in %s, which is inlined", shareOf(samples, l.inlined), l.inlined)
	}
	if l.file == "" {
		return
	}
	frames, placed := 0, 0
	var wrong signal.Frame
	for _, s := range samples {
		for _, f := range s.Stack.Frames {
			if !isFunction(&f, l.heavy) {
				continue
			}
			frames++
			if filepath.Base(f.File) == l.file && (f.Line == 0) == l.noLines {
				placed++
			} else {
				wrong = f
			}
		}
	}
	// Tables of lines are read after those of names.
	if float64(placed) < 0.8*float64(frames) {
		t.Errorf("%d of %d frames have a line of %s; one that has not: %+v", placed, frames, l.file, wrong)
	}
}

// checkNative: the interpreter's own stack is whole and named as far as its
// symbols go, and nothing is said of the language's functions.
func (l *language) checkNative(t *testing.T, samples []*signal.StackSample) {
	if in := shareOf(samples, l.heavy); in < 0.95 {
		t.Errorf("%.3f of the samples are in %s, want all", in, l.heavy)
	}
	for _, s := range samples {
		for _, f := range s.Stack.Frames {
			if strings.HasSuffix(f.File, l.file) {
				t.Fatalf("%+v: it is named now; docs/reference/languages.md says it is not", f)
			}
		}
	}
}

// renamed gives the frames of a stripped program the names that the symbols
// beside it have for their offsets, as can be done later with what is kept of
// them: build id, offset and why there is no name.
func renamed(t *testing.T, samples []*signal.StackSample) (named []*signal.StackSample) {
	t.Helper()
	exe := samples[0].Exe
	f, err := elf.Open(filepath.Join(filepath.Dir(exe), "shares"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		stack := *s.Stack
		stack.Frames = slices.Clone(stack.Frames)
		for i := range stack.Frames {
			f := &stack.Frames[i]
			if f.Module != exe {
				continue
			}
			if f.Function != symbol.Unknown || f.Missing == "" || f.Offset == 0 || len(f.BuildID) != 40 {
				t.Fatalf("frame %+v, want build id, offset and reason", *f)
			}
			for _, sym := range symbols {
				if elf.ST_TYPE(sym.Info) == elf.STT_FUNC && f.Offset >= sym.Value && f.Offset < sym.Value+sym.Size {
					f.Function = sym.Name
				}
			}
		}
		x := *s
		x.Stack = &stack
		named = append(named, &x)
	}
	return named
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
			if isFunction(&f, function) {
				in += s.Value
				break
			}
		}
	}
	return float64(in) / float64(max(total, 1))
}

func isFunction(f *signal.Frame, function string) bool {
	name, _, _ := strings.Cut(f.Function, "(")
	return name == function || strings.HasSuffix(name, "."+function) || strings.HasSuffix(name, " "+function)
}
