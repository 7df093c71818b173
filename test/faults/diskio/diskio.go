// Package diskio makes a block device see I/O of known number and shape.
package diskio

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Block is what each piece of I/O is of.
const Block = 4096

// iocb is struct iocb of the kernel's asynchronous I/O.
type iocb struct {
	_     uint64    // data
	_     [2]uint32 // key, flags of this piece
	op    uint16
	_     int16 // priority
	fd    uint32
	buf   uint64
	bytes uint64
	off   int64
	_     [2]uint64 // reserved, flags and descriptor of an event
}

const (
	opRead  = 0 // IOCB_CMD_PREAD
	opWrite = 1 // IOCB_CMD_PWRITE
)

// Together reads or writes n blocks of a device past the page cache in one call,
// from block first on, each step blocks after the one before. The kernel collects
// what a call brings: with a step of 1 or -1 all but the first become part of its
// request.
func Together(dev string, write bool, n, first, step int) error {
	f, err := os.OpenFile(dev, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	mem, err := unix.Mmap(-1, 0, n*Block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	var ctx uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(n), uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
		return fmt.Errorf("io_setup: %w", errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	op := uint16(opRead)
	if write {
		op = opWrite
	}
	cbs, refs := make([]iocb, n), make([]*iocb, n)
	for i := range cbs {
		cbs[i] = iocb{op: op, fd: uint32(f.Fd()), buf: uint64(uintptr(unsafe.Pointer(&mem[i*Block]))), bytes: Block, off: int64(first+i*step) * Block}
		refs[i] = &cbs[i]
	}
	done, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, uintptr(n), uintptr(unsafe.Pointer(&refs[0])))
	if errno != 0 || int(done) != n {
		return fmt.Errorf("io_submit: %d of %d: %w", done, n, errno)
	}
	events := make([][4]uint64, n)
	done, _, errno = unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, uintptr(n), uintptr(n), uintptr(unsafe.Pointer(&events[0])), 0, 0)
	runtime.KeepAlive(refs)
	if errno != 0 || int(done) != n {
		return fmt.Errorf("io_getevents: %d of %d: %w", done, n, errno)
	}
	for _, e := range events {
		if int64(e[2]) != Block {
			return fmt.Errorf("a block returned %d", int64(e[2]))
		}
	}
	return nil
}

// Discard tells a device that n blocks are no longer needed.
func Discard(dev string, first, n int) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	span := [2]uint64{uint64(first) * Block, uint64(n) * Block}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return fmt.Errorf("discard: %w", errno)
	}
	return nil
}

// Flush has a device write what it holds.
func Flush(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
