//go:build !noprofiler

package engine

import (
	"fmt"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func TestParseObject(t *testing.T) {
	m := parseObject([]byte("pos:\t0\nmap_type:\t1\nmax_entries:\t65536\nmemlock:\t5243776\nmap_id:\t5536\nfrozen:\t0\n"))
	if m.program || m.id != 5536 || m.memlock != 5243776 {
		t.Errorf("map %+v", m)
	}
	if p := parseObject([]byte("prog_type:\t7\nprog_tag:\tab12\nmemlock:\t4096\nprog_id:\t77\n")); !p.program || p.id != 77 {
		t.Errorf("program %+v", p)
	}
}

// cpuTime is what a process has taken, by the scheduler's count.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ns int64
	if _, err := fmt.Sscan(string(b), &ns); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ns)
}

// stretch is a while at one rate.
type stretch struct {
	hertz int
	from  time.Time
	took  time.Duration // by the process
	of    []*signal.StackSample
}

// stretches divides a process' samples by the rates that were in force.
type stretches struct {
	t    *testing.T
	pid  int
	mu   sync.Mutex
	all  []*stretch
	done bool
}

// begin begins one, and waits until the process has had a CPU for long enough, on
// a busy machine for no more than half a minute.
func (s *stretches) begin(hertz int) {
	took := cpuTime(s.t, s.pid)
	s.mu.Lock()
	if n := len(s.all); n > 0 {
		s.all[n-1].took = took - s.all[n-1].took
	}
	s.all = append(s.all, &stretch{hertz: hertz, from: time.Now(), took: took})
	s.done = hertz == 0
	s.mu.Unlock()
	for end := time.Now().Add(30 * time.Second); hertz > 0 && cpuTime(s.t, s.pid)-took < 4*time.Second && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

// add puts a sample where it belongs, and tells whether all have arrived.
func (s *stretches) add(x *signal.StackSample) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0; i-- {
		if st := s.all[i]; !x.Time.Before(st.from) {
			st.of = append(st.of, x)
			break
		}
	}
	return s.done && len(s.all[len(s.all)-1].of) > 20
}

// check compares the samples with what the process took. On a machine that is
// full it has a CPU by chance: four standard deviations. Samples that are worth
// what the other rate makes are ten times off.
func (st *stretch) check(t *testing.T) {
	var sum time.Duration
	for _, s := range st.of {
		sum += time.Duration(s.Value)
	}
	ratio, heavy, n := float64(sum)/float64(st.took), share(st.of, "heavy"), float64(max(len(st.of), 1))
	t.Logf("%3d Hz: %d samples, %v of %v (%.3f), heavy %.2f", st.hertz, len(st.of), sum, st.took, ratio, heavy)
	if d := 0.05 + 4/math.Sqrt(n); math.Abs(ratio-1) > d {
		t.Errorf("at %d Hz the samples add up to %v, it took %v: more than %.0f %% off", st.hertz, sum, st.took, 100*d)
	}
	if math.Abs(heavy-0.75) > 0.05+4*math.Sqrt(0.75*0.25/n) {
		t.Errorf("at %d Hz heavy has %.3f, want 0.75", st.hertz, heavy)
	}
}

// TestKernelBoost: while the rate is raised and lowered, the samples of a process
// add up to the time that it takes, in each stretch, and its functions keep their
// shares; and the engine says what it has in the kernel.
func TestKernelBoost(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	s := &stretches{t: t, pid: start(t, compile(t, cSource))}
	rate, usage := NewRate(19), new(Usage)
	steps := func() {
		time.Sleep(2 * time.Second) // it becomes known
		s.begin(19)
		end, err := rate.Boost(MaxHertz, MaxBoost)
		if err != nil {
			t.Error(err)
			return
		}
		s.begin(MaxHertz)
		all, tables, err := usage.MapBytes()
		if err != nil || all < 1<<20 || all > 256<<20 || tables < 1<<10 || tables > all || len(usage.Programs()) < 5 {
			t.Errorf("%d bytes of maps, %d of tables and %d programs, %v", all, tables, len(usage.Programs()), err)
		}
		end()
		s.begin(19)
		s.begin(0)
	}
	o := Options{Rate: rate, Usage: usage, Ready: func() { go steps() }, Want: of(s.pid)}
	take(t, o, 1, func(x *signal.StackSample) bool {
		if x.PID != uint32(s.pid) {
			t.Error("a sample that was not wanted")
		}
		return s.add(x)
	})
	if len(s.all) != 4 {
		t.Fatalf("%d stretches, want 4", len(s.all))
	}
	for _, st := range s.all[:3] {
		st.check(t)
	}
	if all, _, err := usage.MapBytes(); all != 0 || err != nil || rate.Now() != 0 {
		t.Errorf("after the end: %d bytes, %v, %d Hz", all, err, rate.Now())
	}
}
