package nic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/clock"
	"huatuo/internal/probe"
)

// reader asks the kernel about devices, each of its sources in a goroutine of its
// own. All of them take the lock of network configuration (RTNL), which a
// driver that hangs may hold for ever: nobody else waits for them.
type reader struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	tracker *tracker
	links   *netlink.Conn // tells of changes and answers dumps, so that both come in order
	queues  *netlink.Conn
	drivers ethtool
	devlink devlink
	states  genetlink     // of drivers' links
	bridges *netlink.Conn // data center bridging
	sysnet  string        // /sys/class/net
	notices *netlink.Conn // of devlink
	qdiscs  aside[[]*qdisc]
	ports   aside[map[string]*port]
	devices aside[devices]
	kick    chan struct{} // drivers are to be asked again
	told    chan struct{} // devlink is
	lost    chan struct{} // links are
	asking  atomic.Pointer[string]
	wg      sync.WaitGroup

	mu   sync.Mutex
	hung [len(sources)]bool // that a source does not answer was logged
}

func open(env *probe.Env, cfg Config, wants func(string) bool, netns int) (r *reader, err error) {
	r = &reader{cfg: cfg, log: env.Log, now: env.Now, kick: make(chan struct{}, 1), told: make(chan struct{}, 1), lost: make(chan struct{}, 1), drivers: ethtool{-1}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.sysnet = filepath.Join(env.Root, "sys/class/net")
	begun := r.now()
	r.qdiscs.at, r.ports.at, r.devices.at = begun, begun, begun
	r.tracker = &tracker{now: r.now, knobs: cfg.EventKnobs, wants: wants, port: r.port, emit: env.Emit,
		changed: r.again, seed: maphash.MakeSeed(), links: map[int]*tracked{}, heard: begun}
	if r.links, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK, NetNS: netns}); err != nil {
		return r, fmt.Errorf("open rtnetlink: %w", err)
	}
	// A storm of changes must fit until it is read; not root: the default does.
	if err := r.links.SetReadBuffer(1 << 20); err != nil {
		r.log.Debug("cannot enlarge the socket's buffer", "err", err)
	}
	for _, c := range []struct {
		to     **netlink.Conn
		family int
	}{{&r.queues, unix.NETLINK_ROUTE}, {&r.devlink.conn, unix.NETLINK_GENERIC}, {&r.notices, unix.NETLINK_GENERIC}, {&r.states.conn, unix.NETLINK_GENERIC}, {&r.bridges, unix.NETLINK_ROUTE}} {
		if *c.to, err = netlink.Dial(c.family, &netlink.Config{NetNS: netns}); err != nil {
			return r, fmt.Errorf("open netlink: %w", err)
		}
	}
	err = within(netns, func() (err error) {
		r.drivers.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("open socket for ethtool: %w", err)
	}
	return r, nil
}

// past is a deadline that ends a call at once.
var past = time.Unix(1, 0)

// within calls f on a thread in a network namespace.
func within(netns int, f func() error) error {
	if netns == 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// start begins to read until ctx ends, and returns once there are first answers,
// or when there are none for long. fail gets what makes it impossible to go on.
func (r *reader) start(ctx context.Context, fail func(error)) {
	first := make(chan struct{})
	for _, f := range []func() error{func() error { return r.follow(ctx, first) }, func() error { return r.dump(ctx) }} {
		r.wg.Go(func() {
			if err := f(); err != nil {
				fail(err)
			}
		})
	}
	r.wg.Go(func() {
		r.qdiscs.keep(ctx, r.now, r.cfg.Period, nil, r.readQdiscs, r.complain("queueing disciplines"))
	})
	r.wg.Go(func() {
		r.devices.keep(ctx, r.now, r.cfg.Drivers, r.told, r.readDevices, r.complain("devlink"))
	})
	r.wg.Go(func() {
		if err := r.hear(ctx); err != nil {
			r.log.Info("errors that drivers report are seen when they are asked only", "err", err)
		}
	})
	select {
	case <-first:
	case <-time.After(settle):
		r.log.Warn("the kernel does not answer about links")
	case <-ctx.Done():
	}
	r.wg.Go(func() {
		r.ports.keep(ctx, r.now, r.cfg.Drivers, r.kick, r.readPorts, r.complain("drivers"))
	})
}

// close ends what is open and waits for what does not hang.
func (r *reader) close() {
	for _, c := range []*netlink.Conn{r.links, r.queues, r.devlink.conn, r.notices, r.states.conn, r.bridges} {
		if c != nil {
			r.wg.Go(func() { c.Close() }) // waits for calls that hang
		}
	}
	wait(&r.wg)
	if r.drivers.fd >= 0 {
		unix.Close(r.drivers.fd)
	}
}

func (r *reader) complain(about string) func(error) {
	var last time.Time
	return func(err error) {
		if now := r.now(); now.Sub(last) > time.Minute {
			last = now
			r.log.Error("cannot read "+about, "err", err)
		}
	}
}

// follow reads changes of links as they come, and what dump asks for; first is
// closed when there are links.
func (r *reader) follow(ctx context.Context, first chan struct{}) error {
	defer context.AfterFunc(ctx, func() { r.links.SetReadDeadline(past) })()
	for told := false; ctx.Err() == nil; {
		messages, err := r.links.Receive()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EBUSY): // a dump that was asked for while the one before is not at its end
			continue
		case errors.Is(err, unix.ENOBUFS):
			r.tracker.overflow()
			poke(r.lost)
			continue
		default:
			return fmt.Errorf("read links: %w", err)
		}
		for _, m := range messages {
			dump := uint32(0)
			if m.Header.Flags&netlink.Multi != 0 {
				dump = m.Header.Sequence
			}
			r.tracker.message(uint16(m.Header.Type), dump, m.Data)
			if dump != 0 && !told {
				told = true
				close(first)
			}
		}
	}
	return nil
}

// dump asks for all links each period, and when changes were lost.
func (r *reader) dump(ctx context.Context) error {
	request := make([]byte, sizeofIfinfomsg+8)
	binary.NativeEndian.PutUint16(request[sizeofIfinfomsg:], 8)
	binary.NativeEndian.PutUint16(request[sizeofIfinfomsg+2:], unix.IFLA_EXT_MASK)
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS: drivers are not asked
	binary.NativeEndian.PutUint32(request[sizeofIfinfomsg+4:], skipStats)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sequence := uint32(1); ; sequence++ {
		select {
		case <-ctx.Done():
			return nil
		case <-r.lost:
		case <-timer.C:
		}
		m := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump, Sequence: max(1, sequence)}, Data: request}
		if _, err := r.links.Send(m); err != nil && ctx.Err() == nil {
			return fmt.Errorf("ask for links: %w", err)
		}
		timer.Reset(clock.Until(r.cfg.Period))
	}
}

// readQdiscs sums the queueing disciplines of each kind at each device.
func (r *reader) readQdiscs() ([]*qdisc, error) {
	messages, err := r.queues.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETQDISC, Flags: netlink.Request | netlink.Dump}, Data: make([]byte, sizeofTcmsg),
	})
	if err != nil {
		return nil, fmt.Errorf("ask for queueing disciplines: %w", err)
	}
	type key struct {
		index int
		kind  string
	}
	sums := map[key]*qdisc{}
	var out []*qdisc
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWQDISC {
			continue
		}
		q, err := parseQdisc(m.Data)
		if err != nil {
			return nil, err
		}
		k := key{q.index, q.kind}
		if sum := sums[k]; sum != nil {
			sum.add(q)
			continue
		}
		sums[k] = q
		out = append(out, q)
	}
	return out, nil
}

// readPorts asks the drivers of all devices that are reported.
func (r *reader) readPorts() (map[string]*port, error) {
	links, _ := r.tracker.reported()
	out := make(map[string]*port, len(links))
	defer r.asking.Store(nil)
	for _, l := range links {
		if l.flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		r.asking.Store(&l.name)
		p, err := r.drivers.ask(l.name)
		if err != nil {
			continue // a device without a driver that knows ethtool, or one that has gone
		}
		r.askMore(l, p)
		out[l.name] = p
		was := r.port(l.name)
		r.tracker.report(compareErrors(l.name, l.kind, was, p, float64(r.cfg.Errors)))
		r.tracker.report(compareStalls(l.name, l.kind, was, p))
	}
	return out, nil
}

// askMore asks for what few drivers tell; none of it need be there.
func (r *reader) askMore(l *link, p *port) {
	var err error
	if p.state, err = r.states.linkState(l.name); err != nil {
		r.log.Debug("the driver does not tell of its link", "device", l.name, "err", err)
	}
	if p.pfc, err = askPFC(r.bridges, l.name); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		r.log.Debug("the driver does not tell of data center bridging", "device", l.name, "err", err)
	}
	p.stalls = readStalls(r.sysnet, l.name)
}

// port returns what the driver of a device told last, nil when it did not.
func (r *reader) port(device string) *port {
	ports, _ := r.ports.get()
	return ports[device]
}

// again makes the drivers be asked soon: a link that comes may have another speed.
func (r *reader) again() { poke(r.kick) }

// poke leaves one token in c.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
