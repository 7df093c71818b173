package symbol

import (
	"bytes"
	"debug/dwarf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// brief shows frames as "function file:line".
func brief(frames []signal.Frame) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "%s %s:%d\n", f.Function, filepath.Base(f.File), f.Line)
	}
	return b.String()
}

// inlinedC is what stands at the address that testdata/inlined.c prints.
const inlinedC = "innermost inlined.c:12\nmiddle inlined.c:19\nouter inlined.c:24\n"

func TestInlinedFrames(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the lines in the sources are those of amd64")
	}
	const c, cc, rs = "testdata/inlined.c", "testdata/inlined.cc", "testdata/inlined.rs"
	inCC := "shop::Cart<int>::add inlined.cc:13\nshop::fill inlined.cc:18\n"
	inRust := "inlined::shop::Cart::add inlined.rs:11\ninlined::shop::fill inlined.rs:16\n"
	for _, tt := range []struct {
		name, compiler, source string
		args                   []string
		want                   string
	}{
		{"gcc, DWARF 5", "gcc", c, []string{"-O2", "-gdwarf-5"}, inlinedC},
		{"gcc, DWARF 4", "gcc", c, []string{"-O2", "-gdwarf-4"}, inlinedC},
		{"gcc, DWARF 2", "gcc", c, []string{"-O2", "-gdwarf-2"}, inlinedC},
		{"gcc, DWARF 2 that does not tell where a call was", "gcc", c, []string{"-O2", "-gdwarf-2", "-gstrict-dwarf"},
			"innermost inlined.c:12\nmiddle .:0\nouter .:0\n"},
		{"gcc, compressed", "gcc", c, []string{"-O2", "-g", "-gz"}, inlinedC},
		{"gcc, a section for each function", "gcc", c, []string{"-O2", "-g", "-ffunction-sections", "-Wl,--gc-sections"}, inlinedC},
		{"gcc, fixed address", "gcc", c, []string{"-O2", "-g", "-no-pie", "-fno-pie"}, inlinedC},
		{"gcc, link-time optimisation", "gcc", c, []string{"-O2", "-g", "-flto"}, inlinedC},
		{"clang, DWARF 5", "clang-19", c, []string{"-O2", "-gdwarf-5"}, inlinedC},
		{"clang, DWARF 4", "clang-19", c, []string{"-O2", "-gdwarf-4"}, inlinedC},
		{"clang, 64-bit DWARF", "clang-19", c, []string{"-O2", "-gdwarf-4", "-gdwarf64"}, inlinedC},
		{"lines alone", "gcc", c, []string{"-O2", "-g1"}, inlinedC},
		{"no debug information", "gcc", c, []string{"-O2", "-g0"}, "outer .:0\n"},
		{"C++", "g++", cc, []string{"-O2", "-g"}, inCC},
		{"Rust, legacy mangling", "rustc", rs, []string{"-O", "-g"}, inRust},
		{"Rust, v0 mangling", "rustc", rs, []string{"-O", "-g", "-Csymbol-mangling-version=v0"}, strings.Replace(inRust, "inlined::shop::Cart", "<inlined::shop::Cart>", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tg := start(t, exec.Command(compile(t, tt.compiler, tt.source, tt.args...)))
			got := newResolver().User(tg.pid, 0, []uint64{tg.addrs["here"]})
			if brief(got) != tt.want {
				t.Errorf("got\n%swant\n%s", brief(got), tt.want)
			}
		})
	}
}

// TestProgramInlined asks as the profiler does: the names at once, what is
// inlined when it has been read.
func TestProgramInlined(t *testing.T) {
	exe := compile(t, "gcc", "testdata/inlined.c", "-O2", "-g", "-no-pie", "-fno-pie")
	tg := start(t, exec.Command(exe))
	r := newResolver()
	p := r.Program(0, mappingOf(t, tg, tg.addrs["here"]))
	var got []signal.Frame
	seen := map[string]bool{}
	waitFor(t, func() bool {
		var ready bool
		got, ready = p.Find(tg.addrs["here"])
		seen[brief(got)] = true
		return ready
	})
	if runtime.GOARCH == "amd64" && brief(got) != inlinedC {
		t.Errorf("got\n%s", brief(got))
	}
	for s := range seen {
		if s != brief(got) && s != "outer .:0\n" && s != "[unknown] .:0\n" {
			t.Errorf("on the way it was\n%s", s)
		}
	}
}

// mappingOf returns the mapping of a running program that holds an address.
func mappingOf(t testing.TB, tg *target, addr uint64) Place {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", tg.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	maps, err := parseMaps(f, newImage)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if addr >= m.start && addr < m.end {
			return Place{PID: tg.pid, Start: m.start, End: m.end, Path: m.image.key.path.Value()}
		}
	}
	t.Fatalf("%#x is not mapped", addr)
	return Place{}
}

// TestDWARFLimit: a file with more debug information than is allowed has names
// all the same.
func TestDWARFLimit(t *testing.T) {
	tg := start(t, exec.Command(compile(t, "gcc", "testdata/inlined.c", "-O2", "-g")))
	r := New(Options{Wait: 10 * time.Second, DebugBytes: 100})
	if got := brief(r.User(tg.pid, 0, []uint64{tg.addrs["here"]})); got != "outer .:0\n" {
		t.Errorf("got\n%s", got)
	}
}

// TestDWARFUnpacked: the limit is of what compressed sections become.
func TestDWARFUnpacked(t *testing.T) {
	f, err := os.Open(compile(t, "gcc", "testdata/inlined.c", "-O2", "-g", "-gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := openDWARF(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDWARF(f, d.bytes); err != nil {
		t.Errorf("as large as allowed: %v", err)
	}
	if _, err := openDWARF(f, d.bytes-1); !errors.Is(err, errTooLarge) {
		t.Errorf("larger than allowed: %v", err)
	}
	none, err := d.index(func(uint64) bool { return false })
	if err != nil || len(none.spans) > 0 {
		t.Errorf("code outside of the program's: %v, %v", none, err)
	}
}

// TestDWARFLetGo: the DWARF of a file does not stay in memory.
func TestDWARFLetGo(t *testing.T) {
	tg := start(t, exec.Command(compile(t, "gcc", "testdata/inlined.c", "-O2", "-g")))
	r := newResolver()
	r.User(tg.pid, 0, []uint64{tg.addrs["here"]})
	there := func() bool {
		r.lines.mu.Lock()
		defer r.lines.mu.Unlock()
		return r.lines.data != nil
	}
	if !there() {
		t.Fatal("it was not kept for the next unit")
	}
	waitFor(t, func() bool { return !there() })
	// To open it took no time; if it had taken a second, it would not be opened
	// again for minutes.
	key := r.lines.opened
	order := func(root int) *ticket {
		return r.lines.order(lineKey{key, dwarf.Offset(root)}, func() {})
	}
	r.lines.reopen[key] = time.Now().Add(time.Minute)
	if order(1) != nil {
		t.Error("it is opened again at once")
	}
	r.lines.reopen[key] = time.Now()
	if tk := order(2); tk == nil {
		t.Error("it is never opened again")
	} else {
		<-tk.done
	}
}

// TestLinesTooLarge: a unit that the cache has no room for is read once.
func TestLinesTooLarge(t *testing.T) {
	tg := start(t, exec.Command(compile(t, "gcc", "testdata/inlined.c", "-O2", "-g")))
	r := New(Options{Wait: 10 * time.Second, LineBytes: 600})
	for range 3 {
		if got := brief(r.User(tg.pid, 0, []uint64{tg.addrs["here"]})); got != "outer .:0\n" {
			t.Errorf("got\n%s", got)
		}
	}
	if _, bytes, evicted := r.lines.units.stats(); bytes > 600 || evicted > 0 {
		t.Errorf("%d bytes, %d thrown out", bytes, evicted)
	}
}

// TestLinesBudget: when reading has taken its time nothing is read for a while,
// and who asks is told that there may be more.
func TestLinesBudget(t *testing.T) {
	l := newLines(1<<20, 1<<20)
	order := func(n int) *ticket { return l.order(lineKey{root: dwarf.Offset(n)}, func() {}) }
	l.spent, l.asOf = spendAtOnce+time.Second, time.Now()
	if order(1) != nil {
		t.Error("more is read than may be")
	}
	l.asOf = time.Now().Add(-2 * spendShare * time.Second)
	tk := order(2)
	if tk == nil {
		t.Fatal("nothing is read any more")
	}
	<-tk.done
	r := newResolver()
	r.lines.spent, r.lines.asOf = time.Hour, time.Now()
	c, tk, final := r.calls(&object{lines: inside}, fileKey{}, 1, openerOf(nil))
	if c != nil || tk != nil || final {
		t.Errorf("%v, %v, final %v", c, tk, final)
	}
}

// TestEveryLine compares the line table and the inlined calls of a real program
// with what addr2line makes of them.
func TestEveryLine(t *testing.T) {
	if _, err := exec.LookPath("addr2line"); err != nil {
		t.Skip("needs addr2line: install binutils")
	}
	exe := compile(t, "g++", "testdata/inlined.cc", "-O2", "-g", "-no-pie", "-fno-pie")
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := openDWARF(f, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	obj := loadObject(f, 1<<20, nil)
	x, err := d.index(obj.isCode)
	if err != nil || len(x.spans) == 0 {
		t.Fatal(x, err)
	}
	n := 0
	for _, s := range x.spans {
		u, err := d.unit(s.root, obj.base())
		if err != nil {
			t.Fatal(err)
		}
		for a := s.low; a < s.high && n < 300; a += 3 {
			calls := u.find(a)
			if len(calls) == 0 {
				continue
			}
			out, err := exec.Command("addr2line", "-i", "-s", "-e", exe, fmt.Sprintf("%#x", a)).Output()
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, c := range calls {
				fmt.Fprintf(&b, "%s:%d\n", filepath.Base(c.file), c.line)
			}
			want := strings.ReplaceAll(string(out), ":?\n", ":0\n")
			want = discriminator.ReplaceAllString(want, "")
			if b.String() != want {
				t.Errorf("%#x is\n%swant\n%s", a, &b, want)
			}
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d addresses", n)
	}
}

var discriminator = regexp.MustCompile(` \(discriminator \d+\)`)

func BenchmarkInlined(b *testing.B) {
	tg := start(b, exec.Command(compile(b, "gcc", "testdata/inlined.c", "-O2", "-g")))
	r := newResolver()
	began := must(b)(r.startTime(tg.pid))
	ips := []uint64{tg.addrs["here"], tg.addrs["here"] + 1, tg.addrs["here"] + 1, tg.addrs["here"] + 1}
	r.User(tg.pid, began, ips)
	b.ReportAllocs()
	for b.Loop() {
		r.User(tg.pid, began, ips)
	}
}

// BenchmarkProgram asks for an address as the profiler does when it has not seen
// it before.
func BenchmarkProgram(b *testing.B) {
	for name, args := range map[string][]string{"symbols": {"-O2", "-no-pie", "-fno-pie"}, "lines": {"-O2", "-g", "-no-pie", "-fno-pie"}} {
		b.Run(name, func(b *testing.B) {
			tg := start(b, exec.Command(compile(b, "gcc", "testdata/inlined.c", args...)))
			here := tg.addrs["here"]
			p := newResolver().Program(0, mappingOf(b, tg, here))
			waitFor(b, func() bool { _, ready := p.Find(here); return ready })
			b.ReportAllocs()
			for b.Loop() {
				p.Find(here)
			}
		})
	}
}

// BenchmarkDWARF reads the unit that an address is in, and the index of all, of a
// program of Rust's, whose library has 2,000 units.
func BenchmarkDWARF(b *testing.B) {
	f, err := os.Open(compile(b, "rustc", "testdata/inlined.rs", "-O", "-g"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	obj := loadObject(f, 16<<20, nil)
	d, err := openDWARF(f, 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(float64(d.bytes), "dwarf-bytes")
		for b.Loop() {
			if _, err := openDWARF(f, 64<<20); err != nil {
				b.Fatal(err)
			}
		}
	})
	var x *unitIndex
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if x, err = d.index(obj.isCode); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(x.bytes()), "index-bytes")
	})
	b.Run("unit", func(b *testing.B) {
		b.ReportAllocs()
		largest, i := int64(0), 0
		for b.Loop() {
			u, err := d.unit(x.spans[i%len(x.spans)].root, obj.base())
			if err != nil {
				b.Fatal(err)
			}
			largest, i = max(largest, u.size), i+1
		}
		b.ReportMetric(float64(largest), "largest-bytes")
	})
}
