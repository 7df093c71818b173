//go:build !noprofiler

package engine

// What a system call waits for: enum call of bpf/waits.h.
const (
	otherCall uint32 = iota
	idleCall
	futexCall
	fileCall // on a file by its nature
	fdCall   // on what its descriptor is of
)

const callSlots = 512

// commonCalls have the same number on every architecture: all that came since 5.1.
var commonCalls = map[uint32][]int{
	idleCall:  {441},                // epoll_pwait2
	futexCall: {449, 454, 455, 456}, // futex_waitv, futex_wake, futex_wait, futex_requeue
	fileCall:  {437, 439, 452},      // openat2, faccessat2, fchmodat2
}

// calls by architecture.
var callNumbers = map[string]map[uint32][]int{
	// arch/x86/entry/syscalls/syscall_64.tbl
	"amd64": {
		idleCall: {
			7, 271, 23, 270, // poll, ppoll, select, pselect6
			232, 281, // epoll_wait, epoll_pwait
			35, 230, // nanosleep, clock_nanosleep
			34, 128, 130, // pause, rt_sigtimedwait, rt_sigsuspend
			43, 288, // accept, accept4
			208, 333, // io_getevents, io_pgetevents
		},
		futexCall: {202},
		fileCall: {
			2, 85, 257, // open, creat, openat
			74, 75, 277, 162, 306, 26, // fsync, fdatasync, sync_file_range, sync, syncfs, msync
			76, 77, 285, 187, // truncate, ftruncate, fallocate, readahead
			78, 217, // getdents, getdents64
			4, 5, 6, 262, 332, 21, 269, // stat, fstat, lstat, newfstatat, statx, access, faccessat
			82, 264, 316, 83, 258, 84, 87, 263, 86, 265, 88, 266, // rename*, mkdir*, rmdir, unlink*, link*, symlink*
			326, 90, 91, 92, 93, 260, 268, // copy_file_range, chmod, fchmod, chown, fchown, fchownat, fchmodat
			165, 166, // mount, umount2
		},
		fdCall: {
			0, 17, 19, 295, 327, // read, pread64, readv, preadv, preadv2
			1, 18, 20, 296, 328, // write, pwrite64, writev, pwritev, pwritev2
			72, 73, // fcntl, flock
		},
	},
	// include/uapi/asm-generic/unistd.h
	"arm64": {
		idleCall: {
			73, 72, // ppoll, pselect6
			22,       // epoll_pwait
			101, 115, // nanosleep, clock_nanosleep
			137, 133, // rt_sigtimedwait, rt_sigsuspend
			202, 242, // accept, accept4
			4, 292, // io_getevents, io_pgetevents
		},
		futexCall: {98},
		fileCall: {
			56,                       // openat
			82, 83, 84, 81, 267, 227, // fsync, fdatasync, sync_file_range, sync, syncfs, msync
			45, 46, 47, 213, // truncate, ftruncate, fallocate, readahead
			61,              // getdents64
			80, 79, 291, 48, // fstat, newfstatat, statx, faccessat
			38, 276, 34, 35, 37, 36, // renameat, renameat2, mkdirat, unlinkat, linkat, symlinkat
			285, 52, 53, 54, 55, // copy_file_range, fchmod, fchmodat, fchownat, fchown
			40, 39, // mount, umount2
		},
		fdCall: {
			63, 67, 65, 69, 286, // read, pread64, readv, preadv, preadv2
			64, 68, 66, 70, 287, // write, pwrite64, writev, pwritev, pwritev2
			25, 32, // fcntl, flock
		},
	},
}

// calls makes the table of an architecture.
func calls(arch string) (table [callSlots]uint32) {
	for _, m := range []map[uint32][]int{commonCalls, callNumbers[arch]} {
		for what, numbers := range m {
			for _, n := range numbers {
				table[n] = what
			}
		}
	}
	return table
}
