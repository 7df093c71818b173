//go:build !noprofiler

package engine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// allowMemlock makes the unwinder library's attempts to lift the limit of locked
// memory succeed, or say nothing, where the limit does not matter.
//
// The library lifts it before each map that it makes, and gives up when it
// cannot, which takes CAP_SYS_RESOURCE. Since Linux 5.11 BPF memory is charged
// to the memory cgroup and the limit is not asked (d5299b67dd59 "bpf: Memcg-based
// memory accounting for bpf maps"), so there the system call may as well do
// nothing: a filter answers it with success.
func allowMemlock() error {
	var old unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, nil, &old); err != nil {
		return err
	}
	all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &all, nil)
	if err == nil {
		return unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &old, nil)
	}
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	// It makes a map under a limit of 0, and says nothing when that works.
	if rlimit.RemoveMemlock() != nil {
		return err
	}
	return ignorePrlimit()
}

// ignorePrlimit has prlimit64(…, RLIMIT_MEMLOCK, …) do nothing and return 0 for
// all threads of this process, and those it starts, from now on.
func ignorePrlimit() error {
	const (
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret     = unix.BPF_RET | unix.BPF_K
		number  = 0  // offset of nr in struct seccomp_data
		second  = 24 // of the second argument's lower half
		answer0 = unix.SECCOMP_RET_ERRNO
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_PRLIMIT64, Jf: 3},
		{Code: load, K: second},
		{Code: equal, K: unix.RLIMIT_MEMLOCK, Jf: 1},
		{Code: ret, K: answer0},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	install := func() unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
		return errno
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	errno := install()
	if errno == unix.EACCES { // without CAP_SYS_ADMIN: only for those who give setuid programs up
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		errno = install()
	}
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("install the filter: %w", errno)
	}
	return nil
}
