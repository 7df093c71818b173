//go:build !noprofiler

package engine

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// TestKernelContentions: threads hand a lock round. How often they slept for it
// is known, of waits that are thinned: a seventh and less of them are kept.
func TestKernelContentions(t *testing.T) {
	p := &program{args: []string{compile(t, source(t, "contend.c"), "-pthread", "-Itestdata")}}
	r := record(t, Entries{Types: append(waitTypes(), profile.UserLockCount), Rate: 2000}, time.Second, p)
	r.needs(t, profile.UserLock)
	r.within(t, p.told["times"], 0.1, "wait_turn", profile.UserLockCount)
	r.within(t, p.told["time"], 0.1, "wait_turn", profile.UserLock, profile.RunQueue)
}

// TestKernelBytes: bytes that are written through to a block device, read from
// it, and read and written in a file system by calls that sleep several times.
func TestKernelBytes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	disk, err := slowdisk.Mount(t.TempDir(), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	loop, err := slowdisk.Attach(disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loop.Detach() })
	disk.SetDelay(10 * time.Millisecond)
	p := itself("WORK_BYTES=1", "WORK_FILE="+disk.Path, "WORK_DEVICE="+loop.Dev)
	types := []*signal.ProfileType{profile.FileIO, profile.FileBytes, profile.BlockIO, profile.BlockBytes}
	// Nearly all waits are kept: a lot of so few calls would not be within a tenth.
	r := record(t, Entries{Types: types, Rate: 2000, Wait: time.Millisecond}, time.Second, p)
	for _, c := range []struct {
		name, function string
		typ            *signal.ProfileType
	}{
		{"written", "writeThrough", profile.BlockBytes},
		{"written", "writeThrough", profile.FileBytes},
		{"read", "readThrough", profile.BlockBytes},
		{"read", "readThrough", profile.FileBytes},
		{"long", "readLong", profile.FileBytes},
		{"parts", "writeParts", profile.FileBytes},
	} {
		t.Run(c.typ.Name+" "+c.name, func(t *testing.T) {
			r.needs(t, c.typ)
			r.within(t, p.told[c.name], 0.1, c.function, c.typ)
		})
	}
	if sum, _ := r.in("syncFile", profile.FileBytes); sum != 0 {
		t.Errorf("fsync has moved %d bytes", sum)
	}
}

const diskSize = 4 << 20

// moveBytes moves known numbers of bytes, and prints them.
func moveBytes() error {
	device, err := unix.Open(os.Getenv("WORK_DEVICE"), unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	file, err := unix.Open(os.Getenv("WORK_FILE"), unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	buffer, err := unix.Mmap(-1, 0, 512<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	work := []struct {
		name string
		n    int
		move func(i int) (int, error)
	}{
		{"written", 120, func(i int) (int, error) { return writeThrough(device, buffer[:4096<<(i%5)], int64(i)*8192) }},
		{"read", 120, func(i int) (int, error) { return readThrough(device, buffer[:4096<<(i%4)], int64(i)*8192) }},
		{"long", 64, func(i int) (int, error) { return readLong(file, buffer, int64(i)*diskSize/64) }}, // the last ones end early
		{"parts", 80, func(i int) (int, error) { return writeParts(file, buffer, int64(i)*8192) }},
		{"synced", 10, func(int) (int, error) { return syncFile(file) }},
	}
	for _, w := range work {
		sum, i := 0, 0
		_, err := rounds(w.n, nothing, func() error {
			n, err := w.move(i)
			sum += n
			i++
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		fmt.Printf("%s %d\n", w.name, sum)
	}
	return nil
}

//go:noinline
func writeThrough(fd int, b []byte, offset int64) (int, error) {
	n, err := unix.Pwrite(fd, b, offset)
	return n, err
}

//go:noinline
func readThrough(fd int, b []byte, offset int64) (int, error) {
	n, err := unix.Pread(fd, b, offset)
	return n, err
}

// readLong sleeps several times in a call.
//
//go:noinline
func readLong(fd int, b []byte, offset int64) (int, error) {
	n, err := unix.Pread(fd, b, offset)
	return n, err
}

//go:noinline
func writeParts(fd int, b []byte, offset int64) (int, error) {
	n, err := unix.Pwritev(fd, [][]byte{b[:100], b[4096:8192], b[:300]}, offset)
	return n, err
}

//go:noinline
func syncFile(fd int) (int, error) { return 0, unix.Fsync(fd) }
