package tcp

import "golang.org/x/sys/unix"

// oldWaits are what newer architectures have left out.
func oldWaits() map[int64]string {
	return map[int64]string{unix.SYS_EPOLL_WAIT: "epoll_wait", unix.SYS_POLL: "poll", unix.SYS_SELECT: "select", unix.SYS_PAUSE: "pause"}
}
