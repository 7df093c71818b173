package nic

import (
	"fmt"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// TestParseTrap and TestParseHealth read what Linux 6.1 said of a device of
// netdevsim after a second of trapped packets and one error.
func TestParseTrap(t *testing.T) {
	traps := map[string]trap{}
	for _, m := range recorded(t, "trap") {
		x, err := parseTrap(m)
		if err != nil {
			t.Fatal(err)
		}
		traps[x.name] = x
	}
	for _, want := range []trap{
		{device: "netdevsim/netdevsim77", name: "source_mac_is_multicast", group: "l2_drops", kind: "drop", drops: 280, counts: true},
		{device: "netdevsim/netdevsim77", name: "ttl_value_is_too_small", group: "l3_exceptions", kind: "exception", packets: 20, bytes: 2840, drops: 288, counts: true},
		{device: "netdevsim/netdevsim77", name: "igmp_query", group: "mc_snooping", kind: "control", packets: 20, bytes: 2840, drops: 292, counts: true},
	} {
		if got := traps[want.name]; got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	}
	if len(traps) != 14 {
		t.Errorf("%d traps, want 14", len(traps))
	}
}

func TestParseHealth(t *testing.T) {
	var got []health
	for _, m := range recorded(t, "health") {
		h, err := parseHealth(m)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h)
	}
	want := []health{{device: "netdevsim/netdevsim77", reporter: "empty"}, {device: "netdevsim/netdevsim77", reporter: "dummy", errors: 1, recoveries: 1}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestDevlinkDamage(t *testing.T) {
	for _, m := range [][]byte{nil, recorded(t, "trap")[0][:3], recorded(t, "trap")[0][:20], append(recorded(t, "trap")[0][:4:4], 0xff, 0xff, 1, 0)} {
		if x, err := parseTrap(m); err == nil {
			t.Errorf("%x is trap %+v", m, x)
		}
		if x, err := parseHealth(m); err == nil {
			t.Errorf("%x is health %+v", m, x)
		}
	}
}

func TestCompareHealth(t *testing.T) {
	fw := func(failed bool, errors, recoveries uint64) []health {
		return []health{{"pci/0000:3b:00.0", "fw", failed, errors, recoveries}, {"pci/0000:3b:00.0/1", "tx", false, 9, 9}}
	}
	for _, tt := range []struct {
		was, now []health
		what     string
		title    string
		sev      signal.Severity
	}{
		{nil, fw(true, 5, 0), "", "", ""}, // it was so before the probe began
		{fw(false, 1, 1), fw(false, 1, 1), "", "", ""},
		{fw(false, 1, 1), fw(true, 2, 1), "health_error", "pci/0000:3b:00.0: the driver's reporter fw found 1 errors", signal.Critical},
		{fw(false, 1, 1), fw(false, 4, 4), "health_error", "pci/0000:3b:00.0: the driver's reporter fw found 3 errors and recovered", signal.Warning},
		{fw(true, 2, 1), fw(false, 2, 2), "health_recovered", "pci/0000:3b:00.0: the driver's reporter fw has recovered", signal.Info},
		{fw(false, 7, 7), fw(false, 0, 0), "", "", ""}, // the device was made anew
		{fw(false, 7, 7), nil, "", "", ""},
	} {
		rs := compareHealth(tt.was, tt.now)
		if tt.what == "" {
			if len(rs) != 0 {
				t.Errorf("%+v: %q", tt.now, rs[0].title)
			}
			continue
		}
		if len(rs) != 1 || rs[0].body.What != tt.what || rs[0].title != tt.title || rs[0].severity != tt.sev || !strings.Contains(rs[0].body.Reason, "fw") {
			t.Errorf("%+v: %+v", tt.now, rs)
		}
	}
}

func FuzzParseDevlink(f *testing.F) {
	for _, name := range []string{"trap", "health"} {
		for _, m := range recorded(f, name) {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parseTrap(b); err == nil && x.name == "" {
			t.Errorf("trap %+v", x)
		}
		if x, err := parseHealth(b); err == nil && x.reporter == "" {
			t.Errorf("health %+v", x)
		}
	})
}
