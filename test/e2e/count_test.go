package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// counter reads one series of /metrics; 0 when there is none. The labels are
// parts of the line.
func counter(t testing.TB, a *agent, name string, labels ...string) float64 {
	t.Helper()
	sum := 0.0
lines:
	for line := range strings.Lines(scrape(t, a, "text/plain")) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue lines
			}
		}
		f := strings.Fields(line)
		v, err := strconv.ParseFloat(f[len(f)-1], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += v
	}
	return sum
}

// TestRefused: a workload is refused a hundred connections. They are a hundred
// failures of its own, a hundred packets dropped for want of a socket, and a
// hundred processes that ended.
func TestRefused(t *testing.T) {
	a := start(t)
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash, which can connect: apt-get install bash")
	}
	cg := probetest.NewCgroup(t, cgroupName("refused"))
	unit := fmt.Sprintf("unit=%q", cg.Path)
	c := exec.Command("bash", "-c", "read -r _; for ((i = 0; i < 100; i++)); do (exec 3<>/dev/tcp/127.0.0.1/9) 2>/dev/null; done; exec sleep 60")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	time.Sleep(300 * time.Millisecond) // the agent learns of new cgroups on a miss, at most each 200 ms
	drops := counter(t, a, "huatuo_network_drops_total", `reason="NO_SOCKET"`, `protocol="tcp"`)
	fmt.Fprintln(in)
	a.eventually(20*time.Second, "a hundred of each", func() error {
		if n := counter(t, a, "huatuo_container_tcp_connect_failures_total", unit, `reason="refused"`); n != 100 {
			return fmt.Errorf("%v refused connections of the workload", n)
		}
		if n := counter(t, a, "huatuo_container_process_forks_total", unit); n != 100 {
			return fmt.Errorf("%v processes of the workload started", n)
		}
		if n := counter(t, a, "huatuo_container_process_exits_total", unit, `cause="failure"`); n != 100 {
			return fmt.Errorf("%v processes of the workload failed", n)
		}
		// Others may be refused too: a hundred at least.
		if n := counter(t, a, "huatuo_network_drops_total", `reason="NO_SOCKET"`, `protocol="tcp"`) - drops; n < 100 {
			return fmt.Errorf("%v packets dropped for want of a socket", n)
		}
		return nil
	})
}

// faultFile names, in the environment of a child of this test, the file of which
// it touches faultPages pages.
const (
	faultFile  = "HUATUO_E2E_FAULT_FILE"
	faultPages = 20
	faultGap   = 64 << 10 // beyond what one fault reads ahead
)

// touch is the child: it waits for a byte, then reads a byte of each page.
func touch(file string) error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, faultPages*faultGap, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Madvise(mem, unix.MADV_RANDOM); err != nil {
		return err
	}
	sum := byte(0)
	for i := 0; i < len(mem); i += faultGap {
		sum += mem[i]
	}
	fmt.Println(sum)
	_, err = os.Stdin.Read(make([]byte, 1)) // until the parent has looked
	return err
}

// TestMajorFaults: a workload touches twenty pages of a file that are on the
// disk only.
func TestMajorFaults(t *testing.T) {
	a := start(t)
	file := filepath.Join(t.TempDir(), "pages")
	if err := os.WriteFile(file, make([]byte, faultPages*faultGap), 0o600); err != nil {
		t.Fatal(err)
	}
	cg := probetest.NewCgroup(t, cgroupName("faults"))
	unit := fmt.Sprintf("unit=%q", cg.Path)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), faultFile+"="+file)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	const name = "huatuo_container_memory_major_page_faults_total"
	var before float64
	a.eventually(10*time.Second, "the workload", func() error {
		if !strings.Contains(scrape(t, a, "text/plain"), name+"{") {
			return fmt.Errorf("no %s: needs the memory controller", name)
		}
		before = counter(t, a, name, unit)
		return nil
	})
	if !evict(t, file) {
		t.Skip("needs a temporary directory on a disk, whose pages can be dropped: set TMPDIR")
	}
	in.Write([]byte("x"))
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	// The child may miss a page or two of its own program.
	a.eventually(10*time.Second, "major faults", func() error {
		if n := counter(t, a, name, unit) - before; n < faultPages || n > faultPages+5 {
			return fmt.Errorf("%v, want %d", n, faultPages)
		}
		return nil
	})
}

// evict drops a file from the page cache and tells whether it is gone.
func evict(t testing.TB, file string) bool {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, faultPages*faultGap, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	there := make([]byte, len(mem)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&there[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, b := range there {
		if b&1 != 0 {
			return false
		}
	}
	return true
}

// TestSelf: the agent counts what it does itself. Nobody but this test talks to it.
func TestSelf(t *testing.T) {
	a := start(t)
	requests := func(code string) float64 {
		return counter(t, a, "huatuo_console_requests_total", fmt.Sprintf("code=%q", code))
	}
	good, bad := requests("2xx"), requests("4xx")
	for range 20 {
		a.get("/healthz")
	}
	for range 7 {
		a.get("/api/v1/events/none")
	}
	a.eventually(10*time.Second, "requests", func() error {
		if n := requests("4xx") - bad; n != 7 {
			return fmt.Errorf("%v refused, want 7", n)
		}
		if n := requests("2xx") - good; n < 20 || n > 130 { // the scrapes are requests, too
			return fmt.Errorf("%v answered, want 20 and a few scrapes", n)
		}
		return nil
	})

	streams(t, a)

	samples := counter(t, a, "huatuo_store_samples_total")
	a.eventually(15*time.Second, "samples in the store", func() error {
		series, more := counter(t, a, "huatuo_store_series"), counter(t, a, "huatuo_store_samples_total")-samples
		if series < 500 || more < series/2 {
			return fmt.Errorf("%v samples more, %v series", more, series)
		}
		return nil
	})
	if n := counter(t, a, "huatuo_exposition_dropped_samples_total"); n != 0 {
		t.Errorf("%v samples were left out of /metrics", n)
	}
	if n := counter(t, a, "huatuo_agent_resident_bytes"); n < 10e6 || n > 300e6 {
		t.Errorf("%v bytes resident", n)
	}
}

// streams opens three event streams and closes them.
func streams(t *testing.T, a *agent) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/api/v1/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
	}
	open := func(want float64) {
		t.Helper()
		a.eventually(10*time.Second, "streams", func() error {
			if n := counter(t, a, "huatuo_console_streams"); n != want {
				return fmt.Errorf("%v, want %v", n, want)
			}
			return nil
		})
	}
	open(3)
	cancel()
	open(0)
}
