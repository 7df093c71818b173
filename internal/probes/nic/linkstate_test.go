package nic

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// linkReply is an ETHTOOL_MSG_LINKSTATE_GET_REPLY as Documentation/networking/ethtool-netlink.rst has it.
func linkReply(t testing.TB, attrs ...netlink.Attribute) []byte {
	t.Helper()
	head, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.ETHTOOL_A_HEADER_DEV_INDEX, Data: []byte{2, 0, 0, 0}}, {Type: unix.ETHTOOL_A_HEADER_DEV_NAME, Data: []byte("eth0\x00")},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := append([]netlink.Attribute{{Type: unix.ETHTOOL_A_LINKSTATE_HEADER | unix.NLA_F_NESTED, Data: head}, {Type: unix.ETHTOOL_A_LINKSTATE_LINK, Data: []byte{0}}}, attrs...)
	b, err := netlink.MarshalAttributes(all)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.ETHTOOL_MSG_LINKSTATE_GET_REPLY, 1, 0, 0}, b...)
}

func TestParseLinkState(t *testing.T) {
	state := func(v uint8) netlink.Attribute {
		return netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_STATE, Data: []byte{v}}
	}
	sub := func(v uint8) netlink.Attribute {
		return netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_SUBSTATE, Data: []byte{v}}
	}
	downs := netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_DOWN_CNT, Data: binary.NativeEndian.AppendUint32(nil, 7)}
	for _, c := range []struct {
		what  string
		attrs []netlink.Attribute
		want  linkState
	}{
		{"a driver that tells nothing", nil, linkState{}},
		{"no cable", []netlink.Attribute{state(unix.ETHTOOL_LINK_EXT_STATE_NO_CABLE)}, linkState{told: true, reason: "no_cable"}},
		{"no partner", []netlink.Attribute{state(unix.ETHTOOL_LINK_EXT_STATE_AUTONEG), sub(unix.ETHTOOL_LINK_EXT_SUBSTATE_AN_NO_PARTNER_DETECTED)},
			linkState{told: true, reason: "autonegotiation", detail: "no_partner_detected"}},
		{"FEC", []netlink.Attribute{sub(unix.ETHTOOL_LINK_EXT_SUBSTATE_LLM_RS_FEC_IS_NOT_LOCKED), state(unix.ETHTOOL_LINK_EXT_STATE_LINK_LOGICAL_MISMATCH), downs},
			linkState{told: true, reason: "link_logical_mismatch", detail: "rs_fec_not_locked", counted: true, downs: 7}},
		{"a module", []netlink.Attribute{state(10), sub(1)}, linkState{told: true, reason: "module", detail: "cmis_not_ready"}},
		{"a detail of a newer kernel", []netlink.Attribute{state(10), sub(9)}, linkState{told: true, reason: "module", detail: "other"}},
		{"a reason of a newer kernel", []netlink.Attribute{state(77), sub(1)}, linkState{told: true, reason: "other"}},
		{"a link that is up", []netlink.Attribute{downs}, linkState{counted: true, downs: 7}},
	} {
		got, err := parseLinkState(linkReply(t, c.attrs...))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
	}
	if got, want := linkCauses[unix.ETHTOOL_LINK_EXT_STATE_OVERHEAT].name, "overheat"; got != want {
		t.Errorf("the state of that number is %s, want %s", got, want)
	}
	for _, b := range [][]byte{nil, {6, 1}, append([]byte{6, 1, 0, 0}, 9, 0, 5, 0, 1)} {
		if _, err := parseLinkState(b); err == nil {
			t.Errorf("%x parses", b)
		}
	}
}

// dcbReply is the answer to DCB_CMD_IEEE_GET with flow control for the priorities of a mask.
func dcbReply(t testing.TB, enabled uint8, size int) []byte {
	t.Helper()
	p := make([]byte, sizeofIEEEPFC)
	p[0], p[1] = 8, enabled
	for i := range priorities {
		binary.NativeEndian.PutUint64(p[8+8*i:], uint64(100+i))
		binary.NativeEndian.PutUint64(p[72+8*i:], uint64(200+i))
	}
	ieee, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: make([]byte, 56)}, {Type: dcbAttrIEEEPFC, Data: p[:size]}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: dcbAttrIfname, Data: []byte("eth0\x00")}, {Type: dcbAttrIEEE, Data: ieee}, {Type: 14, Data: []byte{8}}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.AF_UNSPEC, dcbCmdIEEEGet, 0, 0}, b...)
}

func TestParsePFC(t *testing.T) {
	p, err := parsePFC(dcbReply(t, 1<<3|1<<7, sizeofIEEEPFC))
	if err != nil || !p.told || p.sent[3] != 103 || p.received[0] != 200 || p.received[7] != 207 {
		t.Errorf("%+v, %v", p, err)
	}
	for i, on := range p.enabled {
		if on != (i == 3 || i == 7) {
			t.Errorf("priority %d: %v", i, on)
		}
	}
	if p, err := parsePFC([]byte{0, dcbCmdIEEEGet, 0, 0}); err != nil || p.told {
		t.Errorf("an answer without flow control: %+v, %v", p, err)
	}
	if _, err := parsePFC(dcbReply(t, 0, 72)); err == nil {
		t.Error("half an answer parses")
	}
	if _, err := parsePFC(nil); err == nil {
		t.Error("no answer parses")
	}
}

// TestCollectLinkState: what a driver tells comes out under its labels, and what it does not is absent.
func TestCollectLinkState(t *testing.T) {
	state, err := parseLinkState(linkReply(t, netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_STATE, Data: []byte{5}},
		netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_SUBSTATE, Data: []byte{1}}, netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_DOWN_CNT, Data: []byte{3, 0, 0, 0}}))
	if err != nil {
		t.Fatal(err)
	}
	flow, err := parsePFC(dcbReply(t, 1<<3, sizeofIEEEPFC))
	if err != nil {
		t.Fatal(err)
	}
	links := []*link{{name: "eth0"}, {name: "eth1"}}
	b := &signal.Batch{}
	collectPorts(b, links, map[string]*port{
		"eth0": {state: state, pfc: flow, stalls: stalls{watched: true, threshold: 50 * time.Millisecond, count: 4}}, "eth1": {},
	})
	for _, c := range []struct {
		s      *signal.Schema
		labels []string
		want   float64
	}{
		{linkDown, []string{"eth0", "cable_issue", "unsupported_cable"}, 1}, {linkDowns, []string{"eth0"}, 3},
		{pfcEnabled, []string{"eth0", "3"}, 1}, {pfcEnabled, []string{"eth0", "4"}, 0},
		{pfcFrames, []string{"eth0", "transmit", "3"}, 103}, {pfcFrames, []string{"eth0", "receive", "3"}, 203},
		{stallsTotal, []string{"eth0"}, 4}, {stallThreshold, []string{"eth0"}, 0.05},
	} {
		if v, ok := probetest.Value(b.Samples, c.s.Name, c.labels...); !ok || v != c.want {
			t.Errorf("%s%q is %g, %v; want %g", c.s.Name, c.labels, v, ok, c.want)
		}
	}
	for _, s := range b.Samples {
		if s.Labels[0] == "eth1" && s.Schema != info {
			t.Errorf("%s%q of a device that tells nothing", s.Schema.Name, s.Labels)
		}
	}
}

// TestKernelLinkState asks this kernel about a device: a pair's driver knows
// whether it has a link and nothing more, and no data center bridging.
func TestKernelLinkState(t *testing.T) {
	p := newPair(t, probetest.New(t), nil)
	err := p.A.Do(func() error {
		generic, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
		if err != nil {
			return err
		}
		defer generic.Close()
		g := &genetlink{conn: generic}
		if ok, err := g.find("ethtool"); err != nil || !ok {
			t.Logf("the kernel has no ethtool over netlink (5.6): %v", err)
		} else if s, err := g.linkState(p.A.Device); err != nil || s != (linkState{}) {
			t.Errorf("state of %s: %+v, %v; want none", p.A.Device, s, err)
		}
		if ok, err := (&genetlink{conn: generic}).find("huatuo-nobody"); err != nil || ok {
			t.Errorf("a family that is not there: %v, %v", ok, err)
		}
		if _, err := g.linkState("huatuo-none"); g.family != 0 && err == nil {
			t.Error("a device that is not there has a state")
		}
		route, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
		if err != nil {
			return err
		}
		defer route.Close()
		if f, err := askPFC(route, p.A.Device); err == nil || f.told { // EOPNOTSUPP
			t.Errorf("data center bridging of %s: %+v, %v; want none", p.A.Device, f, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.becomes(1, up, p.A.Device)
	for _, s := range []*signal.Schema{linkDown, linkDowns, pfcEnabled, stallsTotal} {
		for _, sample := range p.Gather() {
			if sample.Schema == s && sample.Labels[0] == p.A.Device {
				t.Errorf("%s%q of a device that cannot tell it", s.Name, sample.Labels)
			}
		}
	}
}

// queueFiles makes the files of two queues of a device.
func queueFiles(t *testing.T, dir, device string, threshold, count string) {
	t.Helper()
	for _, q := range []string{"tx-0", "tx-1"} {
		at := filepath.Join(dir, device, "queues", q, "byte_queue_limits")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"stall_thrs": threshold, "stall_cnt": count, "stall_max": "9"} {
			if err := os.WriteFile(filepath.Join(at, name), []byte(value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStalls(t *testing.T) {
	dir := t.TempDir()
	queueFiles(t, dir, "eth0", "50", "3")
	if s := readStalls(dir, "eth0"); s != (stalls{true, 50 * time.Millisecond, 6}) {
		t.Errorf("two queues with 3 stalls each: %+v", s)
	}
	queueFiles(t, dir, "eth1", "0", "3")
	if s := readStalls(dir, "eth1"); s.watched {
		t.Errorf("nobody set a threshold: %+v", s)
	}
	if s := readStalls(dir, "eth2"); s.watched {
		t.Errorf("a device that is not there: %+v", s)
	}
	queueFiles(t, dir, "eth3", "x", "y")
	if s := readStalls(dir, "eth3"); s.watched {
		t.Errorf("files of another form: %+v", s)
	}
}

func TestCompareStalls(t *testing.T) {
	at := func(watched bool, n uint64) *port { return &port{stalls: stalls{watched, 50 * time.Millisecond, n}} }
	for _, c := range []struct {
		was, now *port
		want     string
	}{
		{at(true, 3), at(true, 5), "eth0 was slow to send: 2 completions came later than 50ms"},
		{at(true, 3), at(true, 3), ""}, {at(true, 3), at(true, 0), ""}, {at(false, 0), at(true, 4), ""}, {at(true, 3), at(false, 0), ""}, {nil, at(true, 5), ""},
	} {
		out := compareStalls("eth0", "", c.was, c.now)
		switch {
		case c.want == "" && len(out) > 0:
			t.Errorf("%+v to %+v: event %q", c.was, c.now, out[0].title)
		case c.want != "" && (len(out) != 1 || out[0].title != c.want || out[0].body.What != "transmit_stall" || out[0].severity != signal.Warning):
			t.Errorf("%+v to %+v: %+v, want %q", c.was.stalls, c.now.stalls, out, c.want)
		}
	}
}

// TestKernelStalls sets a threshold for a device of this host that nobody uses, where there is one.
func TestKernelStalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	is, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range is {
		files, _ := filepath.Glob("/sys/class/net/" + i.Name + "/queues/tx-*/byte_queue_limits/stall_thrs")
		if i.Flags&net.FlagUp != 0 || len(files) == 0 {
			continue
		}
		if s := readStalls("/sys/class/net", i.Name); s.watched {
			continue
		}
		for _, f := range files {
			probetest.Set(t, f, "100")
		}
		s := readStalls("/sys/class/net", i.Name)
		if !s.watched || s.threshold < 90*time.Millisecond || s.threshold > 110*time.Millisecond || s.count != 0 {
			t.Errorf("stalls of %s: %+v, want none later than 100 ms", i.Name, s)
		}
		return
	}
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	t.Skipf("needs Linux 6.9 and a network device that is down: %s has none", strings.TrimSpace(string(b)))
}

func FuzzLinkState(f *testing.F) {
	f.Add(linkReply(f, netlink.Attribute{Type: unix.ETHTOOL_A_LINKSTATE_EXT_STATE, Data: []byte{4}}))
	f.Add(dcbReply(f, 8, sizeofIEEEPFC))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseLinkState(b); err != nil && s != (linkState{}) {
			t.Errorf("%+v beside an error", s)
		}
		if p, err := parsePFC(b); err != nil && p.told {
			t.Errorf("%+v beside an error", p)
		}
	})
}
