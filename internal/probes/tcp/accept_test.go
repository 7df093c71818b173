package tcp

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// TestAcceptor: which of a process' threads should accept.
func TestAcceptor(t *testing.T) {
	type thr struct {
		tid   int
		state string
		call  int // -1: none
	}
	for _, tt := range []struct {
		name    string
		threads []thr
		want    uint32
		state   string
		syscall string
	}{
		{"in accept", []thr{{20, "S", unix.SYS_FUTEX}, {21, "S", unix.SYS_EPOLL_PWAIT}, {22, "S", unix.SYS_ACCEPT4}}, 22, "S", "accept4"},
		{"waits for events", []thr{{20, "S", unix.SYS_FUTEX}, {21, "S", unix.SYS_EPOLL_PWAIT}}, 21, "S", "epoll_pwait"},
		{"none tells: the first", []thr{{21, "S", unix.SYS_FUTEX}, {20, "S", unix.SYS_CLOCK_NANOSLEEP}, {22, "D", unix.SYS_FSYNC}}, 20, "S", "clock_nanosleep"},
		{"busy", []thr{{20, "R", -1}, {21, "S", unix.SYS_FUTEX}}, 20, "R", ""},
		{"a call that nobody knows", []thr{{20, "S", 9999}}, 20, "S", "9999"},
		{"gone", nil, 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, x := range tt.threads {
				dir := filepath.Join(root, "proc/20/task", fmt.Sprint(x.tid))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				files := map[string]string{
					"stat":    fmt.Sprintf("%d (srv) %s 1 20 20 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 2 0 100 0 0 18446744073709551615\n", x.tid, x.state),
					"syscall": fmt.Sprintf("%d 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8\n", x.call), "wchan": "do_wait", "stack": "[<0>] do_wait+0x1/0x2\n",
				}
				for name, text := range files {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			w := newWatcher(&probe.Env{Root: root})
			r, b := &signal.Record{Process: signal.Process{PID: 20}}, &ListenOverflow{}
			b.fill(r, w.threads(20), 5)
			got := uint32(0)
			if b.Acceptor != nil {
				got = b.Acceptor.Process.TID
				if len(b.Acceptor.KernelStack) != 1 || b.Acceptor.CgroupID != 5 || len(r.Parties) != 1 {
					t.Errorf("acceptor %+v", b.Acceptor)
				}
			}
			if got != tt.want || b.State != tt.state || b.Syscall != tt.syscall || (b.Wait == "") != (tt.state != "S" && tt.state != "D") || b.Threads != len(tt.threads) {
				t.Errorf("thread %d in state %q, %q, %q of %d; want %d, %q, %q", got, b.State, b.Syscall, b.Wait, b.Threads, tt.want, tt.state, tt.syscall)
			}
			sum := 0
			for _, a := range b.Activity {
				sum += a.Threads
			}
			if sum != len(tt.threads) {
				t.Errorf("activity %+v of %d threads", b.Activity, len(tt.threads))
			}
		})
	}
}

// TestFindBacklog reads messages as sock_diag sends them.
func TestFindBacklog(t *testing.T) {
	message := func(kind uint16, inode, backlog uint32) []byte {
		b := make([]byte, unix.NLMSG_HDRLEN+diagMsgLen)
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
		binary.NativeEndian.PutUint16(b[4:], kind)
		binary.NativeEndian.PutUint32(b[unix.NLMSG_HDRLEN+diagWqueue:], backlog)
		binary.NativeEndian.PutUint32(b[unix.NLMSG_HDRLEN+diagInode:], inode)
		return b
	}
	two := append(message(unix.SOCK_DIAG_BY_FAMILY, 7, 128), message(unix.SOCK_DIAG_BY_FAMILY, 8, 1)...)
	for _, tt := range []struct {
		name  string
		b     []byte
		inode uint64
		want  uint32
		done  bool
	}{
		{"first", two, 7, 128, true},
		{"second", two, 8, 1, true},
		{"not in this part", two, 9, 0, false},
		{"the end", message(unix.NLMSG_DONE, 9, 5), 9, 0, true},
		{"cut short", two[:20], 7, 0, true},
		{"nothing", nil, 7, 0, false},
	} {
		if n, done := findBacklog(tt.b, tt.inode); n != tt.want || done != tt.done {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, n, done, tt.want, tt.done)
		}
	}
}
