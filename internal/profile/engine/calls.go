//go:build !noprofiler

package engine

// What a system call waits for: enum call of bpf/waits.h.
const (
	otherCall uint32 = iota
	idleCall
	futexCall
	fileCall // on a file by its nature
	fdCall   // on what its descriptor is of

	// What is known of the bytes that it moves: enum call_moves.
	moves      uint32 = 0x10 // as many as its third argument says
	movesParts uint32 = 0x20 // its third argument says how many parts there are in its second
	movesRead  uint32 = 0x40 // up to the end of the file
	movesAt    uint32 = 0x80 // from where its fourth argument says, else where the file stands

	callClass uint32 = 0xf
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
		fdCall:                                    {72, 73},       // fcntl, flock
		fdCall | moves:                            {1, 18},        // write, pwrite64
		fdCall | movesParts:                       {20, 296, 328}, // writev, pwritev, pwritev2
		fdCall | moves | movesRead:                {0},            // read
		fdCall | moves | movesRead | movesAt:      {17},           // pread64
		fdCall | movesParts | movesRead:           {19},           // readv
		fdCall | movesParts | movesRead | movesAt: {295, 327},     // preadv, preadv2
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
		fdCall:                                    {25, 32},      // fcntl, flock
		fdCall | moves:                            {64, 68},      // write, pwrite64
		fdCall | movesParts:                       {66, 70, 287}, // writev, pwritev, pwritev2
		fdCall | moves | movesRead:                {63},          // read
		fdCall | moves | movesRead | movesAt:      {67},          // pread64
		fdCall | movesParts | movesRead:           {65},          // readv
		fdCall | movesParts | movesRead | movesAt: {69, 286},     // preadv, preadv2
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
