package nic

import (
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded reads messages that a kernel sent, one a line in hexadecimal digits.
func recorded(t testing.TB, name string) (out [][]byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(b)) {
		m, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func parsed(t testing.TB, name string) (out []*link) {
	t.Helper()
	for _, m := range recorded(t, name) {
		l, err := parseLink(m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// compareFields fails when two values differ, members that are not exported included.
func compareFields(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.AllowUnexported(link{}, bond{}, slave{}, qdisc{})); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// TestParseLink reads what Linux 6.12 said of a bond of two veth devices whose
// other ends are a bond in another namespace, and after one of those left it
// (make vmtest records it), and what 6.18 said of a veth pair.
func TestParseLink(t *testing.T) {
	lacp := parsed(t, "lacp")
	compareFields(t, "bond with LACP", lacp[2], &link{
		index: 3, name: "bond0", kind: "bond", flags: 0x11443, operstate: 6, carrier: true, mtu: 1500, txqlen: 1000, ups: lacp[2].ups, downs: lacp[2].downs,
		bond: bond{is: true, mode: modeLACP, lacp: true, aggregator: lacp[2].bond.aggregator, ports: 2, partner: lacp[2].bond.partner},
	})
	if lacp[2].bond.partner == [6]byte{} || lacp[2].bond.aggregator == 0 || lacp[2].ups == 0 || lacp[2].downs == 0 {
		t.Errorf("bond %+v", lacp[2])
	}
	for _, s := range lacp[3:] {
		if !s.slave.is || s.kind != "veth" || s.master != 3 || s.slave.mii != 0 || !s.slave.joined() || s.slave.aggregator != lacp[2].bond.aggregator || !s.usable() {
			t.Errorf("slave %+v", s)
		}
	}
	split := parsed(t, "split")
	if s := split[4]; s.name != "bond2" || s.slave.joined() || s.slave.aggregator == split[2].bond.aggregator {
		t.Errorf("slave that is out of the aggregate %+v", s)
	}
	if s := split[3]; !s.slave.joined() || s.slave.aggregator != split[2].bond.aggregator {
		t.Errorf("slave that is still in the aggregate %+v", s)
	}

	backup := parsed(t, "backup")
	if b := backup[2].bond; !b.is || b.mode != 1 || b.lacp || b.active != 4 {
		t.Errorf("active-backup %+v", b)
	}
	if a, b := backup[3].slave, backup[4].slave; a.backup || !b.backup || a.lacp && a.aggregator != 0 {
		t.Errorf("active %+v, spare %+v", a, b)
	}

	veth := parsed(t, "veth")
	if l := veth[0]; l.name != "lo" || l.kind != "" || l.usable() || l.operstate != 2 {
		t.Errorf("loopback device %+v", l)
	}
	if l := veth[2]; l.name != "eth7" || l.kind != "veth" || l.lower != 2 || !l.usable() || !l.carrier || l.bond.is || l.slave.is {
		t.Errorf("veth %+v", l)
	}
}

func TestParseQdisc(t *testing.T) {
	var kinds []string
	for _, m := range recorded(t, "qdisc") {
		q, err := parseQdisc(m)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, q.kind)
		switch q.kind {
		case "htb":
			compareFields(t, "htb", q, &qdisc{index: 3, kind: "htb", bytes: 7718, packets: 9, drops: 23, queueLength: 1, backlogByte: 1242})
		case "tbf":
			compareFields(t, "tbf", q, &qdisc{index: 3, kind: "tbf", bytes: 7628, packets: 8, drops: 23, overlimits: 37, queueLength: 1, backlogByte: 1242})
			q.add(q)
			compareFields(t, "twice tbf", q, &qdisc{index: 3, kind: "tbf", bytes: 15256, packets: 16, drops: 46, overlimits: 74, queueLength: 2, backlogByte: 2484})
		}
	}
	if want := []string{"noqueue", "ingress", "htb", "tbf"}; !slices.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
}

// TestParseDamage cuts messages short and overwrites lengths.
func TestParseDamage(t *testing.T) {
	for _, name := range []string{"lacp", "veth", "qdisc"} {
		parse := func(b []byte) error { _, err := parseLink(b); return err }
		if name == "qdisc" {
			parse = func(b []byte) error { _, err := parseQdisc(b); return err }
		}
		for _, m := range recorded(t, name) {
			if parse(m[:10]) == nil {
				t.Errorf("%s: 10 bytes parse", name)
			}
			if parse(m[:20]) == nil {
				t.Errorf("%s: a message without a name parses", name)
			}
			bad := slices.Clone(m)
			bad[20], bad[21] = 0xff, 0xff
			if name != "qdisc" {
				bad[16], bad[17] = 0xff, 0xff
			}
			if parse(bad) == nil {
				t.Errorf("%s: an attribute longer than the message parses", name)
			}
		}
	}
}

func FuzzParseLink(f *testing.F) {
	for _, name := range []string{"lacp", "backup", "veth"} {
		for _, m := range recorded(f, name) {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLink(b); err == nil && (l.name == "" || l.index <= 0) {
			t.Errorf("link %+v", l)
		}
	})
}

func FuzzParseQdisc(f *testing.F) {
	for _, m := range recorded(f, "qdisc") {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := parseQdisc(b); err == nil && (q.kind == "" || q.index <= 0) {
			t.Errorf("queueing discipline %+v", q)
		}
	})
}

func BenchmarkParseLink(b *testing.B) {
	m := recorded(b, "lacp")[3]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseLink(m); err != nil {
			b.Fatal(err)
		}
	}
}
