package nic

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// port is what a driver tells of its device.
type port struct {
	driver, firmware, bus string
	speed                 float64 // bytes per second, 0: not known
	errors                []named
	pauses                []named
	state                 linkState
	pfc                   pfc
	stalls                stalls
}

// named is a counter under the labels of its metric that follow the device.
type named struct {
	labels [2]string
	value  float64
}

// maxErrors bounds the series of a device; drivers with a counter for each
// cause have some 60 that match.
const maxErrors = 100

var (
	errorName = regexp.MustCompile(`(?i)err|drop|discard|miss|crc|overrun|underrun|overflow|no_?buf|no_dma|fifo|abort|timeout|jabber|fragment|symbol|undersize|oversize|lost|fail|reset`)
	// queueName is what drivers write before or into a counter of one queue:
	// virtio rx_queue_0_x, mlx5 rx0_x, bnxt "[0]: x", ixgbe tx_queue_0_x, ice tx-0.x, ena queue_0_x.
	queueName = regexp.MustCompile(`^\[\d+\]: ?|(rx|tx|queue)[-_]?\d+[._]`)
	// pauseName is how drivers call flow control frames: mlx5 rx_prio3_pause, mlx4
	// rx_pause_prio_3, ice and i40e port.rx_priority_3_xoff, bnxt rx_pfc_ena_frames_pri3;
	// and for the whole link rx_pause, rx_pause_ctrl_phy, rx_flow_control_xoff, rx_pause_frames.
	pauseName = regexp.MustCompile(`^(?:port\.|mac_)?(rx|tx)_(?:prio(\d)_pause|pause_prio_(\d)|priority_(\d)_xoff(?:\.nic)?|pfc_ena_frames_pri(\d)|(pause|pause_ctrl_phy|pause_frames|flow_control_xoff|link_xoff(?:\.nic)?))$`)
)

// errorCounter returns the name under which a driver's counter is reported, or
// "" when it counts no error. The queues of a device share one name.
func errorCounter(name string) string {
	if !errorName.MatchString(name) || pauseName.MatchString(name) {
		return ""
	}
	at := queueName.FindStringSubmatchIndex(name)
	if at == nil {
		return name
	}
	if at[2] < 0 {
		return name[at[1]:]
	}
	return name[:at[2]] + name[at[2]:at[3]] + "_" + name[at[1]:]
}

// pauseCounter returns direction and priority of a counter of flow control frames.
func pauseCounter(name string) (direction, priority string, ok bool) {
	m := pauseName.FindStringSubmatch(name)
	if m == nil {
		return "", "", false
	}
	direction, priority = "receive", m[2]+m[3]+m[4]+m[5]
	if m[1] == "tx" {
		direction = "transmit"
	}
	if priority == "" {
		priority = "all"
	}
	if priority > "7" && priority != "all" {
		return "", "", false
	}
	return direction, priority, true
}

// count fills in the counters that a driver has under these names.
func (p *port) count(names []string, values []uint64) {
	errors, pauses := map[[2]string]float64{}, map[[2]string]float64{}
	for i, name := range names[:min(len(names), len(values))] {
		if n := errorCounter(name); n != "" {
			errors[[2]string{n}] += float64(values[i])
		} else if dir, prio, ok := pauseCounter(name); ok {
			// A driver that has several names for one thing: the highest is the one it keeps.
			pauses[[2]string{dir, prio}] = max(pauses[[2]string{dir, prio}], float64(values[i]))
		}
	}
	p.errors, p.pauses = sorted(errors), sorted(pauses)
	p.errors = p.errors[:min(len(p.errors), maxErrors)]
}

func sorted(m map[[2]string]float64) []named {
	out := make([]named, 0, len(m))
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		out = append(out, named{k, m[k]})
	}
	return out
}

// compareErrors tells what a driver counted since it was last asked, when that
// is least or more of one counter.
func compareErrors(device, kind string, was, now *port, least float64) (out []report) {
	if was == nil || now == nil {
		return nil
	}
	before := make(map[string]float64, len(was.errors))
	for _, n := range was.errors {
		before[n.labels[0]] = n.value
	}
	var moved []named
	for _, n := range now.errors {
		if old, known := before[n.labels[0]]; known && n.value-old >= least {
			moved = append(moved, named{n.labels, n.value - old})
		}
	}
	if len(moved) == 0 {
		return nil
	}
	slices.SortStableFunc(moved, func(a, b named) int { return cmp.Compare(b.value, a.value) })
	moved = moved[:min(len(moved), 3)]
	names := make([]string, len(moved))
	for i, n := range moved {
		names[i] = fmt.Sprintf("%s +%.0f", n.labels[0], n.value)
	}
	reason := strings.Join(names, ", ")
	return []report{{severity: signal.Warning, title: "the driver of " + device + " counts errors: " + reason,
		body: NIC{Device: device, Kind: kind, What: "driver_errors", Reason: reason, Queue: -1}, port: now}}
}

// ethtool asks drivers through a socket. Each call takes the kernel's lock of
// network configuration and runs the driver's code, so it may take long or hang.
type ethtool struct{ fd int }

// ask reads what the driver of a device tells; a driver need not know everything.
func (e ethtool) ask(device string) (*port, error) {
	d, err := unix.IoctlGetEthtoolDrvinfo(e.fd, device)
	if err != nil {
		return nil, fmt.Errorf("ask driver of %s: %w", device, err)
	}
	p := &port{driver: probe.CString(d.Driver[:]), firmware: probe.CString(d.Fw_version[:]), bus: probe.CString(d.Bus_info[:])}
	if p.firmware == "N/A" { // what drivers fill in that have none
		p.firmware = ""
	}
	p.speed = e.speed(device)
	if d.N_stats > 0 && d.N_stats < 1<<16 {
		p.count(e.strings(device, d.N_stats), e.stats(device, d.N_stats))
	}
	return p, nil
}

// speed returns bytes per second, 0 when the driver does not know.
func (e ethtool) speed(device string) float64 {
	// struct ethtool_link_settings, and three masks of at most 127 words. The
	// first call tells how many words the kernel wants.
	b := make([]byte, 48+3*127*4)
	for range 2 {
		binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GLINKSETTINGS)
		if e.call(device, b) != nil {
			return 0
		}
		n := int8(b[15])
		if n >= 0 {
			break
		}
		clear(b)
		b[15] = byte(-n)
	}
	mbit := binary.NativeEndian.Uint32(b[4:])
	if mbit == 0 || mbit == 1<<32-1 { // SPEED_UNKNOWN
		return 0
	}
	return float64(mbit) * 1e6 / 8
}

// room is for how many values to have memory when the driver says n: queues may
// be added between two calls, and kernels write as many as there are then.
func room(n uint32) int { return 2*int(n) + 4096 }

func (e ethtool) strings(device string, n uint32) []string {
	const each = 32 // ETH_GSTRING_LEN
	b := make([]byte, 12+each*room(n))
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(b[4:], 1) // ETH_SS_STATS
	binary.NativeEndian.PutUint32(b[8:], n)
	if e.call(device, b) != nil {
		return nil
	}
	out := make([]string, min(int(binary.NativeEndian.Uint32(b[8:])), room(n)))
	for i := range out {
		out[i] = probe.CString(b[12+each*i:][:each])
	}
	return out
}

func (e ethtool) stats(device string, n uint32) []uint64 {
	b := make([]byte, 8+8*room(n))
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GSTATS)
	binary.NativeEndian.PutUint32(b[4:], n)
	if e.call(device, b) != nil {
		return nil
	}
	out := make([]uint64, min(int(binary.NativeEndian.Uint32(b[4:])), room(n)))
	for i := range out {
		out[i] = binary.NativeEndian.Uint64(b[8+8*i:])
	}
	return out
}

// ifreq is struct ifreq with a pointer as its data.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

func (e ethtool) call(device string, b []byte) error {
	r := ifreq{data: unsafe.Pointer(&b[0])}
	copy(r.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}
