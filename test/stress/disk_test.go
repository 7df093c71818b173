package stress

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quick makes the store's rounds frequent, so that trouble shows soon.
var quick = []string{"--set", "store.interval=1s", "--set", "probes.netdrop.rate=0"}

// tmpfs mounts a small file system until the test's end.
func tmpfs(t testing.TB, size string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves so many bytes free where dir is, until the returned function is called.
func fill(t testing.TB, dir string, leave int64) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, st.Bsize)
	for int64(st.Bavail)*st.Bsize > leave {
		if _, err := f.Write(block); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
	}
	return func() { os.Remove(path) }
}

// keeps waits until new events and new samples reach the store.
func (a *agent) keeps(patience time.Duration) time.Duration {
	a.t.Helper()
	var last string
	if page := a.events("")[:]; len(page) > 0 {
		last = page[len(page)-1].ID
	}
	samples, _ := a.metric("huatuo_store_samples_total")
	return eventually(a.t, patience, "the store keeps what comes", func() error {
		if n := len(a.events(last)); n < 10 {
			return fmt.Errorf("%d new events; store: %s", n, a.system().Store.Error)
		}
		if n, ok := a.metric("huatuo_store_samples_total"); !ok || n < samples+100 {
			return fmt.Errorf("%v new samples; store: %s", n-samples, a.system().Store.Error)
		}
		return nil
	})
}

// troubled waits until the agent says in all three places that the store does
// not keep what comes, and checks that all else goes on.
func (a *agent) troubled(log string, reasons ...string) {
	a.t.Helper()
	eventually(a.t, 15*time.Second, "the trouble shows", func() error {
		st := a.system()
		if !containsAny(st.Store.Error, reasons) {
			return fmt.Errorf("/api/v1/system says %q, want one of %q", st.Store.Error, reasons)
		}
		if v, ok := a.metric("huatuo_store_failing"); !ok || v != 1 {
			return fmt.Errorf("huatuo_store_failing is %v, %v", v, ok)
		}
		for _, s := range st.Sinks {
			if s.Name == "store" && s.State != "retrying" {
				return fmt.Errorf("the sink's state is %s", s.State)
			}
		}
		if !strings.Contains(a.log.String(), log) || !containsAny(a.log.String(), reasons) {
			return fmt.Errorf("the log does not say %q with one of %q", log, reasons)
		}
		return nil
	})
	if code, body := a.get("/healthz"); code != 200 {
		a.t.Errorf("/healthz: %d %s", code, body)
	}
	if v, ok := a.metric("huatuo_load_average{window=\"1m\"}"); !ok {
		a.t.Errorf("/metrics has no load average any more: %v", v)
	}
}

func containsAny(s string, list []string) bool {
	for _, x := range list {
		if strings.Contains(s, x) {
			return true
		}
	}
	return false
}

// well checks that the trouble is over, and that a restart finds the store whole.
func (a *agent) well(args ...string) {
	a.t.Helper()
	took := a.keeps(30 * time.Second)
	a.t.Logf("keeps events and samples again after %v", took.Round(time.Millisecond))
	eventually(a.t, 10*time.Second, "the store is said to be well", func() error { // by what was gathered a moment ago
		if v, ok := a.metric("huatuo_store_failing"); !ok || v != 0 {
			return fmt.Errorf("huatuo_store_failing is %v, %v", v, ok)
		}
		if st := a.system().Store; st.Error != "" {
			return fmt.Errorf("store status %+v", st)
		}
		return nil
	})
	a.stop()
	b := start(a.t, a.data, nil, args...)
	if names := aside(a.t, a.data); len(names) > 0 {
		a.t.Errorf("set aside: %v", names)
	}
	if n := len(b.events("")); n < 20 {
		a.t.Errorf("%d events after the restart", n)
	}
	b.stop()
}

// TestDiskFull runs the agent on a small file system that others fill: to the
// space that the store leaves free, and to the last byte.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		minFree string
		leave   int64
		reasons []string
	}{
		{"nearly", "8MiB", 4 << 20, []string{"disk nearly full"}},
		{"to the last byte", "0", 0, []string{"no space left on device", "full"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			data := tmpfs(t, "32m")
			args := append(quick[:len(quick):len(quick)], "--set", "store.min_free="+c.minFree, "--set", "store.events.max_size=16MiB", "--set", "store.metrics.max_size=64MiB")
			a := start(t, data, nil, args...)
			drops(t, 200)
			a.keeps(20 * time.Second)
			free := fill(t, data, c.leave)
			a.troubled("sink fails", c.reasons...)
			before := leastUsage(t, a.pid)
			time.Sleep(pick(4*time.Second, 20*time.Second))
			after := leastUsage(t, a.pid)
			// The 4,096 events that may wait take 15 MB. The tests beside this one flood its agent,
			// too, with garbage for the GC: 60 MB more were seen.
			if after.rss > before.rss+80e6 || after.fds > before.fds+10 {
				t.Errorf("while the disk is full the agent grows from %v to %v", before, after)
			}
			free()
			a.well(args...)
		})
	}
}

// TestReadOnly makes the file system of the store refuse every change while
// its files are open, as a kernel does after an error of the disk.
func TestReadOnly(t *testing.T) {
	needRoot(t)
	t.Parallel()
	for _, c := range []struct {
		name    string
		errno   syscall.Errno
		reasons []string
	}{
		{"read-only", unix.EROFS, []string{"read-only", "readonly", "disk I/O error"}},
		{"I/O errors", unix.EIO, []string{"input/output error", "disk I/O error"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := mountFaultFS(t)
			a := start(t, f.dir, nil, quick...)
			drops(t, 200)
			a.keeps(20 * time.Second)
			f.fail(c.errno)
			a.troubled("sink fails", c.reasons...)
			time.Sleep(2 * time.Second)
			f.fail(0)
			a.well(quick...)
		})
	}
}
