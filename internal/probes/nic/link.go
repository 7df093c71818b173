package nic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// link is a network device as rtnetlink describes it.
type link struct {
	index       int
	name        string
	kind        string // veth, bond, vlan, …; empty for hardware
	flags       uint32 // IFF_*
	operstate   uint8  // RFC 2863, as operstates has them
	carrier     bool
	mtu, txqlen uint32
	master      int // index of the bond or bridge that it is part of
	lower       int // index of the device below, such as that of a VLAN
	ups, downs  uint32
	protoDown   bool
	protoReason uint32 // bits of /etc/iproute2/protodown_reasons.d
	bond        bond
	slave       slave
}

// bond is the state of a bonding device.
type bond struct {
	is         bool
	mode       uint8
	active     int // index of the active slave of a mode that has one
	lacp       bool
	aggregator uint16
	ports      uint16
	partner    [6]byte
}

// slave is the state of a device that is part of a bonding device.
type slave struct {
	is         bool
	backup     bool
	mii        uint8 // 0 is up
	failures   uint32
	lacp       bool
	aggregator uint16
	actor      uint8 // port states of IEEE 802.1AX, see lacpWorks
	partner    uint16
}

// modeLACP is BOND_MODE_8023AD.
const modeLACP = 4

// lacpWorks are the bits of a port that takes part: in sync, collecting, distributing.
const lacpWorks = 0x08 | 0x10 | 0x20

// joined tells whether both ends of a slave's link use it for the aggregate.
func (s *slave) joined() bool {
	return s.actor&lacpWorks == lacpWorks && s.partner&lacpWorks == lacpWorks
}

// operstates by the number that rtnetlink gives them.
var operstates = [...]string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}

// usable tells whether packets can pass: the device is up, and so is its link.
func (l *link) usable() bool { return l.flags&unix.IFF_UP != 0 && l.flags&unix.IFF_RUNNING != 0 }

// sizeofIfinfomsg is that of the header before the attributes.
const sizeofIfinfomsg = unix.SizeofIfInfomsg

// parseLink reads the payload of an RTM_NEWLINK or RTM_DELLINK message.
func parseLink(b []byte) (*link, error) {
	if len(b) < sizeofIfinfomsg {
		return nil, fmt.Errorf("parse link: %d bytes", len(b))
	}
	l := &link{index: int(int32(binary.NativeEndian.Uint32(b[4:]))), flags: binary.NativeEndian.Uint32(b[8:])}
	err := attributes(b[sizeofIfinfomsg:], func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_MTU:
			l.mtu = ad.Uint32()
		case unix.IFLA_TXQLEN:
			l.txqlen = ad.Uint32()
		case unix.IFLA_MASTER:
			l.master = int(int32(ad.Uint32()))
		case unix.IFLA_LINK:
			l.lower = int(int32(ad.Uint32()))
		case unix.IFLA_OPERSTATE:
			l.operstate = ad.Uint8()
		case unix.IFLA_CARRIER:
			l.carrier = ad.Uint8() != 0
		case unix.IFLA_CARRIER_UP_COUNT:
			l.ups = ad.Uint32()
		case unix.IFLA_CARRIER_DOWN_COUNT:
			l.downs = ad.Uint32()
		case unix.IFLA_PROTO_DOWN:
			l.protoDown = ad.Uint8() != 0
		case unix.IFLA_PROTO_DOWN_REASON:
			return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				if ad.Type() == unix.IFLA_PROTO_DOWN_REASON_VALUE {
					l.protoReason = ad.Uint32()
				}
				return nil
			})
		case unix.IFLA_LINKINFO:
			return l.parseInfo(ad.Bytes())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("parse link: %w", err)
	}
	if l.name == "" || l.index <= 0 {
		return nil, errors.New("parse link: no name or no index")
	}
	return l, nil
}

// parseInfo reads IFLA_LINKINFO: what kind of device it is comes before its data.
func (l *link) parseInfo(b []byte) error {
	var slaveKind string
	return attributes(b, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.IFLA_INFO_KIND:
			l.kind = ad.String()
			l.bond.is = l.kind == "bond"
		case unix.IFLA_INFO_DATA:
			if l.bond.is {
				return l.bond.parse(ad.Bytes())
			}
		case unix.IFLA_INFO_SLAVE_KIND:
			slaveKind = ad.String()
			l.slave.is = slaveKind == "bond"
		case unix.IFLA_INFO_SLAVE_DATA:
			if l.slave.is {
				return l.slave.parse(ad.Bytes())
			}
		}
		return nil
	})
}

func (b *bond) parse(raw []byte) error {
	return attributes(raw, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.IFLA_BOND_MODE:
			b.mode = ad.Uint8()
		case unix.IFLA_BOND_ACTIVE_SLAVE:
			b.active = int(int32(ad.Uint32()))
		case unix.IFLA_BOND_AD_INFO:
			b.lacp = true
			return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				switch ad.Type() {
				case unix.IFLA_BOND_AD_INFO_AGGREGATOR:
					b.aggregator = ad.Uint16()
				case unix.IFLA_BOND_AD_INFO_NUM_PORTS:
					b.ports = ad.Uint16()
				case unix.IFLA_BOND_AD_INFO_PARTNER_MAC:
					copy(b.partner[:], ad.Bytes())
				}
				return nil
			})
		}
		return nil
	})
}

func (s *slave) parse(raw []byte) error {
	return attributes(raw, func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.IFLA_BOND_SLAVE_STATE:
			s.backup = ad.Uint8() != 0
		case unix.IFLA_BOND_SLAVE_MII_STATUS:
			s.mii = ad.Uint8()
		case unix.IFLA_BOND_SLAVE_LINK_FAILURE_COUNT:
			s.failures = ad.Uint32()
		case unix.IFLA_BOND_SLAVE_AD_AGGREGATOR_ID:
			s.lacp, s.aggregator = true, ad.Uint16()
		case unix.IFLA_BOND_SLAVE_AD_ACTOR_OPER_PORT_STATE:
			s.actor = ad.Uint8()
		case unix.IFLA_BOND_SLAVE_AD_PARTNER_OPER_PORT_STATE:
			s.partner = ad.Uint16()
		}
		return nil
	})
}

// attributes calls f for each attribute of b.
func attributes(b []byte, f func(*netlink.AttributeDecoder) error) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		if err := f(ad); err != nil {
			return err
		}
	}
	return ad.Err()
}
