package nic

import (
	"testing"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// newBond makes bond0 in the first namespace, of bond1 and bond2, whose other
// ends are in the second.
func newBond(t *testing.T, mode ...string) *pair {
	t.Helper()
	return newPair(t, probetest.New(t), func(p *netpair.Pair) {
		ip := func(s *netpair.Side, args ...string) {
			t.Helper()
			if err := s.Run("ip", append([]string{"link"}, args...)...); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.A.Run("ip", append([]string{"link", "add", "bond0", "type", "bond", "miimon", "20", "mode"}, mode...)...); err != nil {
			t.Skipf("needs the bonding driver (CONFIG_BONDING): %v", err)
		}
		for _, n := range []string{"1", "2"} {
			ip(&p.A, "add", "bond"+n, "type", "veth", "peer", "name", "port"+n, "netns", p.B.Name)
			ip(&p.A, "set", "bond"+n, "master", "bond0")
		}
		if mode[0] == "802.3ad" {
			ip(&p.B, append([]string{"add", "ports", "type", "bond", "miimon", "20", "mode"}, mode...)...)
			ip(&p.B, "set", "port1", "master", "ports")
			ip(&p.B, "set", "port2", "master", "ports")
			ip(&p.B, "set", "ports", "up")
		}
		ip(&p.B, "set", "port1", "up")
		ip(&p.B, "set", "port2", "up")
		ip(&p.A, "set", "bond0", "up")
	})
}

// TestKernelBond takes the link of the active slave away and gives it back.
func TestKernelBond(t *testing.T) {
	p := newBond(t, "active-backup", "primary_reselect", "failure")
	p.becomes(2, bondSlaves, "bond0")
	p.becomes(2, bondUp, "bond0")
	p.becomes(-1, bondPartner, "bond0")
	active, spare, port := "bond1", "bond2", "port1"
	if p.value(bondActive, "bond0", "bond1") != 1 {
		active, spare, port = "bond2", "bond1", "port2"
	}
	p.becomes(1, bondActive, "bond0", active)
	p.becomes(0, bondActive, "bond0", spare)
	failures := p.value(bondFailures, "bond0", active)

	n := len(p.Records())
	p.run(&p.B, "ip", "link", "set", port, "down")
	if b := p.happens(n, "bond_active", "bond0"); b.Before != active || b.After != spare || b.Bond != "bond0" || b.Kind != "bond" {
		t.Errorf("event %+v", b)
	}
	if b := p.happens(n, "bond_slave_down", active); b.Bond != "bond0" {
		t.Errorf("event %+v", b)
	}
	p.becomes(1, bondUp, "bond0")
	p.becomes(2, bondSlaves, "bond0")
	p.becomes(0, bondSlaveUp, "bond0", active)
	p.becomes(1, bondSlaveUp, "bond0", spare)
	p.becomes(1, bondActive, "bond0", spare)
	p.becomes(failures+1, bondFailures, "bond0", active)

	n = len(p.Records())
	p.run(&p.B, "ip", "link", "set", port, "up")
	p.happens(n, "bond_slave_up", active)
	p.becomes(2, bondUp, "bond0")

	n = len(p.Records())
	p.run(&p.A, "ip", "link", "set", spare, "nomaster")
	if b := p.happens(n, "bond_slave_removed", spare); b.Bond != "bond0" {
		t.Errorf("event %+v", b)
	}
	p.becomes(1, bondSlaves, "bond0")
}

// TestKernelLACP makes an aggregate of two links with another bond and takes one
// link out of it at the other end, where it keeps its link.
func TestKernelLACP(t *testing.T) {
	p := newBond(t, "802.3ad", "lacp_rate", "fast")
	p.becomes(1, bondPartner, "bond0")
	for _, s := range []string{"bond1", "bond2"} {
		p.becomes(1, bondJoined, "bond0", s)
		p.becomes(0, bondMismatch, "bond0", s)
	}
	p.becomes(2, bondUp, "bond0")

	n := len(p.Records())
	p.run(&p.B, "ip", "link", "set", "port2", "nomaster")
	p.run(&p.B, "ip", "link", "set", "port2", "up")
	if b := p.happens(n, "lacp_left", "bond2"); b.Bond != "bond0" {
		t.Errorf("event %+v", b)
	}
	p.becomes(1, bondUp, "bond0")
	p.becomes(1, bondSlaveUp, "bond0", "bond2")
	p.becomes(0, bondJoined, "bond0", "bond2")
	p.becomes(1, bondMismatch, "bond0", "bond2")
	p.becomes(1, bondJoined, "bond0", "bond1")

	n = len(p.Records())
	p.run(&p.B, "ip", "link", "set", "port2", "down")
	p.run(&p.B, "ip", "link", "set", "port2", "master", "ports")
	p.happens(n, "lacp_joined", "bond2")
	p.becomes(2, bondUp, "bond0")
	p.becomes(0, bondMismatch, "bond0", "bond2")

	// The other end goes altogether.
	p.run(&p.B, "ip", "link", "del", "ports")
	p.run(&p.B, "ip", "link", "set", "port1", "up")
	p.run(&p.B, "ip", "link", "set", "port2", "up")
	r := p.WaitRecord(func(r *signal.Record) bool { b := r.Body.(*NIC); return b.What == "lacp_partner" && b.After == "" })
	if b := r.Body.(*NIC); b.Device != "bond0" || b.Before == "" {
		t.Errorf("event %+v", b)
	}
	p.becomes(0, bondPartner, "bond0")
	p.becomes(0, bondUp, "bond0")
}
