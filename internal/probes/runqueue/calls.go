package runqueue

// tableSize is the size of the program's map of calls.
const tableSize = 512

// common have the same number on every architecture: all that came since 5.1.
var common = map[int]uint32{
	437: open,  // openat2
	449: other, // futex_waitv
	455: other, // futex_wait
}

// numbers of the system calls that are looked at, by architecture.
var numbers = map[string]map[int]uint32{
	// arch/x86/entry/syscalls/syscall_64.tbl
	"amd64": {
		202: lock,                                           // futex
		0:   read, 17: read, 19: read, 295: read, 327: read, // read, pread64, readv, preadv, preadv2
		1: write, 18: write, 20: write, 296: write, 328: write, // write, pwrite64, writev, pwritev, pwritev2
		77: write, 285: write, // ftruncate, fallocate
		74: fsync, 75: fsync, 277: fsync, // fsync, fdatasync, sync_file_range
		78: list, 217: list, // getdents, getdents64
		2: open, 85: open, 257: open, // open, creat, openat
	},
	// include/uapi/asm-generic/unistd.h
	"arm64": {
		98: lock,                                          // futex
		63: read, 67: read, 65: read, 69: read, 286: read, // read, pread64, readv, preadv, preadv2
		64: write, 68: write, 66: write, 70: write, 287: write, // write, pwrite64, writev, pwritev, pwritev2
		46: write, 47: write, // ftruncate, fallocate
		82: fsync, 83: fsync, 84: fsync, // fsync, fdatasync, sync_file_range
		61: list, // getdents64
		56: open, // openat
	},
}

// calls makes the table that tells the program what a system call may sleep for.
func calls(arch string) (table [tableSize]uint32) {
	for _, m := range []map[int]uint32{common, numbers[arch]} {
		for nr, kind := range m {
			table[nr] = kind
		}
	}
	return table
}
