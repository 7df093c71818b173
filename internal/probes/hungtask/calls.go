package hungtask

import "golang.org/x/sys/unix"

// call tells which of a system call's arguments are a file.
type call struct {
	name string
	fd   int // index of a descriptor, -1: none
	path int // index of a path, -1: none
	dir  int // index of the directory that the path is relative to, -1: the working directory
}

func onFD(name string, fd int) call          { return call{name, fd, -1, -1} }
func onPath(name string, path int) call      { return call{name, -1, path, -1} }
func inDir(name string, dir, path int) call  { return call{name, -1, path, dir} }
func plain(name string) call                 { return call{name, -1, -1, -1} }
func callOf(number int64) (c call, ok bool)  { c, ok = calls()[number]; return c, ok }
func (c call) file() (fd, path int, ok bool) { return c.fd, c.path, c.fd >= 0 || c.path >= 0 }

// calls that wait for a file, a mount or a device, by the number that this
// architecture gives them.
func calls() map[int64]call {
	m := map[int64]call{
		unix.SYS_SYNC: plain("sync"), unix.SYS_EXIT_GROUP: plain("exit_group"), unix.SYS_EXIT: plain("exit"), unix.SYS_MUNMAP: plain("munmap"),
		unix.SYS_IO_SUBMIT: plain("io_submit"), unix.SYS_IO_GETEVENTS: plain("io_getevents"), unix.SYS_IO_URING_ENTER: plain("io_uring_enter"),
		unix.SYS_MMAP: onFD("mmap", 4), unix.SYS_EXECVE: onPath("execve", 0), unix.SYS_CHDIR: onPath("chdir", 0), unix.SYS_TRUNCATE: onPath("truncate", 0),
		unix.SYS_STATFS: onPath("statfs", 0), unix.SYS_MOUNT: onPath("mount", 1), unix.SYS_UMOUNT2: onPath("umount2", 0),
		unix.SYS_GETXATTR: onPath("getxattr", 0), unix.SYS_SETXATTR: onPath("setxattr", 0), unix.SYS_LGETXATTR: onPath("lgetxattr", 0),
		unix.SYS_LISTXATTR: onPath("listxattr", 0), unix.SYS_SYMLINKAT: inDir("symlinkat", 1, 2), unix.SYS_EXECVEAT: inDir("execveat", 0, 1),
	}
	for n, name := range map[int64]string{
		unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_READV: "readv", unix.SYS_WRITEV: "writev", unix.SYS_PREAD64: "pread64",
		unix.SYS_PWRITE64: "pwrite64", unix.SYS_PREADV: "preadv", unix.SYS_PWRITEV: "pwritev", unix.SYS_PREADV2: "preadv2", unix.SYS_PWRITEV2: "pwritev2",
		unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SYNC_FILE_RANGE: "sync_file_range", unix.SYS_SYNCFS: "syncfs",
		unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate", unix.SYS_GETDENTS64: "getdents64", unix.SYS_LSEEK: "lseek",
		unix.SYS_FSTAT: "fstat", unix.SYS_FSTATFS: "fstatfs", unix.SYS_IOCTL: "ioctl", unix.SYS_FCHMOD: "fchmod", unix.SYS_FCHOWN: "fchown",
		unix.SYS_FLOCK: "flock", unix.SYS_FCNTL: "fcntl", unix.SYS_CLOSE: "close", unix.SYS_FADVISE64: "fadvise64", unix.SYS_READAHEAD: "readahead",
		unix.SYS_COPY_FILE_RANGE: "copy_file_range", unix.SYS_SPLICE: "splice", unix.SYS_FCHDIR: "fchdir", unix.SYS_FGETXATTR: "fgetxattr",
		unix.SYS_FSETXATTR: "fsetxattr",
	} {
		m[n] = onFD(name, 0)
	}
	m[unix.SYS_SENDFILE] = onFD("sendfile", 1)
	for n, name := range map[int64]string{
		unix.SYS_OPENAT: "openat", unix.SYS_OPENAT2: "openat2", unix.SYS_STATX: "statx", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
		unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat", unix.SYS_MKNODAT: "mknodat", unix.SYS_FCHMODAT: "fchmodat",
		unix.SYS_FCHOWNAT: "fchownat", unix.SYS_FACCESSAT: "faccessat", unix.SYS_FACCESSAT2: "faccessat2", unix.SYS_READLINKAT: "readlinkat",
		unix.SYS_UTIMENSAT: "utimensat",
	} {
		m[n] = inDir(name, 0, 1)
	}
	legacyCalls(m)
	return m
}
