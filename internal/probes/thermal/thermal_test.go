package thermal

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	e.Start(Spec(), nil)
	probetest.Golden(t, "testdata/sys.golden", e.Gather(), nil, *update)
	var hooks []string
	for _, h := range e.Hooks() {
		hooks = append(hooks, h.Hook)
	}
	if got := strings.Join(hooks, " "); got != "cpu cpufreq powercap /sys/class/thermal" {
		t.Errorf("hooks %s", got)
	}
}

// TestThrottle: the beginning is an event, that it goes on is none.
func TestThrottle(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	p := newPoller(e.Env, Config{Interval: 15 * time.Second, Timeout: 10 * time.Second})
	write := func(cpu, file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(e.Root, "sys/devices/system/cpu", cpu, "thermal_throttle", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func() int { p.asker.Ask(t.Context(), p.names()); p.judge(); return len(e.Records()) }
	for range 2 {
		if look() != 0 {
			t.Error("an event of what was before the agent")
		}
	}
	write("cpu0", "core_throttle_count", "20\n")
	write("cpu0", "package_throttle_count", "9\n")
	write("cpu0", "package_throttle_total_time_ms", "3500\n")
	if look() != 1 {
		t.Fatalf("%d events, want one", look())
	}
	write("cpu0", "core_throttle_count", "21\n")
	if look() != 1 {
		t.Error("an event of what goes on")
	}
	look()
	write("cpu2", "core_throttle_count", "99\n")
	if look() != 2 {
		t.Error("no event when it begins again")
	}
	want := Throttle{Package: "0", CoreThrottles: 7, PackageThrottles: 2, Seconds: 0.5, Interval: 15, Celsius: 71}
	if r := e.Records()[0]; *r.Body.(*Throttle) != want || r.Title != "CPU package 0 is too hot and is slowed down: 2 times, its cores 7 times" {
		t.Errorf("%s: %+v", r.Title, r.Body)
	}
	if b := e.Records()[1].Body.(*Throttle); b.Package != "1" {
		t.Errorf("%+v", b)
	}
}

func TestNone(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, probe.ErrAbsent) {
		t.Errorf("without anything: %v", err)
	}
	if err := e.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.thermal.interval") {
		t.Errorf("without an interval: %v", err)
	}
}

// TestKernel reads what this machine has.
func TestKernel(t *testing.T) {
	e := probetest.New(t)
	if err := e.TryStart(Spec(), nil); errors.Is(err, probe.ErrAbsent) {
		t.Skip("needs a thermal zone, throttle counters, cpufreq or powercap: a real machine, or a guest that is given them")
	} else if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.Gather() {
		if s.Schema == temperature && (s.Value < -60 || s.Value > 150) || s.Schema == frequency && (s.Value <= 0 || s.Value > 1.5) || s.Value < 0 && s.Schema != temperature {
			t.Errorf("%s%q is %v", s.Schema.Name, s.Labels, s.Value)
		}
	}
}

func BenchmarkCPUs(b *testing.B) {
	e := probetest.New(b)
	e.Root = probetest.Unpack(b, "testdata/sys.txt")
	p := newPoller(e.Env, Config{Interval: time.Second, Timeout: time.Second})
	for b.Loop() {
		if s, err := p.ask("cpu"); err != nil || len(s) == 0 {
			b.Fatal(err)
		}
	}
}
