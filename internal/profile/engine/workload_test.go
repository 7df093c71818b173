//go:build !noprofiler

package engine

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// workVariable tells this binary to work for a test.
const workVariable = "HUATUO_ENGINE_WORK"

// TestWorkload is not a test: others run this binary again to be watched. It
// spends what it prints in functions of known names.
func TestWorkload(t *testing.T) {
	if os.Getenv(workVariable) == "" {
		t.SkipNow()
	}
	begin()
	works := []func() error{waits, short, disk, memory}
	if os.Getenv("WORK_BYTES") != "" {
		works = []func() error{moveBytes}
	}
	for _, work := range works {
		if err := work(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("end")
	time.Sleep(time.Hour) // until it is killed
}

// begin takes time on a CPU until standard input ends.
//
//go:noinline
func begin() {
	var ended atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()
	for !ended.Load() {
		for until := time.Now().Add(5 * time.Millisecond); time.Now().Before(until); {
		}
		time.Sleep(time.Millisecond)
	}
}

// rounds does a wait so often in a thread of its own, and returns how long that took.
func rounds(n int, before, wait func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var sum time.Duration
	for range n {
		if err := before(); err != nil {
			return 0, err
		}
		since := time.Now()
		if err := wait(); err != nil {
			return 0, err
		}
		sum += time.Since(since)
	}
	return sum, nil
}

func nothing() error { return nil }

func waits() error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	var word atomic.Uint32
	go func() {
		for {
			time.Sleep(25 * time.Millisecond)
			unix.Write(ends[1], []byte("x"))
			word.Store(0)
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), 1|128, 1, 0, 0, 0)
		}
	}()
	var wg sync.WaitGroup
	var pipe, lock time.Duration
	var err1, err2 error
	wg.Go(func() { pipe, err1 = rounds(60, nothing, func() error { return waitPipe(ends[0]) }) })
	wg.Go(func() {
		lock, err2 = rounds(60, func() error { word.Store(2); return nil }, func() error { return waitLock(&word) })
	})
	wg.Wait()
	fmt.Printf("pipe %d\nlock %d\nsleeps %d\n", pipe, lock, lockSleeps)
	if err1 != nil {
		return err1
	}
	return err2
}

// short waits many times, for a fifth of what is always kept.
func short() error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	go func() {
		for {
			time.Sleep(4 * time.Millisecond)
			unix.Write(ends[1], []byte("x"))
		}
	}()
	pipe, err := rounds(1500, nothing, func() error { return waitShort(ends[0]) })
	fmt.Printf("short %d\n", pipe)
	return err
}

//go:noinline
func waitPipe(fd int) error {
	var b [1]byte
	_, err := unix.Read(fd, b[:])
	return err
}

//go:noinline
func waitShort(fd int) error {
	var b [1]byte
	_, err := unix.Read(fd, b[:])
	return err
}

// lockSleeps counts the sleeps of waitLock.
var lockSleeps int

// waitLock sleeps as C, Go and Rust do in a mutex that others wait for, too.
//
//go:noinline
func waitLock(word *atomic.Uint32) error {
	for word.Load() == 2 {
		if _, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 0|128, 2, 0, 0, 0); e == 0 {
			lockSleeps++
		}
	}
	return nil
}

func disk() error {
	file, err := os.OpenFile(os.Getenv("WORK_FILE"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	device, err := unix.Open(os.Getenv("WORK_DEVICE"), unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	buffer, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	offset := int64(0)
	read, err := rounds(60, func() error { offset += 4096; return nil }, func() error { return readDevice(device, buffer, offset) })
	if err != nil {
		return err
	}
	// One thread writes, and another one a little later, which waits for the inode's
	// lock first. When both are done they begin anew.
	const n = 40
	fd := int(file.Fd())
	begun, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var locked time.Duration // from where the second begins until the first is done
	var since time.Time
	var err2 error
	wg.Go(func() {
		first := true
		_, err2 = rounds(n, func() error {
			if !first {
				done <- struct{}{}
			}
			first = false
			<-begun
			time.Sleep(5 * time.Millisecond)
			since = time.Now()
			return nil
		}, func() error { return writeLocked(fd) })
	})
	first := true
	var end time.Time
	written, err := rounds(n, func() error {
		if !first {
			<-done
			locked += end.Sub(since)
		}
		first = false
		begun <- struct{}{}
		return nil
	}, func() error { defer func() { end = time.Now() }(); return writeFile(fd) })
	wg.Wait()
	locked += end.Sub(since)
	if err == nil {
		err = err2
	}
	fmt.Printf("device %d\nfile %d\nlocked %d\ncontended %d\ndevice_bytes %d\n", read, written, locked, n, 60*len(buffer))
	return err
}

//go:noinline
func readDevice(fd int, b []byte, offset int64) error {
	_, err := unix.Pread(fd, b, offset)
	return err
}

//go:noinline
func writeFile(fd int) error {
	_, err := unix.Pwrite(fd, []byte("x"), 0)
	return err
}

//go:noinline
func writeLocked(fd int) error {
	_, err := unix.Pwrite(fd, []byte("y"), 0)
	return err
}

const mib = 1 << 20

func memory() error {
	const touched, reserved, kept, back = 64 * mib, 256 * mib, 64 * mib, 64 * mib
	const parts = 64
	for range parts {
		b, err := small(touched / parts)
		if err != nil {
			return err
		}
		touch(b)
		if err := reserve(reserved / parts); err != nil {
			return err
		}
		if b, err = small(kept / parts); err != nil {
			return err
		}
		keep(b)
		if b, err = small(back / parts); err != nil {
			return err
		}
		giveBack(b)
		time.Sleep(50 * time.Millisecond) // so that no buffer overflows
	}
	fmt.Printf("touched %d\nreserved %d\nkept %d\n", touched, reserved, kept)
	return nil
}

// small maps memory of small pages.
func small(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL { // a kernel without huge pages
		return nil, err
	}
	return b, nil
}

//go:noinline
func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

//go:noinline
func reserve(n int) error {
	_, err := unix.Mmap(-1, 0, n, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	return err
}

//go:noinline
func keep(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

//go:noinline
func giveBack(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	unix.Munmap(b)
}
