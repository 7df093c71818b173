package nic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// linkState is what a driver says of a link that is down: ETHTOOL_MSG_LINKSTATE_GET.
type linkState struct {
	told           bool // reason is known
	reason, detail string
	counted        bool // downs is known
	downs          uint32
}

// linkCause is a value of enum ethtool_link_ext_state, with its substates from 1 on.
type linkCause struct {
	name    string
	details []string
}

// linkCauses by the number of the state. Drivers that tell: mlx5, mlxsw, hns3,
// bnxt_en, ice, fbnic.
var linkCauses = [...]linkCause{
	{"autonegotiation", []string{"no_partner_detected", "ack_not_received", "next_page_exchange_failed", "no_partner_detected_force_mode", "fec_mismatch_during_override", "no_common_mode"}},
	{"link_training_failure", []string{"frame_lock_not_acquired", "link_inhibit_timeout", "partner_not_ready", "remote_fault"}},
	{"link_logical_mismatch", []string{"no_block_lock", "no_alignment_marker_lock", "no_align_status", "fc_fec_not_locked", "rs_fec_not_locked"}},
	{"bad_signal_integrity", []string{"many_physical_errors", "unsupported_rate", "serdes_reference_clock_lost", "serdes_signal_lost"}},
	{"no_cable", nil},
	{"cable_issue", []string{"unsupported_cable", "cable_test_failure"}},
	{"eeprom_issue", nil},
	{"calibration_failure", nil},
	{"power_budget_exceeded", nil},
	{"overheat", nil},
	{"module", []string{"cmis_not_ready"}},
	{"otp_speed_violation", nil}, // this and the next: 6.18
	{"bmc_request_down", nil},
}

var (
	linkDown = gauge("netdev_link_down_reason", "1", "1, with the reason that the driver gives for a link that is down.",
		"no_cable, cable_issue, eeprom_issue, module: what is plugged in; autonegotiation, link_training_failure, link_logical_mismatch: the two ends do not agree (speed, FEC); bad_signal_integrity: a bad cable or port. Absent while the link is up, and where the driver does not tell.",
		signal.Field{Name: "reason", Help: "The kernel's ETHTOOL_LINK_EXT_STATE.", Values: linkReasons()},
		signal.Field{Name: "detail", Help: "The kernel's ETHTOOL_LINK_EXT_SUBSTATE of the reason; empty when the driver tells none."})
	linkDowns = counter("netdev_link_physical_downs_total", "1", "How often the link went down for a physical reason, as the driver counts it.",
		"Unlike huatuo_netdev_carrier_changes_total it does not count what an administrator does. Few drivers tell.")
)

func linkReasons() []string {
	out := make([]string, 0, len(linkCauses)+1)
	for _, c := range linkCauses {
		out = append(out, c.name)
	}
	return append(out, "other")
}

// linkCauseOf names a state and its substate; 0 for no substate.
func linkCauseOf(state, sub uint8) (reason, detail string) {
	if int(state) >= len(linkCauses) {
		return "other", ""
	}
	c := linkCauses[state]
	switch {
	case sub == 0:
	case int(sub) <= len(c.details):
		detail = c.details[sub-1]
	default:
		detail = "other"
	}
	return c.name, detail
}

// linkState asks the driver of a device about its link; no answer is no error:
// the kernel knows the question since 5.6, and the reason since 5.10.
func (g *genetlink) linkState(device string) (s linkState, err error) {
	ok, err := g.find("ethtool")
	if err != nil || !ok {
		return s, err
	}
	name := append([]byte(device), 0)
	ae := netlink.NewAttributeEncoder()
	ae.Nested(unix.ETHTOOL_A_LINKSTATE_HEADER, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(unix.ETHTOOL_A_HEADER_DEV_NAME, name)
		return nil
	})
	request, err := ae.Encode()
	if err != nil {
		return s, fmt.Errorf("ask for link of %s: %w", device, err)
	}
	messages, err := g.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: g.family, Flags: netlink.Request}, Data: append([]byte{unix.ETHTOOL_MSG_LINKSTATE_GET, 1, 0, 0}, request...),
	})
	if err != nil {
		return s, fmt.Errorf("ask for link of %s: %w", device, err)
	}
	for _, m := range messages {
		if m.Header.Type == g.family {
			return parseLinkState(m.Data)
		}
	}
	return s, errors.New("ask for link of " + device + ": no answer")
}

// parseLinkState reads an ETHTOOL_MSG_LINKSTATE_GET_REPLY.
func parseLinkState(b []byte) (s linkState, err error) {
	if len(b) < sizeofGenl {
		return s, fmt.Errorf("parse link state: %d bytes", len(b))
	}
	var state, sub uint8
	err = attributes(b[sizeofGenl:], func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.ETHTOOL_A_LINKSTATE_EXT_STATE:
			s.told, state = true, ad.Uint8()
		case unix.ETHTOOL_A_LINKSTATE_EXT_SUBSTATE:
			sub = ad.Uint8()
		case unix.ETHTOOL_A_LINKSTATE_EXT_DOWN_CNT:
			s.counted, s.downs = true, ad.Uint32()
		}
		return nil
	})
	if err != nil {
		return linkState{}, fmt.Errorf("parse link state: %w", err)
	}
	if s.told {
		s.reason, s.detail = linkCauseOf(state, sub)
	}
	return s, nil
}

// Of include/uapi/linux/dcbnl.h, which x/sys does not have.
const (
	sizeofDcbmsg   = 4
	dcbCmdIEEEGet  = 21
	dcbAttrIfname  = 1
	dcbAttrIEEE    = 13
	dcbAttrIEEEPFC = 2
	priorities     = 8
	sizeofIEEEPFC  = 8 + 2*8*priorities
)

// pfc is priority flow control as a driver tells of it: struct ieee_pfc.
type pfc struct {
	told           bool
	enabled        [priorities]bool
	sent, received [priorities]uint64
}

var (
	priorityField = signal.Field{Name: "priority", Help: "Priority of the traffic, 0 to 7.", Values: []string{"0", "1", "2", "3", "4", "5", "6", "7"}}
	pfcEnabled    = gauge("netdev_priority_flow_control", "1", "1 when frames of the priority can be stopped one priority at a time (IEEE 802.1Qbb).",
		"Must be the same on the switch: RDMA over Converged Ethernet loses packets where it is not. Absent for a device without data center bridging.", priorityField)
	pfcFrames = counter("netdev_priority_flow_control_frames_total", "1", "Priority flow control frames, as data center bridging counts them.",
		"receive: the switch stops this host; transmit: this host stops the switch, since it does not fetch fast enough. Drivers that do not count tell 0: see huatuo_netdev_pause_frames_total.",
		signal.Field{Name: "direction", Help: "receive or transmit", Values: []string{"receive", "transmit"}}, priorityField)
)

// askPFC asks for the data center bridging of a device. One that has none is not told.
func askPFC(conn *netlink.Conn, device string) (p pfc, err error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: dcbAttrIfname, Data: append([]byte(device), 0)}})
	if err != nil {
		return p, err
	}
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETDCB, Flags: netlink.Request}, Data: append([]byte{unix.AF_UNSPEC, dcbCmdIEEEGet, 0, 0}, name...),
	})
	if err != nil {
		return p, fmt.Errorf("ask for data center bridging of %s: %w", device, err)
	}
	for _, m := range messages {
		if m.Header.Type == unix.RTM_GETDCB || m.Header.Type == unix.RTM_SETDCB {
			return parsePFC(m.Data)
		}
	}
	return p, nil
}

// parsePFC reads the answer to DCB_CMD_IEEE_GET.
func parsePFC(b []byte) (p pfc, err error) {
	if len(b) < sizeofDcbmsg {
		return p, fmt.Errorf("parse data center bridging: %d bytes", len(b))
	}
	err = attributes(b[sizeofDcbmsg:], func(ad *netlink.AttributeDecoder) error {
		if ad.Type() != dcbAttrIEEE {
			return nil
		}
		return attributes(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			if ad.Type() == dcbAttrIEEEPFC {
				return p.parse(ad.Bytes())
			}
			return nil
		})
	})
	if err != nil {
		return pfc{}, fmt.Errorf("parse data center bridging: %w", err)
	}
	return p, nil
}

func (p *pfc) parse(b []byte) error {
	if len(b) < sizeofIEEEPFC {
		return fmt.Errorf("%d bytes of flow control", len(b))
	}
	p.told = true
	for i := range priorities {
		p.enabled[i] = b[1]>>i&1 != 0
		p.sent[i] = binary.NativeEndian.Uint64(b[8+8*i:])
		p.received[i] = binary.NativeEndian.Uint64(b[8+8*(priorities+i):])
	}
	return nil
}

func collectLinkState(b *signal.Batch, device string, p *port) {
	if s := &p.state; s.told {
		b.Value(linkDown, 1, device, s.reason, s.detail)
	}
	if p.state.counted {
		b.Value(linkDowns, float64(p.state.downs), device)
	}
	if !p.pfc.told {
		return
	}
	for i, name := range priorityField.Values {
		b.Value(pfcEnabled, truth(p.pfc.enabled[i]), device, name)
		b.Value(pfcFrames, float64(p.pfc.sent[i]), device, "transmit", name)
		b.Value(pfcFrames, float64(p.pfc.received[i]), device, "receive", name)
	}
}
