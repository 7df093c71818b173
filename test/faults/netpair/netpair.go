// Package netpair makes two network namespaces with a veth pair between them,
// to lose packets in without harm to the host. It needs root and iproute2.
package netpair

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Side is one of the two namespaces.
type Side struct {
	Name   string // as in /run/netns
	Device string // its end of the pair
	Addr   string // IPv4, without prefix length
	Addr6  string // IPv6
	Inode  uint32 // number of the namespace
}

// Pair is two namespaces that can reach each other.
type Pair struct{ A, B Side }

// New makes a pair whose names begin with prefix, ten characters at most.
// Close it, also after an error.
func New(prefix string) (*Pair, error) {
	p := &Pair{
		A: Side{Name: prefix + "-a", Device: prefix + "a", Addr: "192.0.2.1", Addr6: "2001:db8::1"},
		B: Side{Name: prefix + "-b", Device: prefix + "b", Addr: "192.0.2.2", Addr6: "2001:db8::2"},
	}
	for _, s := range []*Side{&p.A, &p.B} {
		if err := command("ip", "netns", "add", s.Name); err != nil {
			return p, err
		}
		var st syscall.Stat_t
		if err := syscall.Stat("/run/netns/"+s.Name, &st); err != nil {
			return p, fmt.Errorf("read number of namespace: %w", err)
		}
		s.Inode = uint32(st.Ino)
	}
	if err := command("ip", "link", "add", p.A.Device, "netns", p.A.Name, "type", "veth", "peer", "name", p.B.Device, "netns", p.B.Name); err != nil {
		return p, err
	}
	for _, s := range []*Side{&p.A, &p.B} {
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"addr", "add", s.Addr + "/24", "dev", s.Device},
			{"addr", "add", s.Addr6 + "/64", "dev", s.Device, "nodad"},
			{"link", "set", s.Device, "up"},
		} {
			if err := command("ip", append([]string{"-n", s.Name}, args...)...); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// Close removes both namespaces and with them all that is in them.
func (p *Pair) Close() error {
	var errs []error
	for _, s := range []Side{p.A, p.B} {
		if _, err := os.Stat("/run/netns/" + s.Name); err == nil {
			errs = append(errs, command("ip", "netns", "del", s.Name))
		}
	}
	return errors.Join(errs...)
}

// Run runs a command in the namespace.
func (s *Side) Run(name string, args ...string) error {
	return command("ip", append([]string{"netns", "exec", s.Name, name}, args...)...)
}

// Do calls f on a thread that is in the namespace: sockets that f makes itself
// are there, those that other goroutines make for it are not.
func (s *Side) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- s.enter(f) // never unlocked: the thread ends with the goroutine
			return
		}
		// The main thread does not end so, and it is the one whose namespace
		// /proc/net shows: it is held here while another one does it.
		defer runtime.UnlockOSThread()
		other := make(chan error)
		go func() {
			runtime.LockOSThread()
			other <- s.enter(f)
		}()
		done <- <-other
	}()
	return <-done
}

// enter moves the thread into the namespace for good and calls f.
func (s *Side) enter(f func() error) error {
	ns, err := os.Open("/run/netns/" + s.Name)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", s.Name, err)
	}
	return f()
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
