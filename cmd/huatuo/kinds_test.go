package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestShortNames: they stand for kinds that there are, and are none themselves.
func TestShortNames(t *testing.T) {
	all := eventKinds()
	for name, kinds := range shortNames {
		if slices.Contains(all, name) {
			t.Errorf("%s is a kind already", name)
		}
		for _, k := range kinds {
			if !slices.Contains(all, k) {
				t.Errorf("%s stands for %s, which is no kind", name, k)
			}
		}
	}
}

func TestNamedKinds(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""}, {[]string{"oom_kill"}, "oom_kill"}, {[]string{"drops"}, "packet_drop"},
		{[]string{"io", "io_error", "oom"}, "io_stall io_error oom_kill"},
	} {
		got, err := namedKinds(c.args)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q are %q, %v; want %s", c.args, got, err, c.want)
		}
	}
	var usage errUsage
	if _, err := namedKinds([]string{"drop"}); !errors.As(err, &usage) || !strings.Contains(err.Error(), "drops (packet_drop)") {
		t.Errorf("no kind: %v", err)
	}
}

func TestWithFilter(t *testing.T) {
	for _, c := range []struct {
		kinds, filter, want, options, err string
	}{
		{"oom_kill", "", "oom_kill", "", ""},
		{"packet_drop", "tcp port 443", "packet_drop", "probes.netdrop.filter=tcp port 443", ""},
		{"packet_drop tcp_retransmit", "tcp[13] = 2", "packet_drop tcp_retransmit", "probes.netdrop.filter=tcp[13] = 2;probes.tcpretrans.filter=tcp[13] = 2", ""},
		{"", "arp", "packet_drop tcp_retransmit", "probes.netdrop.filter=arp;probes.tcpretrans.filter=arp", ""},
		{"packet_drop oom_kill", "arp", "", "", "oom_kill takes no packet filter; these do: packet_drop, tcp_retransmit"},
		{"packet_drop", "tcp prt 443", "", "", "at column 5"},
	} {
		kinds, options, err := withFilter(strings.Fields(c.kinds), c.filter)
		if c.err != "" {
			var usage errUsage
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s with %q: %v, want %s", c.kinds, c.filter, err, c.err)
			}
			continue
		}
		if err != nil || strings.Join(kinds, " ") != c.want || strings.Join(options, ";") != c.options {
			t.Errorf("%s with %q: %q, %q, %v", c.kinds, c.filter, kinds, options, err)
		}
	}
}
