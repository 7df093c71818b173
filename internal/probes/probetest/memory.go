package probetest

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pages maps n bytes of memory that comes in small pages.
func Pages(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // EINVAL where the kernel has none anyway
	return mem, nil
}

// HugeSize is the size of a huge page on x86, and on arm64 with pages of 4 KiB.
const HugeSize = 2 << 20

// HugePages maps n bytes, a multiple of HugeSize at such a place, that may come in huge pages.
func HugePages(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n+HugeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	at := HugeSize - int(uintptr(unsafe.Pointer(&mem[0]))%HugeSize)
	mem = mem[at : at+n : at+n]
	return mem, unix.Madvise(mem, unix.MADV_HUGEPAGE)
}

// Read reads a byte of each page, in order, and returns their sum: who threw it
// away in here would have the compiler leave the reads out.
//
//go:noinline
func Read(mem []byte) (sum byte) {
	for i := 0; i < len(mem); i += os.Getpagesize() {
		sum += mem[i]
	}
	return sum
}

// Fill writes to each page what no other page has, which does compress.
func Fill(mem []byte) {
	page := os.Getpagesize()
	for i := 0; i+page <= len(mem); i += page {
		for j := 0; j < page; j += 64 {
			*(*uint64)(unsafe.Pointer(&mem[i+j])) = uint64(i+1) * 0x9e3779b97f4a7c15
		}
	}
}

// Unmap gives back what HugePages mapped, which is not where mmap put it.
func Unmap(mem []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), 0); errno != 0 {
		return errno
	}
	return nil
}
