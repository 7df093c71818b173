//go:build !noprofiler

package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// TestWhyUncounted: who reads why a type is off learns whether it is the machine,
// the CPU, or somebody's doing.
func TestWhyUncounted(t *testing.T) {
	for _, c := range []struct {
		err  error
		pmu  bool
		want string
	}{
		{unix.ENOENT, false, "no PMU"},
		{unix.EOPNOTSUPP, false, "no PMU"},
		{unix.ENOENT, true, "the CPU does not count x"},
		{unix.EBUSY, true, "somebody else has the PMU"},
		{unix.EACCES, false, "perf_event_paranoid"},
		{unix.EMFILE, true, "too many open files"},
	} {
		if got := whyUncounted("x", fmt.Errorf("on a CPU: %w", c.err), c.pmu); !strings.Contains(got.Error(), c.want) {
			t.Errorf("%v, PMU %v: %q, want %q", c.err, c.pmu, got, c.want)
		}
	}
}

// TestPMUEvents: each type has an event, and misses of the last level are taken
// from perf's general event only where that is what it counts.
func TestPMUEvents(t *testing.T) {
	intel, amd := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{intel: "event=0x2e,umask=0x41\n", amd: "event=0x64,umask=0x09\n"} {
		dir = filepath.Join(dir, "bus/event_source/devices/cpu/events")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cache-misses"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, typ := range profile.Hardware() {
		if len(pmuEvents(typ, amd)) == 0 {
			t.Errorf("nothing counts %s", typ.Name)
		}
	}
	if n := len(pmuEvents(profile.CacheMisses, intel)); n != 2 {
		t.Errorf("Intel: %d events for misses, want 2", n)
	}
	if e := pmuEvents(profile.CacheMisses, amd); len(e) != 1 || e[0].config != 0x10002 {
		t.Errorf("AMD: %+v", e)
	}
}

// busy is work of a kind that something counts: three parts of it in
// countedHeavy, one in countedLight.
type busy struct {
	typ  *signal.ProfileType
	own  perfEvent // what counts it for one thread
	work func()
}

//go:noinline
func countedHeavy(f func()) {
	for range 3 {
		f()
	}
}

//go:noinline
func countedLight(f func()) { f() }

//go:noinline
func countedSpin() {
	n := 0
	for i := range 1 << 20 {
		n += i ^ n
	}
	runtime.KeepAlive(n)
}

// countedTouch makes some 1,000 page faults.
func countedTouch() {
	b, err := small(4 * mib)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	unix.Munmap(b)
}

// watched is a thread that works, and what its own counters say.
type watched struct {
	tid          uint32
	from, to     time.Time
	heavy, light map[*signal.ProfileType]uint64
}

// ownCounters counts for the calling thread, which stays one.
func ownCounters(t *testing.T, all []busy) (read func() map[*signal.ProfileType]uint64) {
	fds := map[*signal.ProfileType]int{}
	for _, b := range all {
		attr := unix.PerfEventAttr{Type: b.own.kind, Config: b.own.config, Size: unix.PERF_ATTR_SIZE_VER1}
		fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			t.Errorf("count %s: %v", b.own.name, err)
			continue
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds[b.typ] = fd
	}
	return func() map[*signal.ProfileType]uint64 {
		out := map[*signal.ProfileType]uint64{}
		for typ, fd := range fds {
			var b [8]byte
			if _, err := unix.Read(fd, b[:]); err != nil {
				t.Errorf("read a counter: %v", err)
			}
			out[typ] = binary.NativeEndian.Uint64(b[:])
		}
		return out
	}
}

// workCounted works until it is known to the unwinder, and then for a while, of
// which it tells what was counted in which function.
func workCounted(ctx context.Context, t *testing.T, all []busy, known <-chan struct{}, tid chan<- uint32) (w watched) {
	runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
	w = watched{tid: uint32(unix.Gettid()), heavy: map[*signal.ProfileType]uint64{}, light: map[*signal.ProfileType]uint64{}}
	tid <- w.tid
	read := ownCounters(t, all)
	each := func(in func(func())) {
		for _, b := range all {
			in(b.work)
		}
	}
	for waiting := true; waiting; {
		select {
		case <-known:
			waiting = false
		case <-ctx.Done():
			return w
		default:
			each(countedHeavy)
		}
	}
	add := func(to map[*signal.ProfileType]uint64, work func(func())) {
		before := read()
		each(work)
		for typ, n := range read() {
			to[typ] += n - before[typ]
		}
	}
	w.from = time.Now()
	for began := threadTime(); threadTime()-began < 4*time.Second && time.Since(w.from) < time.Minute; {
		add(w.heavy, countedHeavy)
		add(w.light, countedLight)
	}
	w.to = time.Now()
	return w
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// settle returns when a number grows no more: a guest that is emulated on a busy
// machine takes a while to name the stacks.
func settle(count func() int) {
	for was, end := -1, time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Second) {
		n := count()
		if n == was {
			return
		}
		was = n
	}
}

// recordCounted runs the engine over such a thread.
func recordCounted(t *testing.T, e Entries, all []busy) (watched, []*signal.StackSample, *Account) {
	t.Helper()
	var mu sync.Mutex
	var got []*signal.StackSample
	left := map[*signal.ProfileType]bool{} // of which the thread is not known yet
	for _, b := range all {
		left[b.typ] = true
	}
	e.Account = &Account{}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	known, tid, ready, done := make(chan struct{}), make(chan uint32, 1), make(chan struct{}), make(chan error, 1)
	var mine uint32
	go func() {
		done <- Run(ctx, Options{
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Symbols: symbol.New(symbol.Options{}),
			Entries: e, Ready: func() { close(ready) },
			Emit: func(s *signal.StackSample) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, s)
				if mine == 0 {
					select {
					case mine = <-tid:
					default:
					}
				}
				if left[s.Type] && s.TID == mine && has(s, "countedHeavy") {
					if delete(left, s.Type); len(left) == 0 {
						close(known)
					}
				}
			},
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for _, s := range e.Account.Types() {
		t.Logf("%s on %v by %q %s", s.Type.Name, s.On, s.By, s.Reason)
		if !s.On { // nothing is to be known of it
			mu.Lock()
			delete(left, s.Type)
			mu.Unlock()
			all = slices.DeleteFunc(slices.Clone(all), func(b busy) bool { return b.typ == s.Type })
		}
	}
	if len(all) == 0 {
		t.Fatal("nothing is counted")
	}
	worked := make(chan watched, 1)
	go func() { worked <- workCounted(ctx, t, all, known, tid) }()
	var w watched
	select {
	case w = <-worked:
	case err := <-done:
		t.Fatalf("the engine ends before the work does: %v", err)
	}
	settle(func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range got {
			if s.TID == w.tid && s.Time.Before(w.to) {
				n++
			}
		}
		return n
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return w, slices.DeleteFunc(got, func(s *signal.StackSample) bool {
		return s.Time.Before(w.from) || s.Time.After(w.to)
	}), e.Account
}

// stalled tells whether the machine below this one took a CPU away for a good part
// of the time. A clock goes on meanwhile, and who runs next gets it: the
// interrupt comes after the scheduler's, but for NMIs.
func stalled(samples []*signal.StackSample, typ *signal.ProfileType) bool {
	var values []int64
	var sum, gaps int64
	for _, s := range samples {
		if s.Type == typ {
			values = append(values, s.Value)
		}
	}
	slices.Sort(values)
	for _, v := range values {
		sum += v
		if v > 5*values[len(values)/2] {
			gaps += v
		}
	}
	return gaps > sum/20
}

// checkCounted compares what the samples of a type stand for with what the thread
// counted for itself. A thread has a CPU, and a function its turn, by chance: four
// standard deviations, and 3 % for what happens between a counter and its reader.
func checkCounted(t *testing.T, w watched, samples []*signal.StackSample, typ *signal.ProfileType) {
	t.Helper()
	var sum, heavy, light, squares float64
	n := 0
	for _, s := range samples {
		if s.Type != typ || s.TID != w.tid {
			continue
		}
		n++
		v := float64(s.Value)
		sum += v
		squares += v * v
		switch {
		case has(s, "countedHeavy"):
			heavy += v
		case has(s, "countedLight"):
			light += v
		}
	}
	want := float64(w.heavy[typ] + w.light[typ])
	part := 0.03 + 4*math.Sqrt(squares)/max(sum, 1)
	t.Logf("%s: %d samples, %.4g of %.4g (%.3f), heavy %.4g of %d (%.3f), light %.4g of %d (%.3f), tolerance %.3f", typ.Name, n, sum, want, sum/want,
		heavy, w.heavy[typ], heavy/float64(w.heavy[typ]), light, w.light[typ], light/float64(w.light[typ]), part)
	if n < 200 {
		t.Errorf("%s: %d samples, want 200", typ.Name, n)
	}
	if math.Abs(sum/want-1) > part {
		t.Errorf("%s: the samples add up to %.4g, the thread counted %.4g", typ.Name, sum, want)
	}
	if share, measured := heavy/sum, float64(w.heavy[typ])/want; math.Abs(share-measured) > part || share < 0.6 || light == 0 {
		t.Errorf("%s: countedHeavy has %.3f, countedLight %.3f, want %.3f and %.3f", typ.Name, share, light/sum, measured, 1-measured)
	}
}

// TestKernelCounts: what the kernel counts in software takes the place of the
// hardware's counters, so that the way of a stack is the same on each machine: a
// clock that overflows evenly, and page faults, whose number the kernel has to find.
func TestKernelCounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	faults := perfEvent{"page-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS}
	all := []busy{
		{profile.Cycles, perfEvent{"task-clock", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK}, countedSpin},
		{profile.TLBMisses, faults, countedTouch},
	}
	none := perfEvent{"nothing", unix.PERF_TYPE_SOFTWARE, 999}
	e := Entries{
		Types: []*signal.ProfileType{profile.Cycles, profile.TLBMisses, profile.CacheMisses}, CountHertz: 199,
		events: map[*signal.ProfileType][]perfEvent{
			profile.Cycles:      {{"cpu-clock", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_CLOCK}},
			profile.TLBMisses:   {none, faults}, // the second one, as there is no first
			profile.CacheMisses: {none},
		},
	}
	w, samples, account := recordCounted(t, e, all)
	want := map[string]bool{"hw.cycles perf cpu-clock": true, "hw.dtlb_misses perf page-faults": true, "hw.llc_misses ": false}
	got := map[string]bool{}
	for _, s := range account.Types() {
		if got[s.Type.Name+" "+s.By] = s.On; !s.On && s.Reason == "" {
			t.Errorf("%s is off without a reason", s.Type.Name)
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("on: %v, want %v", got, want)
	}
	for _, l := range account.Losses() {
		t.Logf("lost of %s: %s %d samples, %d", l.Type.Name, l.Reason, l.Samples, l.Value)
	}
	if stalled(samples, profile.Cycles) {
		t.Log("the machine stood still too often: its clock is not looked at")
	} else {
		checkCounted(t, w, samples, profile.Cycles)
	}
	checkCounted(t, w, samples, profile.TLBMisses)
}

// TestKernelPMU is the same with the hardware's own counters, of what it counts.
func TestKernelPMU(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if !hasPMU() {
		t.Skip("needs a PMU")
	}
	all := []busy{
		{profile.Cycles, pmuEvents(profile.Cycles, "/sys")[0], countedSpin},
		{profile.Instructions, pmuEvents(profile.Instructions, "/sys")[0], countedSpin},
	}
	types := []*signal.ProfileType{profile.Cycles, profile.Instructions}
	w, samples, account := recordCounted(t, Entries{Types: types, CountHertz: 199}, all)
	for _, l := range account.Losses() {
		t.Logf("lost of %s: %s %d samples, %d", l.Type.Name, l.Reason, l.Samples, l.Value)
	}
	for _, s := range account.Types() {
		if s.On {
			checkCounted(t, w, samples, s.Type)
		} else if s.Type == profile.Cycles || !strings.HasPrefix(s.Reason, "the CPU does not count") {
			t.Errorf("%s is off: %s", s.Type.Name, s.Reason)
		}
	}
}
