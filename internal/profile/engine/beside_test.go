//go:build !noprofiler

package engine

import (
	"bytes"
	"fmt"
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

// TestWeights runs what the hooks decide by chance, in a program of its own: what
// is kept stands for all that there was, in time, in number and in bytes.
func TestWeights(t *testing.T) {
	const times, size = 4_000_000, 123_457
	out, err := exec.Command(compile(t, source(t, "weigh.c"), "-Ibpf")).Output()
	if err != nil {
		t.Fatal(err)
	}
	classes := 0
	for line := range strings.Lines(string(out)) {
		var ns, delay, kept, locks, files int64
		if name, _, _ := strings.Cut(line, " "); name == "rush" {
			rushed(t, line)
			continue
		}
		if _, err := fmt.Sscanf(line, "wait %d %d %d %d %d", &ns, &delay, &kept, &locks, &files); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		classes++
		long, n := halves(locks)
		_, b := halves(files)
		off := 5 / math.Sqrt(float64(kept)) // standard errors
		if ns >= 20_000_000 && delay == 0 {
			off = 1e-6 // all are kept
		}
		for _, x := range []struct {
			what string
			one  float64 // of those that are kept
			want float64
		}{
			{"nanoseconds", float64(long), times * float64(ns-delay)},
			{"waits", float64(n) / one, times},
			{"bytes", float64(inUnit(blockedFile, b)), times * size},
		} {
			if got := x.one * float64(kept); math.Abs(got/x.want-1) > off {
				t.Errorf("waits of %d ns, %d of them for a CPU: %.6g %s, want %.6g within %.2g %%", ns, delay, got, x.what, x.want, 100*off)
			}
		}
	}
	if classes != 18 {
		t.Errorf("%d classes of waits, want 18", classes)
	}
}

// rushed: those that are kept of too many stand for all but what is counted as lost.
func rushed(t *testing.T, line string) {
	t.Helper()
	var all, kept, lost float64
	if _, err := fmt.Sscanf(line, "rush %g %g %g", &all, &kept, &lost); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if kept < all/2 || lost == 0 || math.Abs(kept+lost-all) > all/20 {
		t.Errorf("of a rush of %.0f waits %.0f are kept, %.0f counted as lost", all, kept, lost)
	}
}

// TestInUnit: parts of contentions are right on average, and what is not
// counted in parts stays.
func TestInUnit(t *testing.T) {
	var sum int64
	const times = 100_000
	for range times {
		sum += inUnit(kernelLock, one+one/4)
	}
	if got := float64(sum) / times; math.Abs(got-1.25) > 0.01 {
		t.Errorf("one contention and a quarter count %.3f", got)
	}
	if got := inUnit(diskFile, 4097); got != 4097 {
		t.Errorf("4097 bytes count %d", got)
	}
}

// TestEmit: a sample is given out with both its values, each for the types of it
// that are wanted.
func TestEmit(t *testing.T) {
	type out struct {
		Type  string
		Value int64
	}
	lock := []signal.Frame{{Function: "pthread_rwlock_rdlock"}}
	for name, c := range map[string]struct {
		kind   kind
		frames []signal.Frame
		wants  []*signal.ProfileType
		other  int64
		want   []out
	}{
		"lock": {
			futexLock, nil, profile.Types(), 3 * one,
			[]out{{"lock.user", 7}, {"lock.user.contentions", 3}, {"offcpu.blocked", 7}},
		},
		"lock by its stack":                {futexOther, lock, []*signal.ProfileType{profile.UserLockCount}, one, []out{{"lock.user.contentions", 1}}},
		"parked thread":                    {futexOther, nil, []*signal.ProfileType{profile.UserLockCount, profile.Idle}, one, []out{{"offcpu.idle", 7}}},
		"time alone":                       {kernelLock, nil, []*signal.ProfileType{profile.KernelLock}, one, []out{{"lock.kernel", 7}}},
		"file":                             {diskFile, nil, profile.Types(), 4096, []out{{"io.file", 7}, {"io.file.bytes", 4096}, {"offcpu.io", 7}}},
		"call of which no byte is counted": {blockedFile, nil, []*signal.ProfileType{profile.FileIO, profile.FileBytes}, 0, []out{{"io.file", 7}}},
		"request":                          {blockRequest, nil, profile.Types(), 512, []out{{"io.block", 7}, {"io.block.bytes", 512}}},
		"time on a CPU":                    {onCPU, nil, nil, 0, []out{{"cpu", 7}}},
	} {
		var got []out
		r := &reporter{
			hooks: newHooks(Entries{Types: c.wants}),
			o:     Options{Emit: func(s *signal.StackSample) { got = append(got, out{s.Type.Name, s.Value}) }},
		}
		r.emit(c.kind, &signal.StackSample{Value: 7, Stack: &signal.Stack{Frames: c.frames}}, c.other)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestWithoutUnknown: bytes of calls are off where the kernel does not count calls.
func TestWithoutUnknown(t *testing.T) {
	for _, counts := range []bool{true, false} {
		s := &btf.Struct{Name: "task_io_accounting"}
		if counts {
			s.Members = []btf.Member{{Name: "syscr", Type: &btf.Int{Name: "u64", Size: 8}}}
		}
		b, err := btf.NewBuilder([]btf.Type{s}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := b.Marshal(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := newHooks(Entries{Types: []*signal.ProfileType{profile.FileIO, profile.FileBytes}})
		if h.kernel, err = btf.LoadSpecFromReader(bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		h.withoutUnknown()
		if h.o.wants(profile.FileBytes) != counts || !h.o.wants(profile.FileIO) || (len(h.status) == 0) != counts {
			t.Errorf("the kernel counts calls %v: %v, %v", counts, h.o.Types, h.status)
		}
	}
}

// TestHalves: numbers of any size have place in half of a value.
func TestHalves(t *testing.T) {
	for _, tt := range []struct {
		value      uint64
		one, other int64
	}{
		{0, 0, 0},
		{1<<32 | 2, 1, 2},
		{(1<<26 - 1) << 32, 1<<26 - 1, 0},
		{(31<<26|1<<25)<<32 | 1<<26 | 5, 1 << 56, 10},
	} {
		if one, other := halves(int64(tt.value)); one != tt.one || other != tt.other {
			t.Errorf("%x: %d and %d, want %d and %d", tt.value, one, other, tt.one, tt.other)
		}
	}
}
