package slab

import (
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestParse(t *testing.T) {
	file, err := os.ReadFile("testdata/proc/slabinfo")
	if err != nil {
		t.Fatal(err)
	}
	all := parse(file, 4096)
	sortCaches(all)
	p := &poller{top: 5}
	p.last.Store(&all)
	b := new(signal.Batch)
	if err := p.collect(b); err != nil {
		t.Fatal(err)
	}
	probetest.Golden(t, "testdata/slab.golden", b.Samples, nil, *update)
}

// TestBounded: what is not among the largest, is empty, or has a name that is taken, is in other, and nothing is lost.
func TestBounded(t *testing.T) {
	all := []cache{{"a", 50, 5}, {"other", 40, 4}, {"a", 30, 3}, {"b", 20, 2}, {"c", 10, 1}, {"d", 0, 0}}
	for top, want := range map[int]map[string]float64{
		0: {"other": 150},
		2: {"a": 50, "b": 20, "other": 80},
		9: {"a": 50, "b": 20, "c": 10, "other": 70},
	} {
		p := &poller{top: top}
		p.last.Store(&all)
		b := new(signal.Batch)
		if err := p.collect(b); err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, s := range b.Samples {
			if s.Schema == cacheBytes {
				got[s.Labels[0]] = s.Value
			}
		}
		if len(got) != len(want) {
			t.Errorf("top %d: %v, want %v", top, got, want)
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("top %d: %s is %v, want %v", top, name, got[name], v)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("neither BPF nor the file: %v", err)
	}
	if err := e.TryStart(Spec(), Config{Top: 1}); err == nil || !strings.Contains(err.Error(), "probes.slab.interval") {
		t.Errorf("an interval of zero: %v", err)
	}
}

func TestPossibleNodes(t *testing.T) {
	for text, want := range map[string]uint32{"0\n": 1, "0-3\n": 4, "0,2\n": 3, "x": 1, "": 1, "0-99999999": 1} {
		root := t.TempDir()
		dir := root + "/sys/devices/system/node"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/possible", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := possibleNodes(root); got != want {
			t.Errorf("%q: %d nodes, want %d", text, got, want)
		}
	}
}

const timers = 1500 // twice, of the 3,800 that a guest of 1 GB may have

// makeTimers makes timers of this process until the end of all: each is an object of the
// kernel. Freed ones would leave room that the next subtest fills first.
func makeTimers(t *testing.T, all testing.TB) {
	t.Helper()
	event := struct { // struct sigevent
		value         uint64
		signo, notify int32
		_             [48]byte
	}{notify: 1} // SIGEV_NONE
	for range timers {
		var id int32
		if _, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); errno != 0 {
			t.Skipf("needs %d timers, which `ulimit -i` must allow: %v", timers, errno)
		}
		all.Cleanup(func() { unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0) })
	}
}

// TestKernel makes objects of one kind and finds the cache that grew by so many, by the iterator and by the file.
func TestKernel(t *testing.T) {
	for _, by := range []string{load.Iter, "procfs"} {
		t.Run(by, func(sub *testing.T) { testGrowth(sub, by, t) })
	}
}

func testGrowth(t *testing.T, by string, all testing.TB) {
	if _, err := os.ReadFile("/proc/slabinfo"); err != nil {
		t.Skipf("needs root, and a kernel with CONFIG_SLUB_DEBUG: %v", err)
	}
	o := load.Options{}
	if by != load.Iter {
		o.Kinds = []string{load.RawTP}
	}
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Interval, cfg.Top = 20*time.Millisecond, 10_000
	env.Start(Spec(), cfg)
	if hs := env.Hooks(); hs[len(hs)-1].By != by {
		if strings.Contains(hs[0].Reason, "load") {
			t.Fatalf("the kernel has the iterator and does not take ours: %+v", hs)
		}
		t.Skipf("needs an iterator of caches (Linux 6.13): %+v", hs)
	}
	read := func() map[string]float64 {
		m := map[string]float64{}
		for _, s := range env.Gather() {
			m[s.Schema.Name+strings.Join(s.Labels, "")] = s.Value
		}
		return m
	}
	before := read()
	makeTimers(t, all)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		now := read()
		for name, v := range now {
			cache, ok := strings.CutPrefix(name, cacheObjects.Name)
			grown := v - before[name]
			if !ok || cache == "other" || grown < 0.6*timers || grown > 1.5*timers { // slabs that were there have room for some
				continue
			}
			// A timer is 200 to 400 bytes.
			if d := now[cacheBytes.Name+cache] - before[cacheBytes.Name+cache]; d > 60*timers && d < 1000*timers {
				t.Logf("%s grew by %.0f objects and %.0f bytes", cache, grown, d)
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%d timers made, and no cache grew by so many objects", timers)
		}
	}
}

// TestKernelAgree: both ways tell the same of most caches at about the same time.
func TestKernelAgree(t *testing.T) {
	file := &fileSource{path: "/proc/slabinfo"}
	if _, err := file.walk(); err != nil {
		t.Skipf("needs root, and a kernel with CONFIG_SLUB_DEBUG: %v", err)
	}
	env := probetest.NewKernel(t, load.Options{})
	o, err := attach(env.Env)
	if err != nil {
		t.Skipf("needs an iterator of caches (Linux 6.13): %v", err)
	}
	defer o.Close()
	iter := &iterSource{o: o}
	for range 5 {
		a, err := iter.walk()
		if err != nil {
			t.Fatal(err)
		}
		b, err := file.walk()
		if err != nil {
			t.Fatal(err)
		}
		same := 0
		for _, x := range a {
			if slices.Contains(b, x) {
				same++
			}
		}
		if len(a) > 50 && same >= len(a)*9/10 && same >= len(b)*9/10 {
			return
		}
		t.Logf("of %d and %d caches %d are the same", len(a), len(b), same)
	}
	t.Error("the iterator and /proc/slabinfo never agreed on nine tenths of the caches")
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/proc/slabinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, c := range parse(file, 4096) {
			if c.name == "" || c.bytes > 1<<63 {
				t.Errorf("%+v", c)
			}
		}
	})
}

func BenchmarkKernelWalk(b *testing.B) {
	b.Run("file", func(b *testing.B) {
		s := &fileSource{path: "/proc/slabinfo"}
		for b.Loop() {
			if _, err := s.walk(); err != nil {
				b.Skip(err)
			}
		}
	})
	b.Run("iter", func(b *testing.B) {
		env := probetest.NewKernel(b, load.Options{})
		o, err := attach(env.Env)
		if err != nil {
			b.Skip(err)
		}
		defer o.Close()
		s := &iterSource{o: o}
		for b.Loop() {
			if _, err := s.walk(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
