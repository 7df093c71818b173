package nettx

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// TestWire holds the Go side to the C side and to bpf/include/hist.h.
func TestWire(t *testing.T) {
	var c bpfCpuState
	if got, want := len(c.Hists[0].Slots), signal.LatencySlots(2); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
	if len(c.Hists) != len(stages)*len(classes) || len(c.Unmeasured) != len(stages) {
		t.Errorf("%d histograms and %d counters for %d stages of %d classes", len(c.Hists), len(c.Unmeasured), len(stages), len(classes))
	}
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if n := spec.Maps["stamps"].MaxEntries; n != stamps {
		t.Errorf("%d stamps in the program, %d here", n, stamps)
	}
}

func TestRefuses(t *testing.T) {
	err := probetest.New(t).TryStart(Spec(), Config{})
	if err == nil || !strings.Contains(err.Error(), "probes.nettx.every") {
		t.Errorf("one of zero packets: %v", err)
	}
}

// line is a veth pair whose one end sends 1 Mbit/s: a packet of size bytes
// takes it 10 ms.
type line struct {
	*netpair.Pair
	out, in *net.UDPConn
}

const (
	size  = 1250
	each  = 10 * time.Millisecond
	burst = 1600 // what the line sends at once
)

func newLine(t *testing.T, shape bool) *line {
	t.Helper()
	p, err := netpair.New("nettx")
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &line{Pair: p}
	if err := p.A.Do(func() error { // neighbour discovery would be among the packets
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if shape {
		if err := p.A.Run("tc", "qdisc", "add", "dev", p.A.Device, "root", "tbf", "rate", "1mbit", "burst", "1600", "limit", "1000000"); err != nil {
			t.Fatal(err)
		}
	}
	l.connect(t)
	return l
}

// connect opens the sockets and lets the ends find each other.
func (l *line) connect(t *testing.T) {
	t.Helper()
	to := &net.UDPAddr{IP: net.ParseIP(l.B.Addr), Port: 9999}
	if err := l.B.Do(func() (err error) { l.in, err = net.ListenUDP("udp4", to); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.in.Close() })
	if err := l.A.Do(func() (err error) { l.out, err = net.DialUDP("udp4", nil, to); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.out.Close() })
	l.reach(t)
}

// reach sends until something arrives, and leaves the line empty.
func (l *line) reach(t *testing.T) {
	t.Helper()
	b := make([]byte, size)
	for end := time.Now().Add(10 * time.Second); ; {
		l.out.Write([]byte("hello")) // may be refused as long as there is no way
		l.in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := l.in.Read(b); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the ends do not reach each other")
		}
	}
	for { // what came late
		l.in.SetReadDeadline(time.Now().Add(2 * each)) // the bucket fills meanwhile
		if _, err := l.in.Read(b); err != nil {
			return
		}
	}
}

// send sends n packets at once and waits for all to arrive. atLeast and atMost
// are bounds of what they waited together: the line's rate and the clock.
func (l *line) send(t *testing.T, n int) (atLeast, atMost time.Duration) {
	t.Helper()
	start := time.Now()
	sent := make([]time.Time, n)
	for i := range sent {
		sent[i] = time.Now()
		if _, err := l.out.Write(make([]byte, size-14-20-8)); err != nil {
			t.Fatal(err)
		}
		atLeast += max(0, time.Duration(i)*each-(burst-size)*each/size-time.Since(start))
	}
	l.in.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, at := range sent {
		if _, err := l.in.Read(make([]byte, size)); err != nil {
			t.Fatalf("a packet did not arrive: %v", err)
		}
		atMost += time.Since(at)
	}
	return atLeast, atMost
}

func hist(s []signal.Sample, stage, class string) *signal.Hist {
	for i := range s {
		if s[i].Schema == delay && s[i].Labels[0] == stage && s[i].Labels[1] == class {
			return s[i].Hist
		}
	}
	return nil
}

// longer counts the observations that are longer than d for sure.
func longer(h *signal.Hist, d time.Duration) (n uint64) {
	bound := signal.LatencyMin // of powers of two of a second
	for ; d > 0 && 1<<(-bound) > int(time.Second/d); bound++ {
	}
	for i := (bound - signal.LatencyMin) << 2; i < len(h.Counts); i++ {
		n += h.Counts[i]
	}
	return n
}

// TestKernel sends 20 packets at once through a line that takes 10 ms for each:
// they wait 0 to 190 ms.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testDelay)
}

func testDelay(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	l := newLine(t, true)
	env.Start(Spec(), Config{Every: 1})
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	const n = 20
	missed := probetest.Missed()
	before := env.Gather()
	atLeast, atMost := l.send(t, n)
	after := env.Gather()

	q, q0 := hist(after, "qdisc", "virtual"), hist(before, "qdisc", "virtual")
	const others = 3 // the ends ask for each other's address
	if d := q.Count - q0.Count; d < n-1-missed || d > n+others {
		// The first may find the queue empty and pass it by.
		t.Errorf("%d packets through the queue, %d counted", n, d)
	}
	waited := time.Duration((q.Sum - q0.Sum) * float64(time.Second))
	if waited < atLeast-atLeast/1000-time.Duration(missed)*n*each || waited > atMost+others*each {
		t.Errorf("the packets waited %v together: want %v to %v", waited, atLeast, atMost)
	}
	// 125 ms is the bound of a bucket: packets 13 to 19 wait 130 ms and more.
	if d := longer(q, 125*time.Millisecond) - longer(q0, 125*time.Millisecond); atLeast > 1890*time.Millisecond && d < 6-missed {
		t.Errorf("%d packets waited more than 125 ms, want %d at least", d, 6-missed)
	}
	if d := hist(after, "driver", "virtual").Count - hist(before, "driver", "virtual").Count; d < n-missed {
		t.Errorf("%d packets through a virtual driver, %d counted", n, d)
	}
}

// TestKernelUnmeasured has room for one stamp: each packet that comes while one
// waits takes its place.
func TestKernelUnmeasured(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	l := newLine(t, true)
	env.Start(spec(1), Config{Every: 1})
	const n = 20
	before := env.Gather()
	l.send(t, n)
	after := env.Gather()
	lost := value(t, after, "qdisc") - value(t, before, "qdisc")
	measured := hist(after, "qdisc", "virtual").Count - hist(before, "qdisc", "virtual").Count
	if sum := uint64(lost) + measured; lost < 1 || measured < 1 || sum < n-1-probetest.Missed() || sum > n+3 {
		t.Errorf("of %d packets %d are measured and %g not", n, measured, lost)
	}
}

// TestKernelNested sends through a bridge, whose driver calls that of the veth
// device: only the lower one is measured.
func TestKernelNested(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	l := newLine(t, false)
	ip := func(args ...string) {
		t.Helper()
		if err := l.A.Run("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	ip("link", "add", "br0", "type", "bridge")
	ip("link", "set", l.A.Device, "master", "br0")
	ip("addr", "flush", "dev", l.A.Device)
	ip("addr", "add", l.A.Addr+"/24", "dev", "br0")
	ip("link", "set", "br0", "up")
	l.reach(t)
	env.Start(Spec(), Config{Every: 1})
	const n = 50 // as many as a socket takes
	before := env.Gather()
	l.send(t, n)
	after := env.Gather()
	if d := value(t, after, "driver") - value(t, before, "driver"); d < n-float64(probetest.Missed()) {
		t.Errorf("%d packets through the bridge, %g unmeasured", n, d)
	}
	if d := hist(after, "driver", "virtual").Count - hist(before, "driver", "virtual").Count; d < n-probetest.Missed() {
		t.Errorf("%d packets through the veth device, %d measured", n, d)
	}
}

// TestKernelSample sends more packets than are measured.
func TestKernelSample(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	l := newLine(t, false)
	env.Start(Spec(), Config{Every: 10})
	const n = 1000
	before := hist(env.Gather(), "driver", "virtual").Count
	for range n / 50 {
		l.send(t, 50)
	}
	d := hist(env.Gather(), "driver", "virtual").Count - before
	// Packets of others count too, and each CPU counts for itself.
	if low := uint64(n/10 - runtime.NumCPU()); d < low || d > 3*n/10 {
		t.Errorf("%d of %d packets measured, want one of 10", d, n)
	}
}

// TestKernelHardware sends frames of a protocol for experiments out of a device
// with a bus behind it; nobody takes them.
func TestKernelHardware(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	dev := hardware()
	if dev == nil {
		t.Skip("needs a network device with a bus behind it that is up")
	}
	env.Start(Spec(), Config{Every: 1})
	const proto = 0x88b5 // IEEE 802: local experimental
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	frame := make([]byte, 60)
	copy(frame, dev.HardwareAddr) // to itself
	copy(frame[6:], dev.HardwareAddr)
	frame[12], frame[13] = proto>>8, proto&0xff
	const n = 50
	before := hist(env.Gather(), "driver", "hardware")
	for range n {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6}); err != nil {
			t.Fatal(err)
		}
	}
	after := hist(env.Gather(), "driver", "hardware")
	if d := after.Count - before.Count; d < n-probetest.Missed() || after.Sum <= before.Sum {
		t.Errorf("%d frames through %s, %d counted with %g s", n, dev.Name, d, after.Sum-before.Sum)
	}
}

func hardware() *net.Interface {
	devices, _ := filepath.Glob("/sys/class/net/*/device")
	for _, d := range devices {
		dev, err := net.InterfaceByName(filepath.Base(filepath.Dir(d)))
		if err == nil && dev.Flags&net.FlagUp != 0 && dev.Flags&net.FlagRunning != 0 && len(dev.HardwareAddr) == 6 {
			return dev
		}
	}
	return nil
}

func value(t *testing.T, s []signal.Sample, stage string) float64 {
	t.Helper()
	v, ok := probetest.Value(s, unmeasured.Name, stage)
	if !ok {
		t.Fatalf("no %s of %s", unmeasured.Name, stage)
	}
	return v
}
