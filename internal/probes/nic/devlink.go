package nic

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// trap counts packets that the hardware did not forward, for one reason.
type trap struct {
	device, name, group, kind string
	packets, bytes            uint64 // given to the host
	drops                     uint64 // dropped by the device
	counts                    bool   // drops is known
}

// health is what a driver's reporter says of a part of the device.
type health struct {
	device, reporter   string
	failed             bool
	errors, recoveries uint64
}

// devices is what devlink tells of all devices.
type devices struct {
	traps  []trap
	health []health
}

// trapKinds by the number that devlink gives them.
var trapKinds = [...]string{"drop", "exception", "control"}

// sizeofGenl is that of the generic netlink header before the attributes: command, version, two bytes.
const sizeofGenl = 4

// genetlink is a family of generic netlink.
type genetlink struct {
	conn   *netlink.Conn
	family netlink.HeaderType // 0: not known yet
	group  uint32             // of notifications
}

// devlink asks drivers for what their devices dropped and for their health. It
// takes locks of the device, so that a device that is reset may make it wait.
type devlink struct{ genetlink }

// find looks up the family; without one this kernel has no devlink.
func (d *devlink) find() (bool, error) { return d.genetlink.find("devlink") }

// find looks up a family by its name, and tells whether this kernel has it.
func (d *genetlink) find(family string) (bool, error) {
	if d.family != 0 {
		return true, nil
	}
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.CTRL_ATTR_FAMILY_NAME, Data: append([]byte(family), 0)}})
	if err != nil {
		return false, err
	}
	messages, err := d.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.GENL_ID_CTRL, Flags: netlink.Request}, Data: append([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, name...),
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", family, err)
	}
	for _, m := range messages {
		if len(m.Data) < sizeofGenl {
			continue
		}
		if err := attributes(m.Data[sizeofGenl:], d.parseFamily); err != nil {
			return false, fmt.Errorf("look for %s: %w", family, err)
		}
	}
	return d.family != 0, nil
}

func (d *genetlink) parseFamily(ad *netlink.AttributeDecoder) error {
	switch ad.Type() {
	case unix.CTRL_ATTR_FAMILY_ID:
		d.family = netlink.HeaderType(ad.Uint16())
	case unix.CTRL_ATTR_MCAST_GROUPS:
		return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error { // it has one group
				if ad.Type() == unix.CTRL_ATTR_MCAST_GRP_ID {
					d.group = ad.Uint32()
				}
				return nil
			})
		})
	}
	return nil
}

// dump gives the answers to a command to f.
func (d *devlink) dump(command uint8, f func([]byte) error) error {
	messages, err := d.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: d.family, Flags: netlink.Request | netlink.Dump}, Data: []byte{command, 1, 0, 0},
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil // a kernel that does not know the command: traps came with v5.4
	}
	if err != nil {
		return fmt.Errorf("ask devlink: %w", err)
	}
	for _, m := range messages {
		if m.Header.Type != d.family {
			continue
		}
		if err := f(m.Data); err != nil {
			return err
		}
	}
	return nil
}

// read asks for everything.
func (d *devlink) read() (out devices, err error) {
	ok, err := d.find()
	if err != nil || !ok {
		return out, err
	}
	err = d.dump(unix.DEVLINK_CMD_TRAP_GET, func(b []byte) error {
		t, err := parseTrap(b)
		out.traps = append(out.traps, t)
		return err
	})
	if err != nil {
		return out, err
	}
	err = d.dump(unix.DEVLINK_CMD_HEALTH_REPORTER_GET, func(b []byte) error {
		h, err := parseHealth(b)
		out.health = append(out.health, h)
		return err
	})
	return out, err
}

// handle is the name that the devlink command has for a device or its port.
type handle struct {
	bus, dev, port string
}

func (h *handle) parse(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.DEVLINK_ATTR_BUS_NAME:
		h.bus = ad.String()
	case unix.DEVLINK_ATTR_DEV_NAME:
		h.dev = ad.String()
	case unix.DEVLINK_ATTR_PORT_INDEX:
		h.port = "/" + strconv.FormatUint(uint64(ad.Uint32()), 10)
	}
}

func (h *handle) String() string { return h.bus + "/" + h.dev + h.port }

func parseTrap(b []byte) (t trap, err error) {
	if len(b) < sizeofGenl {
		return t, fmt.Errorf("parse trap: %d bytes", len(b))
	}
	var h handle
	err = attributes(b[sizeofGenl:], func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.DEVLINK_ATTR_TRAP_NAME:
			t.name = ad.String()
		case unix.DEVLINK_ATTR_TRAP_GROUP_NAME:
			t.group = ad.String()
		case unix.DEVLINK_ATTR_TRAP_TYPE:
			t.kind = "other"
			if k := ad.Uint8(); int(k) < len(trapKinds) {
				t.kind = trapKinds[k]
			}
		case unix.DEVLINK_ATTR_STATS:
			return attributes(ad.Bytes(), t.parseStats)
		default:
			h.parse(ad)
		}
		return nil
	})
	t.device = h.String()
	if err == nil && t.name == "" {
		err = errors.New("no name")
	}
	if err != nil {
		return t, fmt.Errorf("parse trap: %w", err)
	}
	return t, nil
}

func (t *trap) parseStats(ad *netlink.AttributeDecoder) error {
	switch ad.Type() {
	case unix.DEVLINK_ATTR_STATS_RX_PACKETS:
		t.packets = ad.Uint64()
	case unix.DEVLINK_ATTR_STATS_RX_BYTES:
		t.bytes = ad.Uint64()
	case unix.DEVLINK_ATTR_STATS_RX_DROPPED:
		t.counts, t.drops = true, ad.Uint64()
	}
	return nil
}

func parseHealth(b []byte) (r health, err error) {
	if len(b) < sizeofGenl {
		return r, fmt.Errorf("parse health: %d bytes", len(b))
	}
	var h handle
	err = attributes(b[sizeofGenl:], func(ad *netlink.AttributeDecoder) error {
		if ad.Type() != unix.DEVLINK_ATTR_HEALTH_REPORTER {
			h.parse(ad)
			return nil
		}
		return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			switch ad.Type() {
			case unix.DEVLINK_ATTR_HEALTH_REPORTER_NAME:
				r.reporter = ad.String()
			case unix.DEVLINK_ATTR_HEALTH_REPORTER_STATE:
				r.failed = ad.Uint8() != 0
			case unix.DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT:
				r.errors = ad.Uint64()
			case unix.DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT:
				r.recoveries = ad.Uint64()
			}
			return nil
		})
	})
	r.device = h.String()
	if err == nil && r.reporter == "" {
		err = errors.New("no name")
	}
	if err != nil {
		return r, fmt.Errorf("parse health: %w", err)
	}
	return r, nil
}

// compareHealth tells which reporters found errors since the last reading.
func compareHealth(was, now []health) (out []report) {
	type key struct{ device, reporter string }
	before := make(map[key]health, len(was))
	for _, h := range was {
		before[key{h.device, h.reporter}] = h
	}
	for _, h := range now {
		old, known := before[key{h.device, h.reporter}]
		state := map[bool]string{false: "healthy", true: "error"}
		r := report{severity: signal.Critical, body: NIC{Device: h.device, What: "health_error", Queue: -1,
			Reason: "reporter " + h.reporter, Before: state[old.failed], After: state[h.failed]}}
		switch {
		case !known:
			continue
		case h.errors > old.errors && h.failed:
			r.title = fmt.Sprintf("%s: the driver's reporter %s found %d errors", h.device, h.reporter, h.errors-old.errors)
		case h.errors > old.errors:
			r.severity = signal.Warning
			r.title = fmt.Sprintf("%s: the driver's reporter %s found %d errors and recovered", h.device, h.reporter, h.errors-old.errors)
		case old.failed && !h.failed:
			r.severity, r.body.What = signal.Info, "health_recovered"
			r.title = fmt.Sprintf("%s: the driver's reporter %s has recovered", h.device, h.reporter)
		default:
			continue
		}
		out = append(out, r)
	}
	return out
}

// readDevices asks devlink, and tells of errors since it was last asked.
func (r *reader) readDevices() (devices, error) {
	now, err := r.devlink.read()
	if err != nil {
		return now, err
	}
	was, _ := r.devices.get()
	r.tracker.report(compareHealth(was.health, now.health))
	return now, nil
}

// hear waits for notifications, each of which makes devlink be asked again.
func (r *reader) hear(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.notices.SetReadDeadline(past) })()
	d := &devlink{genetlink{conn: r.notices}}
	if ok, err := d.find(); err != nil || !ok {
		return err
	}
	if err := r.notices.JoinGroup(d.group); err != nil {
		return fmt.Errorf("listen to devlink: %w", err)
	}
	for ctx.Err() == nil {
		if _, err := r.notices.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("listen to devlink: %w", err)
		}
		poke(r.told)
	}
	return nil
}
