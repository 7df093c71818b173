package gpu

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// answer is what a 550 driver's nvidia-smi writes for two GPUs, of which one
// has no ECC, and for one that is lost.
const answer = `00000000:3B:00.0, 0, GPU-11111111-2222-3333-4444-555555555555, NVIDIA A100-SXM4-80GB, 550.54.15, 61, 321.47, 400.00, 98, 71, 81920, 40213, 1275, 1410, 8, 16, 17, 2, 0, 0x0000000000000044
00000000:AF:00.0, 1, GPU-66666666-7777-8888-9999-000000000000, NVIDIA T4, 550.54.15, 33, [N/A], 70.00, 0, 0, 15360, 3, 300, 1590, 16, 16, [N/A], [Unknown Error], [N/A], 0x0000000000000001
Unable to determine the device handle for GPU 0000:D8:00.0: GPU is lost.  Reboot the system to recover this GPU
`

// fake is an nvidia-smi that does as the shell text says when asked for values.
func fake(t *testing.T, text string) string {
	t.Helper()
	help, err := filepath.Abs("testdata/help.txt")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	script := "#!/bin/sh\ncase $1 in --help-query-gpu) exec cat " + help + ";; esac\n" + text + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs the probe with that program and three GPUs, with intervals that are short.
func start(t *testing.T, command string, timeout time.Duration) *probetest.Env {
	t.Helper()
	e := probetest.New(t)
	e.Root = t.TempDir()
	for _, gpu := range []string{"0000:3b:00.0", "0000:af:00.0", "0000:d8:00.0"} {
		if err := os.MkdirAll(filepath.Join(e.Root, "proc/driver/nvidia/gpus", gpu), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e.Start(Spec(), Config{Command: command, Interval: 20 * time.Millisecond, Timeout: timeout})
	return e
}

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(out, []byte(answer), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, fake(t, `[ "$2" = --format=csv,noheader,nounits ] || exit 2
[ $(echo "$1" | tr , '\n' | wc -l) = 20 ] || exit 3
cat `+out+`; exit 15`), 20*time.Second)
	probetest.Golden(t, "testdata/values.golden", e.Gather(), nil, *update)
	// All are lost: the metrics go, and that they do not respond stays.
	if err := os.WriteFile(out, []byte("No devices were found\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no GPU responds", func() bool { return nobody(e.Gather()) })
}

func nobody(samples []signal.Sample) bool {
	for _, s := range samples {
		if s.Schema != responds || s.Value != 0 {
			return false
		}
	}
	return len(samples) == 3
}

// TestHang: a program that does not end is killed, and that is told.
func TestHang(t *testing.T) {
	e := start(t, fake(t, "exec sleep 600"), 200*time.Millisecond)
	if s := e.Gather(); !nobody(s) {
		t.Errorf("%d samples while nvidia-smi hangs, want that no GPU responds", len(s))
	}
}

func TestQuery(t *testing.T) {
	for text, want := range map[string]string{
		"echo garbage >&2; exit 9":       `exit status 9: "garbage"`,
		`echo 'a "b, c'`:                 "",
		"head -c 3000000 /dev/zero":      "",
		"echo NVIDIA-SMI has failed":     "",
		"echo 00000000:3B:00.0, 1, 2, 3": "",
	} {
		s := &smi{path: fake(t, text), timeout: 20 * time.Second}
		rows, err := s.query()
		if len(rows) != 0 || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v; want %q", text, rows, err, want)
		}
	}
	s := &smi{path: "/bin/true", timeout: 20 * time.Second}
	if _, err := s.query(); err == nil || !strings.Contains(err.Error(), "pci.bus_id") {
		t.Errorf("a program that knows no field: %v", err)
	}
}

// TestKnown: older versions have the older name of a field only.
func TestKnown(t *testing.T) {
	got := known("\"pci.bus_id\" or \"gpu_bus_id\"\nthe \"index\" of it\n\"clocks_throttle_reasons.active\"\n")
	if fmt.Sprint(got) != "[pci.bus_id clocks_throttle_reasons.active]" {
		t.Errorf("fields %v", got)
	}
}

func TestNone(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, probe.ErrAbsent) {
		t.Errorf("without a GPU: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(e.Root, "proc/driver/nvidia/gpus/0000:3b:00.0"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := Spec().Config.(Config)
	cfg.Command = "/nonexistent/nvidia-smi"
	if err := e.TryStart(Spec(), cfg); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "probes.gpu.command") {
		t.Errorf("without nvidia-smi: %v", err)
	}
	if err := e.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.gpu.interval") {
		t.Errorf("without an interval: %v", err)
	}
}

func TestXid(t *testing.T) {
	for _, tt := range []struct {
		line, gpu string
		xid       uint32
		pid       uint32
		comm      string
		severity  signal.Severity
	}{
		{"NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus.", "0000:01:00.0", 79, 1234, "python3", ""},
		{"NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", "0000:05:00.0", 79, 0, "", ""},
		{"NVRM: Xid (PCI:0000:CA:00): 31, pid=1587983, name=exe, Ch 0000000a, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC5", "0000:ca:00.0", 31, 1587983, "exe", signal.Warning},
		{"NVRM: Xid (0000:03:00): 14, Channel 00000001", "0000:03:00.0", 14, 0, "", ""},
		{"NVRM: Xid (PCI:0000:02:00.0): 154, Node Reboot Required", "0000:02:00.0", 154, 0, "", ""},
		{"NVRM: Xid (PCI:0000:02:00): x, y", "", 0, 0, "", ""},
		{"my NVRM: Xid (PCI:0000:02:00): 79, y", "", 0, 0, "", ""},
	} {
		r := parseXid(tt.line)
		if (r == nil) != (tt.gpu == "") {
			t.Errorf("%s: %v", tt.line, r)
			continue
		}
		if r == nil {
			continue
		}
		if b := r.Body.(*XidError); b.GPU != tt.gpu || b.Xid != tt.xid || r.Process.PID != tt.pid || r.Process.Comm != tt.comm || r.Severity != tt.severity {
			t.Errorf("%s: %+v of %+v, severity %q", tt.line, b, r.Process, r.Severity)
		}
	}
}

// TestXidStorm: all are counted, few are events.
func TestXidStorm(t *testing.T) {
	var records []*signal.Record
	x := &xids{emit: func(r *signal.Record) { records = append(records, r) }, clock: func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }, counts: map[xidKey]float64{}}
	for range 2 {
		left := eventsPerLook
		for range 100 {
			left = x.take(&kmsg.Record{Text: "NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=a, Ch 1", SinceBoot: time.Second}, left)
		}
		x.take(&kmsg.Record{Text: "NVRM: Xid (PCI:0000:3b:00): 31, written by a process", Facility: 1}, left)
	}
	b := new(signal.Batch)
	if err := x.collect(b); err != nil {
		t.Fatal(err)
	}
	if n, _ := probetest.Value(b.Samples, xidErrors.Name, "0000:3b:00.0", "31"); n != 200 {
		t.Errorf("%v are counted", n)
	}
	if len(records) != 2*eventsPerLook || records[eventsPerLook].Suppressed != 90 || x.emitted.Load()+x.limited.Load() != 200 || !records[0].Time.Equal(time.Unix(1, 0)) {
		t.Errorf("%d events, %d suppressed before the 11th", len(records), records[eventsPerLook].Suppressed)
	}
}

func FuzzXid(f *testing.F) {
	f.Add("NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus.")
	f.Fuzz(func(t *testing.T, s string) {
		if r := parseXid(s); r != nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(answer))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, _ := parse(b, wanted()[:20])
		for i := range rows {
			rows[i].collect(new(signal.Batch))
		}
	})
}

// TestKernel asks the GPUs of this machine.
func TestKernel(t *testing.T) {
	if _, err := exec.LookPath("nvidia-smi"); err != nil {
		t.Skip("needs an NVIDIA GPU with its driver and nvidia-smi")
	}
	e := probetest.New(t)
	e.Clock = func(uint64) time.Time { return time.Now() }
	if err := e.TryStart(Spec(), nil); errors.Is(err, probe.ErrAbsent) {
		t.Skip("needs an NVIDIA GPU with its driver and nvidia-smi: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range e.Gather() {
		t.Logf("%s%q %v", s.Schema.Name, s.Labels, s.Value)
		if s.Schema == responds && s.Value == 1 {
			n++
		}
		if s.Schema.Unit == "ratio" && s.Value > 1 || s.Schema.Unit == "celsius" && s.Value > 120 {
			t.Errorf("%s is %v", s.Schema.Name, s.Value)
		}
	}
	if n == 0 {
		t.Error("no GPU responds")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}
