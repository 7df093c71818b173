package stress

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process holds and has used.
type usage struct {
	rss     int64 // bytes
	file    int64 // bytes of it that are of files: they can be read again, and are not the agent's to keep
	cpu     time.Duration
	fds     int
	threads int
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MB (%.1f MB of files), %.2f s of CPU, %d descriptors, %d threads", float64(u.rss)/1e6, float64(u.file)/1e6, u.cpu.Seconds(), u.fds, u.threads)
}

// usageOf reads /proc of a process.
func usageOf(t testing.TB, pid int) usage {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			u.rss = n << 10
		case "RssFile:":
			u.file = n << 10
		case "Threads:":
			u.threads = int(n)
		}
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	sys, _ := strconv.ParseInt(f[12], 10, 64)
	u.cpu = time.Duration(user+sys) * 10 * time.Millisecond
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	return u
}

// leastUsage reads it for two seconds and returns what was least resident: answers
// to what the test asks take some memory for a moment.
func leastUsage(t testing.TB, pid int) usage {
	t.Helper()
	least := usageOf(t, pid)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if u := usageOf(t, pid); u.rss < least.rss {
			least = u
		}
	}
	return least
}

// peak follows the resident memory of a process until the returned function is
// called, which gives the largest value.
func peak(t testing.TB, pid int) (stop func() int64) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan int64)
	go func() {
		var top int64
		for {
			b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
			if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
				pages, _ := strconv.ParseInt(f[1], 10, 64)
				top = max(top, pages*int64(os.Getpagesize()))
			}
			select {
			case <-done:
				ended <- top
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(done); return <-ended }
}

// slowness tells how much longer than on an idle machine things take now: the
// wall time over the CPU time of a short loop, 1 at least. Bounds of wall time
// are multiplied by it, so that a busy neighbour fails no test.
func slowness() float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wall, cpu := time.Now(), threadCPU()
	for threadCPU()-cpu < 40*time.Millisecond {
		for range 1000 {
			runtime.KeepAlive(cpu)
		}
	}
	return max(1, float64(time.Since(wall))/float64(threadCPU()-cpu))
}

func threadCPU() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
