package nic

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// NIC is the body of a nic event.
type NIC struct {
	Device      string  `json:"device" help:"network device; of health events the name that the devlink command has for it"`
	Kind        string  `json:"kind" help:"kind of a software device (bond, veth, …); empty for hardware"`
	What        string  `json:"what" help:"what happened: link_down, link_up, transmit_timeout, bond_active (another slave is used), bond_slave_down, bond_slave_up, bond_slave_removed, lacp_joined, lacp_left (both ends use a slave's link for the aggregate, or do not any more), lacp_partner (the other end of the aggregate is another), driver_errors (counters of the driver that moved much), transmit_stall (completions that came late), health_error, health_recovered (of the driver's own reporters)"`
	Reason      string  `json:"reason" help:"why, when the kernel tells"`
	Before      string  `json:"before" help:"what was: operational state, active slave, partner"`
	After       string  `json:"after" help:"what is"`
	Bond        string  `json:"bond" help:"bond that the device is part of, or the event is about"`
	DownSeconds float64 `json:"down_seconds" unit:"seconds" help:"of link_up: how long the link was down; 0 when not known"`
	Queue       int     `json:"queue" help:"of transmit_timeout: number of the queue; -1 otherwise"`
	Netns       uint32  `json:"netns" help:"of transmit_timeout: inode number of the device's network namespace; 0 otherwise, which is the agent's"`
	Driver      string  `json:"driver" help:"driver of the device"`
	Firmware    string  `json:"firmware" help:"version of the firmware"`
	Bus         string  `json:"bus" help:"address on the bus"`
	SpeedBytes  float64 `json:"speed_bytes" unit:"bytes" help:"speed of the link in bytes per second when the driver was last asked; 0 when not known"`
}

var happened = signal.EventOf[NIC]("nic", signal.AreaNetwork, signal.Warning,
	"A network device lost or got its link, stopped sending, or changed its place in a bond.").When(
	"A change that the kernel tells of a link, a bond, a queue that does not send or a device's health, or a driver's counter of errors that moves by `errors` (100) between two readings: a link at its best loses less.",
	"Devices of containers on the host's side come and go and are left out. A link that is set up or down by an administrator or at boot is an event of severity info.")

// report is an event in the making.
type report struct {
	port     *port // of the device; nil when nothing is known of it
	body     NIC
	severity signal.Severity
	title    string
}

func say(l *link, what string, sev signal.Severity, format string, args ...any) report {
	return report{severity: sev, title: fmt.Sprintf(format, args...),
		body: NIC{Device: l.name, Kind: l.kind, What: what, Queue: -1}}
}

// compare tells what happened between two descriptions of a device; now is nil
// when it is gone. name gives the names of others by index, down is how long the
// device was without a link.
func compare(was, now *link, name func(int) string, down time.Duration) (out []report) {
	if now == nil {
		if was.usable() {
			r := say(was, "link_down", signal.Info, "%s is gone", was.name)
			r.body.Reason, r.body.Before, r.body.After = "device removed", operstate(was), "gone"
			out = append(out, r)
		}
		return out
	}
	if was.usable() != now.usable() {
		out = append(out, compareLink(was, now, down))
	}
	if was.bond.is && now.bond.is {
		out = append(out, compareBond(was, now, name)...)
	}
	if was.slave.is {
		out = append(out, compareSlave(was, now, name)...)
	}
	return out
}

func compareLink(was, now *link, down time.Duration) (r report) {
	if now.usable() {
		r = say(now, "link_up", signal.Info, "%s has a link", now.name)
		if down > 0 {
			r.body.DownSeconds = down.Seconds()
			r.title += " again after " + down.Round(time.Millisecond).String()
		}
	} else {
		r = say(now, "link_down", signal.Warning, "%s lost its link", now.name)
		r.body.Reason = downReason(now)
		r.title += ": " + r.body.Reason
		if now.flags&unix.IFF_UP == 0 {
			r.severity = signal.Info // by somebody's will
			r.title = now.name + " was set down"
		}
	}
	r.body.Before, r.body.After = operstate(was), operstate(now)
	return r
}

// downReason says why a device is not usable.
func downReason(l *link) string {
	switch {
	case l.flags&unix.IFF_UP == 0:
		return "set down"
	case l.protoDown && l.protoReason != 0:
		return fmt.Sprintf("held down by a protocol (reason bits %#x)", l.protoReason)
	case l.protoDown:
		return "held down by a protocol"
	case operstate(l) == "lowerlayerdown":
		return "the device below, or the other end, is down"
	case operstate(l) == "dormant":
		return "waits for a protocol"
	case !l.carrier:
		return "no carrier"
	default:
		return "not running"
	}
}

func operstate(l *link) string {
	if int(l.operstate) < len(operstates) {
		return operstates[l.operstate]
	}
	return operstates[0]
}

func compareBond(was, now *link, name func(int) string) (out []report) {
	if a, b := was.bond.active, now.bond.active; a != b {
		r := say(now, "bond_active", signal.Warning, "%s sends by %s, not by %s any more", now.name, orNone(name(b)), orNone(name(a)))
		if a == 0 {
			r = say(now, "bond_active", signal.Info, "%s sends by %s", now.name, name(b))
		}
		r.body.Before, r.body.After, r.body.Bond = name(a), name(b), now.name
		out = append(out, r)
	}
	if a, b := was.bond.partner, now.bond.partner; a != b {
		r := say(now, "lacp_partner", signal.Warning, "%s lost the other end of its aggregate", now.name)
		if b != [6]byte{} {
			r = say(now, "lacp_partner", signal.Info, "the other end of %s is %s", now.name, mac(b))
		}
		r.body.Before, r.body.After, r.body.Bond = mac(a), mac(b), now.name
		out = append(out, r)
	}
	return out
}

func compareSlave(was, now *link, name func(int) string) (out []report) {
	add := func(what string, sev signal.Severity, format string) {
		r := say(now, what, sev, format, now.name, orNone(name(was.master)))
		r.body.Bond = name(was.master)
		out = append(out, r)
	}
	a, b := &was.slave, &now.slave
	switch {
	case !b.is || was.master != now.master:
		add("bond_slave_removed", signal.Info, "%s is no part of %s any more")
		return out
	case a.mii == 0 && b.mii != 0:
		add("bond_slave_down", signal.Warning, "%s is down for %s")
	case a.mii != 0 && b.mii == 0:
		add("bond_slave_up", signal.Info, "%s is up for %s")
	}
	switch {
	case a.joined() && !b.joined():
		add("lacp_left", signal.Warning, "%s left the aggregate of %s")
	case !a.joined() && b.joined():
		add("lacp_joined", signal.Info, "%s joined the aggregate of %s")
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "no device"
	}
	return s
}

func mac(b [6]byte) string {
	if b == [6]byte{} {
		return ""
	}
	s := make([]string, len(b))
	for i, v := range b {
		s[i] = fmt.Sprintf("%02x", v)
	}
	return strings.Join(s, ":")
}

// record makes the event.
func (r *report) record(at time.Time, suppressed uint64) *signal.Record {
	if p := r.port; p != nil {
		r.body.Driver, r.body.Firmware, r.body.Bus, r.body.SpeedBytes = p.driver, p.firmware, p.bus, p.speed
	}
	return &signal.Record{Schema: happened, Time: at, Severity: r.severity, Title: r.title, Suppressed: suppressed, Body: &r.body}
}
