package packetfilter

import (
	"strings"
	"testing"
)

// TestErrors: what is wrong, and where.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		expr   string
		offset int
		want   string
	}{
		{"", 0, "nothing to match"},
		{"   ", 3, "nothing to match"},
		{"tcp prt 443", 4, `want "and", "or" or the end`},
		{"tcp port", 8, "want a port"},
		{"port 65536", 5, "65535"},
		{"port nonsense", 5, "use its number"},
		{"port http-alt", 5, "use its number"},
		{"udp port http", 9, "no port of udp"},
		{"icmp port 7", 10, "icmp has no ports"},
		{"portrange 1-70000", 10, "65535"},
		{"host example.org", 5, "names are not looked up"},
		{"host 10.1", 5, "no address"},
		{"host 10.0.0.0/8", 5, "a netmask is for networks"},
		{"host 010.0.0.1", 5, "no address"},
		{"net 10.0.0.1/8", 4, "bits set"},
		{"net 10.0.0.0/33", 4, "length of a netmask"},
		{"net 10.0.0.0 mask 255", 4, "no netmask"},
		{"net 10.0.0.0/", 13, "want a netmask"},
		{"net 2001:db8::1/32", 4, "bits set"},
		{"net 2001:db8::/129", 4, "length of a netmask"},
		{"ip6 host 1.2.3.4", 9, "no IPv6 address"},
		{"ip host ::1", 8, "is an IPv6 address"},
		{"tcp host 1.2.3.4", 9, "tcp and host"},
		{"host 02:00:00:00:00:01", 5, "ether host"},
		{"ether host 1.2.3.4", 11, "no Ethernet address"},
		{"1.2.3.4", 0, "say what it is"},
		{"443", 0, "say what it is"},
		{"tcp or 443", 7, "say what it is"},
		{"ether and tcp", 6, "want host, src, dst"},
		{"vlan 5", 0, "not supported: the kernel keeps VLAN tags beside"},
		{"ip protochain 6", 3, "it needs a loop"},
		{"inbound and tcp", 0, "direction"},
		{"ip broadcast", 3, "netmask of the device"},
		{"arp multicast", 4, "no multicast"},
		{"tcp and", 7, "want a condition"},
		{"(tcp", 0, "never closed"},
		{"tcp)", 3, "closes nothing"},
		{"(tcp]", 4, "closes nothing"},
		{"tcp $ udp", 4, "means nothing"},
		{`ip proto \`, 9, "a name follows"},
		{"ip proto nonsense", 9, "use its number"},
		{"ip proto 256", 9, "255"},
		{"ether proto 100", 12, "802.2"},
		{"tcp proto 6", 10, "carries no protocol"},
		{"src proto 6", 10, "no direction"},
		{"tcp[13", 3, "never closed"},
		{"tcp[13:3] = 1", 7, "1, 2 or 4 bytes"},
		{"tcp[13]", 7, "want a comparison"},
		{"tcp[13] & 2", 11, "want a comparison"},
		{"ip[300] = 1", 0, "beyond the first bytes"},
		{"ip[0] / 0 = 1", 6, "division by zero"},
		{"ip[0] << 32 = 1", 6, "31 bits"},
		{"ip[0] % 3 + 1 = 1", 10, "use parentheses"},
		{"ip[0] + 1 % 3 = 1", 10, "use parentheses"},
		{"len-14 > 3", 0, "spaces around the -"},
		{"less", 4, "want a number"},
		{"ip[0] = foo", 8, "want a number or a field"},
		{"ip[0] = a-b", 8, "spaces around the -"},
		{"port (80 or tcp)", 12, "want a port"},
		{strings.Repeat("(", 101) + "tcp" + strings.Repeat(")", 101), 50, "nested too deep"},
		{strings.Repeat("not ", 200) + "tcp", 400, "nested too deep"},
		{"host 1.2.3.4" + strings.Repeat(" or 1.2.3.4", 200), 12 + 2200, "too long"},
		{"port 1" + strings.Repeat(" or 1", 4000), 16384, "longer than"},
	} {
		_, err := Compile(c.expr)
		e, ok := err.(*Error)
		if !ok {
			t.Errorf("%q compiles", cut(c.expr))
			continue
		}
		if !strings.Contains(e.Msg, c.want) || len(c.expr) < maxExpr && e.Offset != c.offset && !strings.Contains(c.want, "deep") {
			t.Errorf("%q: at %d: %s; want %d, %q", cut(c.expr), e.Offset, e.Msg, c.offset, c.want)
		}
		if !strings.Contains(e.Error(), e.Msg) {
			t.Errorf("%v does not tell %q", e, e.Msg)
		}
	}
	for expr, want := range map[string]string{
		"tcp prt 443": `packet filter "tcp prt 443": at column 5, near "prt": want "and", "or" or the end`,
		"tcp port":    `packet filter "tcp port": at the end: want a port`,
	} {
		if _, err := Compile(expr); err == nil || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
