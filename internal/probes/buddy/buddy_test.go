package buddy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	for root, golden := range map[string]string{"testdata": "buddy", "testdata/odd": "odd"} {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), nil)
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, *update)
		})
	}
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run without /proc/buddyinfo = %v; want not exist", err)
	}
	p := &poller{path: "/dev/null"}
	if err := p.collect(new(signal.Batch)); err == nil {
		t.Error("collect of an empty file gives no error")
	}
}

// TestUnusable compares with what mm/vmstat.c would say: 7 free pages, of
// which 3 are in blocks of at least 2 and 2 in blocks of at least 4 pages.
func TestUnusable(t *testing.T) {
	z, ok := parse([]byte("Node 0, zone Normal 4 2 1\n"))
	if !ok {
		t.Fatal("not parsed")
	}
	b := new(signal.Batch)
	z.add(b)
	for order, want := range map[string]float64{"1": 4.0 / 12, "2": 8.0 / 12} {
		if got, ok := probetest.Value(b.Samples, unusable.Name, "0", "Normal", order); !ok || got != want {
			t.Errorf("order %s: %v, want %v", order, got, want)
		}
	}
}

// TestKernel takes memory, gives every other page back, and finds the holes:
// they are single pages that cannot be merged with the neighbours in use.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/buddyinfo"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	shortLists(t)
	e := probetest.New(t)
	e.Start(Spec(), nil)
	var wrong string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if wrong = makeHoles(t, e); wrong == "" { // others take and give back memory meanwhile
			return
		}
	}
	t.Error(wrong)
}

// makeHoles tells what free blocks do not show of it.
func makeHoles(t *testing.T, e *probetest.Env) string {
	t.Helper()
	const n = 32768
	if err := unix.Munmap(take(t, n)); err != nil { // now the CPUs' own lists are short
		t.Fatal(err)
	}
	_, pages0 := sum(t, e)
	mem := take(t, n)
	defer unix.Munmap(mem)
	single1, pages1 := sum(t, e)
	if d := pages0 - pages1; d < n*0.75 || d > n*1.25 {
		return fmt.Sprintf("%d pages taken, free blocks tell of %.0f", n, d)
	}
	page := os.Getpagesize()
	for i := 0; i < len(mem); i += 2 * page {
		if err := unix.Madvise(mem[i:i+page], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	if single2, _ := sum(t, e); single2-single1 < n/4 {
		return fmt.Sprintf("%d holes made, single free pages went from %.0f to %.0f", n/2, single1, single2)
	}
	return ""
}

// shortLists makes the CPUs keep few free pages for themselves until the test's end.
// Where the kernel has no such setting (before 5.14) they do.
func shortLists(t *testing.T) {
	const file = "/proc/sys/vm/percpu_pagelist_high_fraction"
	old, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if err := os.WriteFile(file, []byte("1000000"), 0); err != nil {
		t.Skip("needs root: ", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, old, 0); err != nil {
			t.Error(err)
		}
	})
}

// take touches so many pages.
func take(t *testing.T, pages int) []byte {
	t.Helper()
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Logf("huge pages stay possible: %v", err)
	}
	for i := 0; i < len(mem); i += page {
		mem[i] = 1
	}
	return mem
}

// sum adds up the free blocks of one page, and the pages of all.
func sum(t *testing.T, e *probetest.Env) (single, pages float64) {
	t.Helper()
	for _, s := range e.Gather() {
		if s.Schema != freeBlocks {
			continue
		}
		order, err := strconv.Atoi(s.Labels[2])
		if err != nil {
			t.Fatal(err)
		}
		pages += s.Value * float64(uint64(1)<<order)
		if order == 0 {
			single += s.Value
		}
	}
	return single, pages
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/buddyinfo", "testdata/odd/proc/buddyinfo"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		z, ok := parse(line)
		if !ok {
			return
		}
		b := new(signal.Batch)
		z.add(b)
		for _, s := range b.Samples {
			if s.Schema == unusable && (s.Value < 0 || s.Value > 1) {
				t.Errorf("ratio %v of %q", s.Value, line)
			}
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := &poller{path: "/proc/buddyinfo"}
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
