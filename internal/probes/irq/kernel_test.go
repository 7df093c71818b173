package irq

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// newLoop returns a loop device on a file whose every read takes delay: the
// kernel reads it in a work queue of the device's name (5.14).
func newLoop(t *testing.T, delay time.Duration) *slowdisk.Loop {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	d, err := slowdisk.Mount(t.TempDir(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.SetDelay(0); l.Detach() })
	d.SetDelay(delay)
	return l
}

// read reads a block past the page cache.
func read(t *testing.T, path string, block int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 8192)
	off := 4096 - int(uintptr(unsafe.Pointer(&buf[0]))%4096)
	if _, err := f.ReadAt(buf[off:off+4096], int64(block)*4096); err != nil {
		t.Fatal(err)
	}
}

// find returns the sample of a metric with that label, nil when there is none.
func find(samples []signal.Sample, s *signal.Schema, label string) *signal.Sample {
	for i := range samples {
		if samples[i].Schema == s && (len(samples[i].Labels) == 0 || samples[i].Labels[0] == label) {
			return &samples[i]
		}
	}
	return nil
}

// TestKernel makes work that takes 60 ms, and interrupts of a disk, by each
// kind of hook.
func TestKernel(t *testing.T) { probetest.Rungs(t, testLoad) }

func testLoad(t *testing.T, o load.Options) {
	const delay = 60 * time.Millisecond
	l := newLoop(t, delay)
	env := probetest.NewKernel(t, o)
	env.Start(Spec(), nil)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	read(t, l.Dev, 3)
	samples := env.Gather()
	if s := find(samples, workService, l.Name); s == nil {
		t.Log("loop devices have no work queue: a kernel before 5.14")
	} else {
		if s.Hist.Count == 0 || s.Hist.Sum < delay.Seconds() || s.Hist.Sum > 5 {
			t.Errorf("work of %s: %d items, %g s, want one of %v", l.Name, s.Hist.Count, s.Hist.Sum, delay)
		}
		// The long one is in the bucket of (2^-5, 2^-4] or later ones, and none is there that is short.
		var long uint64
		for i, n := range s.Hist.Counts {
			if s.Hist.First+i >= -4 {
				long += n
			}
		}
		if long != 1 {
			t.Errorf("%d items that took more than 31 ms, want 1", long)
		}
		if w := find(samples, workWait, l.Name); w == nil || w.Hist.Count < s.Hist.Count || w.Hist.Sum >= delay.Seconds() {
			t.Errorf("waits of work that nothing holds up: %+v", w)
		}
	}
	diskInterrupts(t, env)
}

// diskInterrupts writes to the disk below the temporary files until a line counts
// an interrupt; where they are in memory the console's device has to do.
func diskInterrupts(t *testing.T, env *probetest.Env) {
	file := filepath.Join(t.TempDir(), "f")
	for end := time.Now().Add(10 * time.Second); ; {
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(make([]byte, 4096))
		f.Sync()
		f.Close()
		if console, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			console.Write([]byte("\r"))
			console.Close()
		}
		samples := env.Gather()
		total, sum := 0.0, 0.0
		for _, s := range samples {
			switch s.Schema {
			case handled:
				total += s.Value
			case handledSeconds:
				sum += s.Value
			}
		}
		h := find(samples, service, "").Hist
		if total > 0 && sum > 0 && h.Count > 0 {
			if float64(h.Count) > total || h.Sum > 1.01*sum+1e-6 { // lines are read later, and have more
				t.Errorf("%d in the histogram (%g s), %g by line (%g s)", h.Count, h.Sum, total, sum)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no interrupt in 10 s of writing to %s", file)
		}
	}
}
