package profiles

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// storm starts programs that start programs that nobody has seen before, with
// libraries likewise, and returns their count.
func storm(t *testing.T) *atomic.Int64 {
	t.Helper()
	dir := t.TempDir()
	exe, so := filepath.Join(dir, "churn"), filepath.Join(dir, "library.so")
	build(t, "gcc", "-O2", "-o", exe, "testdata/churn.c")
	build(t, "gcc", "-O2", "-shared", "-fPIC", "-o", so, "testdata/library.c")
	var count atomic.Int64
	for range 3 {
		c := exec.Command(exe, dir, so)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			c.Wait()
		})
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				count.Add(10)
			}
		}()
	}
	return &count
}

// memory is what the agent holds in bytes: resident, and in BPF maps with what it
// says itself of profiling.
type memory struct{ resident, profiling float64 }

func (m memory) String() string {
	return fmt.Sprintf("%.1f MB resident, %.1f MB for profiling", m.resident/1e6, m.profiling/1e6)
}

func (a *agent) memory() (m memory) {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.pid), "statm"))
	if err != nil {
		a.t.Fatal(err)
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	m.resident = pages * float64(os.Getpagesize())
	m.profiling = a.metric("huatuo_profile_memory_bytes")
	return m
}

// mean of the memory of several moments.
func mean(all []memory) (m memory) {
	for _, x := range all {
		m.resident += x.resident / float64(len(all))
		m.profiling += x.profiling / float64(len(all))
	}
	return m
}

// TestChurn: for a minute programs and libraries come by the dozen in a second
// that nobody has seen before, and are gone; without -short for eight minutes.
// What the agent holds stops growing, and it still learns of new programs.
func TestChurn(t *testing.T) {
	need(t, "gcc")
	length := 8 * time.Minute
	if testing.Short() {
		length = time.Minute
	}
	a := start(t, "cpu,offcpu.blocked,offcpu.runqueue,lock.user,io.file,mem.fault")
	count := storm(t)
	var all []memory
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Second) {
		all = append(all, a.memory())
	}
	// Caches fill in the first third: what comes after must not add to them.
	third := len(all) / 3
	early, late := mean(all[third:2*third]), mean(all[2*third:])
	t.Logf("%d new programs, each with a new library: %v, later %v", count.Load(), early, late)
	// Tables of a file are kept for five minutes after its last use, so a minute
	// only shows what a file costs.
	const (
		slack = 1.15     // what a collector of garbage leaves from one time to the next
		each  = 48 << 10 // of a program and a library of two pages of code each
	)
	may := slack * early.resident
	if length < 6*time.Minute {
		may += each * float64(count.Load()) / 3
	}
	if late.resident > may || late.profiling > may {
		t.Errorf("memory grows: %v, later %v, which may be %.1f MB", early, late, may/1e6)
		for i, m := range all {
			t.Log(i, m)
		}
	}
	if n := count.Load(); n < 100 {
		t.Errorf("%d new programs: that is no storm", n)
	}
	// It still works.
	p := begin(t, filepath.Join(t.TempDir(), "begin"), "/usr/bin/python3", "testdata/waits.py", filepath.Join(t.TempDir(), "never"))
	from := time.Now()
	a.eventually(time.Minute, "samples of a new program", func() error {
		g := a.flame("cpu", p.pid, from)
		if value(g, "begin") == 0 {
			return fmt.Errorf("none among %d: %+v", g.Samples, g.Frames)
		}
		return nil
	})
}
