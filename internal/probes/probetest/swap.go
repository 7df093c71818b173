package probetest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Swap gives the host so many bytes of swap until the test's end, in a file of
// the temporary directory. It skips the test where that cannot be. Call it before
// NewHolder: a process in a limit has to end before its pages can come back.
func Swap(t testing.TB, size int) {
	t.Helper()
	if _, err := os.Stat("/proc/swaps"); err != nil {
		t.Skip("needs a kernel with swap (CONFIG_SWAP)")
	}
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	inMemory := fs.Type == unix.TMPFS_MAGIC || int(fs.Bavail)*int(fs.Bsize) < 2*size
	if inMemory { // a guest without a disk: a loop device in memory does as well
		var err error
		if dir, err = os.MkdirTemp("/dev/shm", "huatuo-test"); err != nil {
			t.Skipf("needs a temporary directory with %d bytes of room (TMPDIR), or /dev/shm: %v", 2*size, err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	path := filepath.Join(dir, "swap")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := os.Getpagesize()
	head := make([]byte, page) // as mkswap writes it
	binary.NativeEndian.PutUint32(head[1024:], 1)
	binary.NativeEndian.PutUint32(head[1028:], uint32(size/page-1))
	copy(head[page-10:], "SWAPSPACE2")
	for off := 0; off < size; off += 1 << 20 { // a hole cannot be swapped to
		if _, err := f.WriteAt(make([]byte, 1<<20), int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if inMemory {
		path = loop(t, f)
	}
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		t.Skipf("needs a temporary directory on a disk to swap to (TMPDIR): %v", errno)
	}
	t.Cleanup(func() {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
			t.Errorf("swapoff %s: %v", path, errno)
		}
	})
}

// loop makes a block device of a file until the test's end.
func loop(t testing.TB, file *os.File) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/loop-control: %v", err)
	}
	defer control.Close()
	for range 10 { // somebody else may take the same one
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		path := "/dev/loop" + strconv.Itoa(n)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		if unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(file.Fd())) == nil {
			t.Cleanup(func() {
				if dev, err := os.Open(path); err == nil {
					unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
					dev.Close()
				}
			})
			return path
		}
	}
	t.Fatal("no loop device is free")
	return ""
}

// Zswap turns the compressed cache of swap on until the test's end, and tells
// whether this kernel has one.
func Zswap(t testing.TB) bool {
	t.Helper()
	const file = "/sys/module/zswap/parameters/enabled"
	was, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	if err := os.WriteFile(file, []byte("Y"), 0); err != nil {
		t.Logf("the compressed cache of swap cannot be turned on: %v", err)
		return false
	}
	t.Cleanup(func() { Restore(t, file, was) })
	return true
}

// Set writes to a file of /proc/sys or /sys until the test's end.
func Set(t testing.TB, file, value string) {
	t.Helper()
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Restore(t, file, was) })
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// Restore writes back what was read from a file of settings.
func Restore(t testing.TB, file string, was []byte) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.TrimSpace(string(was))), 0); err != nil {
		t.Errorf("restore %s: %v", file, err)
	}
}
