package irq

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// TestWire holds the Go side to bpf/include/hist.h.
func TestWire(t *testing.T) {
	var h bpfHtHist
	if got, want := len(h.Slots), signal.LatencySlots(0); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
}

const interrupts = `           CPU0       CPU1       
  9:          0          0   IO-APIC   9-fasteoi   acpi
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
 28:        100         20 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
 30:          3          4   IO-APIC  16-fasteoi   uhci_hcd:usb1, i801_smbus
 31:          3          4     GICv3  27 Level     arch_timer
 32:          5
LOC:    9881643    9635602   Local timer interrupts
ERR:          0
`

func TestInterrupts(t *testing.T) {
	want := map[uint32]string{9: "acpi", 24: "ACPI:Ged", 28: "virtio0-config", 30: "uhci_hcd:usb1, i801_smbus", 31: "arch_timer"}
	if got := parseInterrupts(strings.NewReader(interrupts)); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func FuzzInterrupts(f *testing.F) {
	f.Add(interrupts)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		for irq, name := range parseInterrupts(strings.NewReader(text)) {
			if name == "" {
				t.Errorf("line %d has the empty name, in %q", irq, text)
			}
		}
	})
}

func BenchmarkInterrupts(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parseInterrupts(strings.NewReader(interrupts))
	}
}

// TestNames: a line keeps its series, and there are not more than so many.
func TestNames(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "proc/interrupts")
	if err := os.WriteFile(file, []byte(interrupts), 0o644); err != nil {
		t.Fatal(err)
	}
	n := names{root: root, series: map[uint32]string{}}
	all := map[uint32]bpfIrqLine{24: {Handled: 1, Ns: 5}, 200: {Handled: 1, Ns: 1}, lastLine: {Handled: 9, Ns: 99}}
	n.assign(all)
	if n.series[24] != "ACPI:Ged" || n.series[200] != "irq200" || n.series[lastLine] != other {
		t.Errorf("series %v", n.series)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(interrupts, "ACPI:Ged", "else")), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(100) {
		all[300+i] = bpfIrqLine{Handled: 1, Ns: uint64(i)}
	}
	n.assign(all)
	if n.series[24] != "ACPI:Ged" {
		t.Errorf("line 24 counts in %q now", n.series[24])
	}
	if n.series[399] != "irq399" || n.series[300] != other || n.used != maxSeries {
		t.Errorf("the busiest in %q, the least busy in %q, %d series", n.series[399], n.series[300], n.used)
	}
	got := map[string]bool{}
	for _, s := range n.series {
		got[s] = true
	}
	if len(got) != maxSeries+1 {
		t.Errorf("%d series, want %d and other", len(got), maxSeries)
	}
}

// TestSharedName: two lines of one name count in one series.
func TestSharedName(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "   CPU0\n 5: 1 chip edge nic\n 6: 1 chip edge nic\n"
	if err := os.WriteFile(filepath.Join(root, "proc/interrupts"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n := names{root: root, series: map[uint32]string{}}
	n.assign(map[uint32]bpfIrqLine{5: {Handled: 1}, 6: {Handled: 1}})
	if n.series[5] != "nic" || n.series[6] != "nic" || n.used != 1 {
		t.Errorf("series %v", n.series)
	}
}

func TestRequested(t *testing.T) {
	root := t.TempDir()
	if n := len(requested(root)); n != lastLine+1 {
		t.Errorf("%d lines without a list, want all %d", n, lastLine+1)
	}
	for _, name := range []string{"0", "17", "1022", "1023", "5000", "default_smp_affinity"} {
		if err := os.MkdirAll(filepath.Join(root, "proc/irq", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := requested(root)
	slices.Sort(got)
	if want := []uint32{0, 17, 1022, lastLine}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
