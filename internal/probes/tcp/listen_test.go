package tcp

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// sleep listens with a backlog of 1 and becomes a program of one thread that
// does nothing.
func sleep(addr string) error {
	path, err := exec.LookPath("sleep")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(addr).To4())}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(name.(*unix.SockaddrInet4).Port)
	return unix.Exec(path, []string{"sleep", "600"}, os.Environ())
}

// TestKernelAcceptor fills the queue of a server whose only thread sleeps.
func TestKernelAcceptor(t *testing.T) {
	pair := newPair(t)
	client := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-tcp-client-%d", os.Getpid()))
	server := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-tcp-server-%d", os.Getpid()))
	h := start(t, &pair.B, server, "sleep "+pair.B.Addr)
	t.Cleanup(func() { h.cmd.Process.Kill() })
	port := h.port(t)
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.ListenInterval = time.Second
	env.Start(Spec(), cfg)
	time.Sleep(1200 * time.Millisecond) // the first look: what was before does not count

	overflow := func(r *signal.Record) bool {
		b, ok := r.Body.(*ListenOverflow)
		return ok && b.Netns == pair.B.Inode
	}
	dial := func() *helper {
		return start(t, &pair.A, client, "dial "+net.JoinHostPort(pair.B.Addr, port)+" 1 1500ms 0s 100")
	}
	// A backlog of 1 has room for two: no event.
	hs := []*helper{dial()}
	time.Sleep(2500 * time.Millisecond)
	for _, r := range env.Records() {
		if overflow(r) {
			t.Errorf("event though there was room: %s", r.Title)
		}
	}
	for range 6 {
		hs = append(hs, dial())
	}
	r := env.WaitRecord(overflow)
	b := r.Body.(*ListenOverflow)
	if strconv.Itoa(int(b.Port)) != port || b.Address != pair.B.Addr || b.Backlog != 1 || b.Queued < 1 || b.Overflows == 0 {
		t.Errorf("socket %+v, want port %s with a backlog of 1", b, port)
	}
	a := b.Acceptor
	if a == nil || int(a.Process.PID) != h.cmd.Process.Pid || a.Process.Comm != "sleep" || len(a.KernelStack) < 2 || a.CgroupID != server.ID || r.CgroupID != server.ID {
		t.Errorf("acceptor %+v, want process %d", a, h.cmd.Process.Pid)
	}
	if b.State != "S" || b.Syscall != "clock_nanosleep" || b.Threads != 1 || b.Runnable != 0 || len(b.Activity) != 1 || b.Activity[0].Threads != 1 {
		t.Errorf("state %q, system call %q of %d threads, %+v", b.State, b.Syscall, b.Threads, b.Activity)
	}
	if b.Wait != "" && !strings.Contains(b.Wait, "nanosleep") { // empty: a kernel without wchan
		t.Errorf("waits in %q", b.Wait)
	}
	if want := fmt.Sprintf("listen:%d:%s", pair.B.Inode, port); len(r.Keys) != 1 || r.Keys[0] != want || r.Lasted <= 0 || r.Lasted > 10*time.Second {
		t.Errorf("keys %q, want %q; lasted %v", r.Keys, want, r.Lasted)
	}
	t.Log(r.Title)
	for _, h := range hs {
		h.cmd.Process.Kill()
		h.cmd.Wait()
	}
}
