package runtimes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// dialTime is for a connection within one host: a listener's queue is full, or it
// is there at once.
const dialTime = 2 * time.Second

// dial connects to a TCP address within the network namespace of a process.
func (p *process) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ns, err := os.Open(p.path("ns/net"))
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of process %d: %w", p.pid, err)
	}
	defer ns.Close()
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd := -1
	err = within(ns, func() (err error) {
		// A socket belongs to the namespace that it was made in: the rest needs no
		// thread of its own.
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a socket in the network namespace of process %d: %w", p.pid, err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // FileConn has one of its own
	if err := connect(ctx, fd, to); err != nil {
		return nil, fmt.Errorf("connect to %v: %w", to, err)
	}
	return net.FileConn(f)
}

// within calls f on a thread that is in a network namespace. The thread ends with
// it: none is ever in another namespace than its neighbours expect.
func within(ns *os.File, f func() error) error {
	var own, there unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &own) == nil && unix.Fstat(int(ns.Fd()), &there) == nil && own.Dev == there.Dev && own.Ino == there.Ino {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and /proc/self/net is its namespace's: hold it
			// while another one goes.
			done <- within(ns, f)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// connect waits until a socket is connected.
func connect(ctx context.Context, fd int, to netip.AddrPort) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if err := unix.Connect(fd, sa); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	until := time.Now().Add(dialTime)
	for ctx.Err() == nil {
		left := min(time.Until(until), 100*time.Millisecond) // to see that ctx is done
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil || code == 0 {
				return err
			}
			return unix.Errno(code)
		}
	}
	return ctx.Err()
}
