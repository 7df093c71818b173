package diskstats

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/test/faults/slowdisk"
)

// TestKernelSlow does countable things to a disk that takes 50 ms for each
// access: every counter moves by what was done.
func TestKernelSlow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	d, l := slowDisk(t)
	fd, err := unix.Open(l.Dev, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // aligned
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(buf)

	e := probetest.New(t)
	e.Start(Spec(), nil)
	read := func(what string) float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_disk_"+what, l.Name)
		return v
	}
	const n, delay = 10, 50 * time.Millisecond
	d.SetDelay(delay)
	access := func(what string, f func([]byte, int64) (int, error)) {
		for i := range int64(n) {
			if got, err := f(buf, i*int64(len(buf))); err != nil || got != len(buf) {
				t.Fatalf("%s %s: %d bytes, %v", what, l.Dev, got, err)
			}
		}
	}
	names := []string{"reads_total", "read_bytes_total", "read_seconds_total", "writes_total", "write_bytes_total", "write_seconds_total", "io_seconds_total", "io_weighted_seconds_total"}
	was := map[string]float64{}
	for _, name := range names {
		was[name] = read(name)
	}
	began := time.Now()
	access("read", func(b []byte, at int64) (int, error) { return unix.Pread(fd, b, at) })
	access("write", func(b []byte, at int64) (int, error) { return unix.Pwrite(fd, b, at) })
	took := time.Since(began).Seconds()
	slow := n * delay.Seconds()
	for i, want := range [][2]float64{
		{n, n}, {n * 64 << 10, n * 64 << 10}, {slow, took}, {n, n}, {n * 64 << 10, n * 64 << 10}, {slow, took}, {slow, took}, {2 * slow, took},
	} {
		// The kernel rounds a time to a tick; another reader (a scan for partitions) may come in between.
		if moved := read(names[i]) - was[names[i]]; moved < want[0]*0.9 || moved > want[1]*1.1+0.1 {
			t.Errorf("%s moved by %g, want %g to %g", names[i], moved, want[0], want[1])
		}
	}
	inflight(t, d, fd, read)
}

// inflight: three reads that hang are on their way.
func inflight(t *testing.T, d *slowdisk.Disk, fd int, read func(string) float64) {
	t.Helper()
	d.Hold()
	done := make(chan error, 3)
	for i := range int64(3) {
		go func() {
			buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err == nil {
				_, err = unix.Pread(fd, buf, i<<20)
				unix.Munmap(buf)
			}
			done <- err
		}()
	}
	n := 0.0
	for end := time.Now().Add(10 * time.Second); n != 3 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		n = read("inflight")
	}
	d.Release()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n != 3 {
		t.Errorf("huatuo_disk_inflight = %g with three reads that hang", n)
	}
}

// slowDisk makes a loop device on a file that is as slow as it is told to be.
func slowDisk(t *testing.T) (*slowdisk.Disk, *slowdisk.Loop) {
	t.Helper()
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
	t.Cleanup(func() {
		d.Release()
		d.SetDelay(0)
		l.Detach()
	})
	return d, l
}
