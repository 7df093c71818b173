package main

import (
	"bytes"
	"strings"
	"testing"

	"huatuo/internal/profile"
	sig "huatuo/internal/signal"
)

func TestFormatOf(t *testing.T) {
	for file, want := range map[string]string{
		"-": "folded", "a.folded": "folded", "a.txt": "folded", "a.pb.gz": "pprof", "a.pprof": "pprof", "a.svg": "svg", "a.speedscope.json": "speedscope", "dir/a.otlp": "otlp", "a.gif": "",
	} {
		if got, err := formatOf(file); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
}

// TestWaits: of these the table leaves out what the kernel does.
func TestWaits(t *testing.T) {
	for typ, want := range map[string]bool{"cpu": false, "offcpu.blocked": true, "offcpu": true, "lock": true, "mem": true, "io.file": true, "delay": false, "of": false, "offcpu.other": false} {
		if waits(typ) != want {
			t.Errorf("%s: %v", typ, !want)
		}
	}
}

// TestPrintDiff: the terminal gets no control characters of a file, and all of
// the verdicts.
func TestPrintDiff(t *testing.T) {
	change := func(name, verdict string, before, after float64) sig.FunctionChange {
		return sig.FunctionChange{Function: name, Module: "/bin/app", Verdict: verdict, Self: sig.ShareChange{
			Before: before, After: after, BeforeValue: int64(before * 1e9), AfterValue: int64(after * 1e9),
		}}
	}
	d := &sig.ProfileDiff{
		Type: "cpu\x1b[2J", Unit: "nanoseconds", Before: sig.ProfileSide{Total: 1e9, Samples: 100}, After: sig.ProfileSide{Total: 1e9, Samples: 99}, Tested: 9, Clear: 2,
		Functions: []sig.FunctionChange{change("hot\x1b[31m", "regressed", 0.1, 0.4), change("cold", "improved", 0.5, 0.25), change("few", "untested", 0, 0.001)},
	}
	for _, tt := range []struct {
		absolute bool
		want     []string
	}{
		{false, []string{"10.0%  40.0%  +30.0%  regressed", "hot.[31m (app)", "50.0%  25.0%  -25.0%   improved", "+0.1%   untested", "2 of 9 functions"}},
		{true, []string{"100.0 ms  400.0 ms  +300.0 ms  regressed", "-250.0 ms   improved", "1.00 s in 100 samples before, 1.00 s in 99 after"}},
	} {
		var b bytes.Buffer
		(&cli{out: &b}).printDiff(d, profile.DiffOptions{Self: true, Absolute: tt.absolute})
		for _, w := range append(tt.want, "FUNCTION") {
			if !strings.Contains(b.String(), w) {
				t.Errorf("no %q in:\n%s", w, b.String())
			}
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Errorf("%q", b.String())
		}
	}
}
