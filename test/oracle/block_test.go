package oracle

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/test/faults/slowdisk"
)

// missed is how many completions the agent may have fewer than the trace ring.
// There are kernels that run no BPF program while a task is current that they
// shield, such as the init of a sandbox: what a softirq completes just then is in
// the trace ring and in /proc/diskstats, but no program of any kind sees it, and
// no counter of the kernel tells. Elsewhere nothing is missed.
const missed = 2

// TestBlock: latencies of a loop device that takes 1 to 40 ms, as the trace ring
// has them: from issue to completion, and from the bio to completion, which is
// the request's whole life and a microsecond more.
func TestBlock(t *testing.T) {
	url := start(t, "blockio")
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	tr := newTrace(t, 4<<10, "block/block_bio_queue", "block/block_rq_issue", "block/block_rq_complete")
	disk, err := slowdisk.Mount(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	loop, err := slowdisk.Attach(disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.SetDelay(0); loop.Detach() })
	tr.write("events/block/filter", fmt.Sprintf("dev == %d", kernelDev(t, loop.Dev)))

	f := "huatuo_block_io_total_seconds"
	g := "huatuo_block_io_device_seconds"
	labels := []string{"device", loop.Name, "op", "read"}
	var w window
	before := w.scrape(t, url)
	tr.write("tracing_on", "1")
	readers(t, disk, loop.Dev, 4*time.Second)
	tr.write("tracing_on", "0")
	after := w.scrape(t, url)
	if n := tr.lost(); n > 0 {
		t.Fatalf("the trace ring lost %d events of a bounded load", n)
	}
	device, total := requests(tr.records())
	w.agree(t, "device", native(series(after[g], labels...)).since(native(series(before[g], labels...))), device, missed+len(device)/200)
	w.agree(t, "total", native(series(after[f], labels...)).since(native(series(before[f], labels...))), total, missed+len(total)/200)
}

// kernelDev is the device's number as the kernel has it in its trace.
func kernelDev(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint64(unix.Major(st.Rdev))<<20 | uint64(unix.Minor(st.Rdev))
}

// readers read blocks from a device past the page cache, from four threads,
// while the device's delay changes all the time.
func readers(t *testing.T, disk *slowdisk.Disk, dev string, d time.Duration) {
	t.Helper()
	done := make(chan struct{})
	errs := make(chan error, 4)
	var wg sync.WaitGroup
	for i := range int64(4) {
		wg.Go(func() {
			for block := i; ; block += 4 {
				select {
				case <-done:
					return
				default:
				}
				if err := directRead(dev, block%8192); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		// Each order of magnitude is as likely as the others.
		disk.SetDelay(time.Millisecond << rand.IntN(6))
	}
	close(done)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

func directRead(dev string, block int64) error {
	f, err := os.OpenFile(dev, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 8192)
	off := 4096 - int(uintptr(unsafe.Pointer(&buf[0]))%4096)
	n, err := f.ReadAt(buf[off:off+4096], block*4096)
	if err == nil && n != 4096 {
		err = errors.New("short read")
	}
	return err
}

// requests are the times of requests that were issued and completed.
func requests(records []record) (device, total []wait) {
	queued, issued := map[uint64]uint64{}, map[uint64]uint64{}
	for _, r := range records {
		sector := r.num("sector")
		switch r.ev.name {
		case "block_bio_queue":
			queued[sector] = r.ts
		case "block_rq_issue":
			issued[sector] = r.ts
		case "block_rq_complete":
			if at, ok := issued[sector]; ok {
				device = append(device, wait{d: time.Duration(r.ts - at), end: r.ts})
			}
			if at, ok := queued[sector]; ok {
				total = append(total, wait{d: time.Duration(r.ts - at), end: r.ts})
			}
			delete(issued, sector)
			delete(queued, sector)
		}
	}
	return device, total
}
