package netdrop

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// normal are the reasons that stand for no loss, each with why. They are told
// by name: numbers differ between kernels.
var normal = []struct{ name, why string }{
	{"NOT_DROPPED_YET", "not a drop"},
	{"CONSUMED", "the packet got where it should"},
	{"SOCKET_CLOSE", "its socket was closed with data unread: the owner's will"},
	{"QUEUE_PURGE", "a queue was emptied because its owner went"},
	{"UNIX_DISCONNECT", "an AF_UNIX socket was disconnected"},
	{"UNIX_SKIP_OOB", "AF_UNIX out-of-band data was skipped"},
	{"SOCKET_FILTER", "a filter that the socket's owner set, for example that of tcpdump or a DHCP client"},
	{"OTHERHOST", "for another host: promiscuous mode, or a switch that floods"},
	{"UNHANDLED_PROTO", "nobody here speaks that protocol (LLDP, STP): usual on any Ethernet"},
	{"MAC_IEEE_MAC_CONTROL", "an Ethernet pause frame"},
	{"BRIDGE_INGRESS_STP_STATE", "spanning tree blocks the port, by design"},
	{"LOCAL_MAC", "an own frame came back"},
	{"UNICAST_IN_L2_MULTICAST", "unicast IP in a multicast frame: RFC 1122 wants it dropped"},
	{"TAP_FILTER", "not for the guest behind the tap device"},
	{"TAP_TXFILTER", "a filter that the owner of the tap device set"},
	{"IPV6DISABLED", "IPv6 is off on that interface"},
	{"DUP_FRAG", "a fragment that had come before"},
	{"TCP_OLD_DATA", "data that had come before: the loss was elsewhere, see retransmits"},
	{"TCP_OLD_SEQUENCE", "a segment before the window, as each shutdown on loopback makes one"},
	{"TCP_OLD_ACK", "an acknowledgement older than one that is known"},
	{"TCP_TOO_OLD_ACK", "the same, older still"},
	{"TCP_RFC7323_PAWS_ACK", "an old acknowledgement with an old time stamp"},
	{"TCP_OFOMERGE", "out of order, and merged into what was there"},
	{"TCP_RESET", "a reset that did its work"},
	{"TCP_CLOSE", "for a connection that is closed already"},
	{"TCP_ABORT_ON_DATA", "data for a connection whose program has closed it already; a reset tells the sender, and is an event"},
}

// notSpecified is the reason of calls that give none; see places.go.
const notSpecified = "NOT_SPECIFIED"

// noRouteIn is the reason of a packet that came in and has nowhere to go: of
// multicast it is normal, as without a reason.
const noRouteIn = "IP_INNOROUTES"

// noSocket is the reason of a packet that nobody waits for: of a TCP segment
// without SYN it is normal.
const noSocket = "NO_SOCKET"

// noReason is what the program says when the kernel gives no reason.
const noReason = 0xffffffff

// unknown is its name.
const unknown = "UNKNOWN"

// reason is one drop reason.
type reason struct {
	name   string
	normal bool
	none   bool // the kernel does not tell reasons
}

func (r reason) normality() string {
	switch {
	case r.none:
		return "unknown"
	case r.normal:
		return "true"
	default:
		return "false"
	}
}

// reasons knows the running kernel's drop reasons by number.
type reasons struct {
	types *btf.Spec // nil: no names

	mu   sync.Mutex
	by   map[uint32]reason
	subs map[uint32]*btf.Enum // of subsystems, nil when looked for in vain
}

func newReasons(types *btf.Spec) *reasons {
	r := &reasons{types: types, by: map[uint32]reason{noReason: {name: unknown, none: true}}, subs: map[uint32]*btf.Enum{}}
	for _, v := range enum(types, "skb_drop_reason").Values {
		name := strings.TrimPrefix(strings.TrimPrefix(v.Name, "SKB_DROP_REASON_"), "SKB_")
		if name == "MAX" || name == "SUBSYS_MASK" {
			continue
		}
		r.by[uint32(v.Value)] = reason{name: name, normal: isNormal(name)}
	}
	return r
}

func isNormal(name string) bool {
	for _, n := range normal {
		if n.name == name {
			return true
		}
	}
	return false
}

// enum returns an enum of the kernel, an empty one when there is none.
func enum(types *btf.Spec, name string) *btf.Enum {
	var e *btf.Enum
	if types == nil || types.TypeByName(name, &e) != nil {
		return &btf.Enum{}
	}
	return e
}

// of returns what is known of a reason. Names of subsystems' reasons are looked
// for when the first one comes.
func (r *reasons) of(n uint32) reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.by[n]
	if !ok {
		x = reason{name: r.subsystem(n)}
		r.by[n] = x
	}
	return x
}

// number returns the reason with that name, false when the kernel has none.
func (r *reasons) number(name string) (uint32, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, x := range r.by {
		if x.name == name {
			return n, true
		}
	}
	return 0, false
}

// subsystems by number: enum skb_drop_reason_subsys. Their reasons are in the
// types of the kernel or of the module.
var subsystems = map[uint32]struct{ label, module, enum, prefix string }{
	1: {"MAC80211_", "mac80211", "mac80211_drop_reason", "RX_DROP_"},
	2: {"OVS_", "openvswitch", "ovs_drop_reason", "OVS_DROP_"},
}

func (r *reasons) subsystem(n uint32) string {
	sub := n >> 16
	if sub == 0 {
		return "REASON_" + strconv.Itoa(int(n)) // newer than the types that we have
	}
	s, ok := subsystems[sub]
	if !ok {
		return "SUBSYSTEM_" + strconv.Itoa(int(sub)) + "_" + strconv.Itoa(int(n&0xffff))
	}
	e, looked := r.subs[sub]
	if !looked {
		e = enum(r.types, s.enum)
		if m, err := btf.LoadKernelModuleSpec(s.module); len(e.Values) == 0 && err == nil {
			e = enum(m, s.enum)
		}
		r.subs[sub] = e
	}
	for _, v := range e.Values {
		if uint32(v.Value) == n {
			return s.label + strings.TrimPrefix(v.Name, s.prefix)
		}
	}
	return s.label + strconv.Itoa(int(n&0xffff))
}

// quiet returns the set of reasons that make no event, and which of ignore are
// no reasons of this kernel.
func (r *reasons) quiet(ignore []string) (set [4]uint64, unknown []string) {
	known := make(map[string]bool, len(r.by))
	for n, x := range r.by {
		known[x.name] = true
		if n < 256 && (x.normal || slices.Contains(ignore, x.name)) {
			set[n>>6] |= 1 << (n & 63)
		}
	}
	for _, name := range ignore {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	return set, unknown
}
