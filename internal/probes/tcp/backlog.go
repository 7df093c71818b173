package tcp

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes and places in include/uapi/linux/inet_diag.h.
const (
	diagReqLen   = 56 // inet_diag_req_v2
	diagMsgLen   = 72 // inet_diag_msg
	diagWqueue   = 60 // of a socket that listens: its backlog
	diagInode    = 68
	tcpListen    = 10
	diagPatience = time.Second
)

// backlog asks the kernel how long the queue of a listener may be, 0 when it does
// not tell. /proc/net/tcp has the number that wait alone.
func (w *watcher) backlog(pid uint32, l listener) uint32 {
	ns, err := os.Open(w.path(pid, "ns/net"))
	if err != nil {
		return 0
	}
	defer ns.Close()
	type answer struct {
		n   uint32
		err error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var a answer
		if a.err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); a.err == nil {
			a.n, a.err = listening(l)
		}
		done <- a
	}()
	a := <-done
	if a.err != nil {
		w.env.Log.Debug("the backlog of a listener is not known", "err", a.err)
	}
	return a.n
}

// listening looks for a listener in the namespace of this thread.
func listening(l listener) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(diagPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, fmt.Errorf("set up sock_diag: %w", err)
	}
	req := make([]byte, unix.NLMSG_HDRLEN+diagReqLen)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if l.addr.Is4() {
		body[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(body[4:], 1<<tcpListen)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask sock_diag: %w", err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return 0, fmt.Errorf("read sock_diag: %w", err)
		}
		if backlog, done := findBacklog(buf[:n], l.inode); done {
			return backlog, nil
		}
	}
}

// findBacklog looks through messages of sock_diag for a socket; done when it is
// there, or when no more come.
func findBacklog(b []byte, inode uint64) (backlog uint32, done bool) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return 0, true
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:size]
		switch {
		case kind == unix.NLMSG_DONE || kind == unix.NLMSG_ERROR:
			return 0, true
		case len(body) >= diagMsgLen && uint64(binary.NativeEndian.Uint32(body[diagInode:])) == inode:
			return binary.NativeEndian.Uint32(body[diagWqueue:]), true
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return 0, false
}
