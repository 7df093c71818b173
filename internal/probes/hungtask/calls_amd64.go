package hungtask

import "golang.org/x/sys/unix"

// legacyCalls adds what newer architectures have left out.
func legacyCalls(m map[int64]call) {
	for n, name := range map[int64]string{
		unix.SYS_OPEN: "open", unix.SYS_CREAT: "creat", unix.SYS_STAT: "stat", unix.SYS_LSTAT: "lstat", unix.SYS_ACCESS: "access",
		unix.SYS_UNLINK: "unlink", unix.SYS_MKDIR: "mkdir", unix.SYS_RMDIR: "rmdir", unix.SYS_RENAME: "rename", unix.SYS_LINK: "link",
		unix.SYS_CHMOD: "chmod", unix.SYS_CHOWN: "chown", unix.SYS_READLINK: "readlink", unix.SYS_MKNOD: "mknod", unix.SYS_UTIMES: "utimes",
	} {
		m[n] = onPath(name, 0)
	}
	m[unix.SYS_NEWFSTATAT] = inDir("newfstatat", 0, 1)
	m[unix.SYS_GETDENTS] = onFD("getdents", 0)
}
