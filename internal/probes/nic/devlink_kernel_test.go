package nic

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// newDevice makes a device of netdevsim in the first namespace and returns a
// function that makes its driver find an error.
func newDevice(t *testing.T, p *netpair.Pair) (fail func()) {
	t.Helper()
	const id, bus = "77", "/sys/bus/netdevsim/"
	if _, err := os.Stat(bus + "new_device"); err != nil {
		t.Skip("needs the module netdevsim (CONFIG_NETDEVSIM)")
	}
	const debug = "/sys/kernel/debug"
	if _, err := os.Stat(debug + "/netdevsim"); err != nil {
		if err := unix.Mount("debugfs", debug, "debugfs", 0, ""); err != nil {
			t.Skipf("needs debugfs: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(debug, unix.MNT_DETACH) })
	}
	if err := p.A.Do(func() error { return os.WriteFile(bus+"new_device", []byte(id+" 1"), 0) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(bus+"del_device", []byte(id), 0); err != nil {
			t.Error(err)
		}
	})
	err := p.A.Do(func() error { // what a namespace shows of /sys is what was mounted in it
		dir := t.TempDir()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
			return err
		}
		names, err := filepath.Glob(dir + "/bus/netdevsim/devices/netdevsim" + id + "/net/*")
		if err != nil || len(names) != 1 {
			return fmt.Errorf("devices of netdevsim: %v, %w", names, err)
		}
		return p.A.Run("ip", "link", "set", filepath.Base(names[0]), "up")
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(debug+"/netdevsim/netdevsim"+id+"/health/break_health", []byte("broken"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKernelDevlink has a device that traps packets all the time, and whose
// driver finds an error when it is told to.
func TestKernelDevlink(t *testing.T) {
	var fail func()
	p := newPair(t, probetest.New(t), func(p *netpair.Pair) { fail = newDevice(t, p) })
	const dev, name = "netdevsim/netdevsim77", "ttl_value_is_too_small"
	trapped := func() (packets, bytes float64) {
		s := p.Gather()
		packets, _ = probetest.Value(s, trapPackets.Name, dev, name, "l3_exceptions", "exception")
		bytes, _ = probetest.Value(s, trapBytes.Name, dev, name, "l3_exceptions", "exception")
		return packets, bytes
	}
	eventually(t, func() bool { n, _ := trapped(); return n >= 3 }, "no packet is trapped")
	// The driver makes packets of one size.
	if n, bytes := trapped(); bytes < 60*n || int(bytes)%int(n) != 0 {
		t.Errorf("%g packets of %g bytes", n, bytes)
	}
	p.becomes(0, unhealthy, dev, "dummy")
	errors, recoveries := p.value(reported, dev, "dummy"), p.value(recovered, dev, "dummy")
	for i := range 2 {
		n := len(p.Records())
		fail()
		r := p.WaitRecord(func(r *signal.Record) bool { return len(p.Records()) > n && r == p.Records()[n] })
		if b := r.Body.(*NIC); b.What != "health_error" || b.Device != dev || b.Reason != "reporter dummy" || r.Severity != signal.Warning {
			t.Errorf("event %q, %+v", r.Title, b)
		}
		p.becomes(errors+float64(i)+1, reported, dev, "dummy")
		p.becomes(recoveries+float64(i)+1, recovered, dev, "dummy")
	}
}
