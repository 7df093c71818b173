package signal

import "testing"

func TestPprofType(t *testing.T) {
	for _, tt := range []struct{ name, unit, want string }{
		{"cpu", "nanoseconds", "process_cpu:cpu:nanoseconds:cpu:nanoseconds"},
		{"offcpu.blocked", "nanoseconds", "offcpu:blocked:nanoseconds:offcpu:nanoseconds"},
		{"mem.inuse", "bytes", "mem:inuse:bytes:mem:bytes"},
		{"lock.user.contentions", "count", "lock:user.contentions:count:lock:count"},
		{"cycles", "count", "cycles:cycles:count:cycles:count"},
	} {
		p := ProfileType{Name: tt.name, Unit: tt.unit}
		if got := p.Pprof().String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestService(t *testing.T) {
	for _, tt := range []struct {
		l    ProfileLabels
		want string
	}{
		{ProfileLabels{Namespace: "shop", Container: "cart", Process: "java"}, "shop/cart"},
		{ProfileLabels{Container: "cart", Process: "java"}, "cart"},
		{ProfileLabels{Namespace: "shop", Process: "pause"}, "pause"},
		{ProfileLabels{Unit: "nginx.service", Process: "nginx"}, "nginx.service"},
		{ProfileLabels{Unit: "/", Process: "bash"}, "bash"},
		{ProfileLabels{}, ""},
	} {
		if got := tt.l.Service(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.l, got, tt.want)
		}
	}
}

func TestTitle(t *testing.T) {
	for _, tt := range []struct {
		f    Frame
		want string
	}{
		{Frame{Function: "main", Offset: 3}, "main"},
		{Frame{Missing: "no symbols", Module: "/usr/bin/a", Offset: 0x1f}, "a+0x1f"},
		{Frame{Missing: "gone"}, "[unknown: gone]"},
	} {
		if got := tt.f.Title(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
}
