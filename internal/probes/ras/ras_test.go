package ras

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func bytesOf[T any](w *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func head(kind, severity, count uint32) bpfHwHead {
	return bpfHwHead{Ts: 1_000_000_000, Suppressed: 2, Kind: kind, Severity: severity, Count: count}
}

// The samples are what the programs make of the tracepoints' arguments, which
// are of include/ras/ras_event.h and, for the sections, of the UEFI specification.

func memorySample() *bpfMemoryWire {
	w := &bpfMemoryWire{Head: head(kindMemory, corrected, 3), Address: 0x12345678, Syndrome: 0x2a, Layers: [3]int32{1, 0, -1}, GrainBits: 5, Controller: 1}
	copy(w.Message[:], "memory read error")
	copy(w.Label[:], "CPU_SrcID#0_Ha#0_Chan#1_DIMM#0")
	copy(w.Detail[:], "area:DRAM err_code:0001:0090 socket:0 ha:0 channel_mask:2 rank:1 row:0x1234 col:0x56 bank_addr:1 bank_group:2")
	return w
}

func pcieSample() *bpfPcieWire {
	w := &bpfPcieWire{Head: head(kindPCIe, 1, 1), Status: 1<<14 | 1<<20 | 1<<31, HasHeader: 1, Header: [4]uint32{0x04000001, 0x0000200f, 0x05010000, 0}}
	copy(w.Device[:], "0000:3b:00.0")
	return w
}

func mceSample() *bpfMceWire {
	w := &bpfMceWire{Head: head(kindMCE, corrected, 2)}
	w.M.Status, w.M.Misc, w.M.Addr = 0x9c00008000010092, 0x86, 0x1_2345_6000
	w.M.Mcgcap, w.M.Bank, w.M.Extcpu, w.M.Socketid, w.M.Apicid, w.M.Cpuid = 1<<10|22, 7, 12, 1, 0x18, 0x50657
	return w
}

func armSample() *bpfSectionWire {
	w := &bpfSectionWire{Head: head(kindARM, 1, 1), Len: 72}
	le, d := binary.LittleEndian, w.Data[:]
	le.PutUint32(d, 1)
	le.PutUint16(d[4:], 1)
	le.PutUint64(d[16:], 0x81010000)
	le.PutUint64(d[24:], 0x410fd0c1)
	e := d[40:]
	le.PutUint16(e[2:], 1<<0|1<<1|1<<2|1<<4)
	e[4], e[7] = 2, 1|2
	le.PutUint16(e[5:], 3)
	le.PutUint64(e[8:], 1<<0|1<<1|1<<2|1<<3|1<<4|1<<16|3<<18|2<<22)
	le.PutUint64(e[24:], 0x8000_1000)
	return w
}

func firmwareSample() *bpfSectionWire {
	w := &bpfSectionWire{Head: head(kindFirmware, 3, 1), Len: 70}
	copy(w.Type[:], []byte{0x54, 0xe9, 0x95, 0xd9, 0xc1, 0xbb, 0x0f, 0x43, 0xad, 0x91, 0xb4, 0x4d, 0xcb, 0x3c, 0x6f, 0x35})
	copy(w.FruText[:], "PCIe slot 3")
	copy(w.Data[:], []byte{1, 2, 3, 0xff})
	return w
}

func memlogSample() *bpfSectionWire {
	w := &bpfSectionWire{Head: head(kindMemoryLog, 1, 1), Len: 80}
	le, d := binary.LittleEndian, w.Data[:]
	le.PutUint64(d, 1<<1|1<<3|1<<4|1<<5|1<<14|1<<8)
	le.PutUint64(d[16:], 0x7fff0000)
	le.PutUint16(d[32:], 1)
	le.PutUint16(d[34:], 2)
	le.PutUint16(d[36:], 3)
	le.PutUint16(d[42:], 0x1111)
	d[72] = 3
	return w
}

func pageSample() *bpfPageWire {
	return &bpfPageWire{Head: head(kindPage, 1, 1), Pfn: 0x19869, Type: 11, Result: 3}
}

func samples() map[string][]byte {
	return map[string][]byte{
		"memory": bytesOf(memorySample()), "pcie": bytesOf(pcieSample()), "machine_check": bytesOf(mceSample()), "arm_processor": bytesOf(armSample()),
		"firmware": bytesOf(firmwareSample()), "memory_log": bytesOf(memlogSample()), "memory_page": bytesOf(pageSample()),
	}
}

func newDecoder() *decoder {
	return &decoder{clock: at, pageTypes: map[uint32]string{11: "dirty lru page"}}
}

// TestGolden compares the event of each source with what is kept in testdata.
func TestGolden(t *testing.T) {
	for name, raw := range samples() {
		r, err := newDecoder().decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.Document()
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != string(got)+"\n" {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if _, err := newDecoder().decode(raw[:len(raw)-1]); err == nil {
			t.Errorf("%s: a short sample decodes", name)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, h := range []bpfHwHead{head(7, 0, 1), head(0, 5, 1)} {
		if _, err := newDecoder().decode(bytesOf(&h)); err == nil {
			t.Errorf("kind %d, severity %d decodes", h.Kind, h.Severity)
		}
	}
}

// TestMCACode takes each form of code once.
func TestMCACode(t *testing.T) {
	for code, want := range map[uint16]string{
		0x0000: "no error code", 0x0001: "unclassified error", 0x0005: "internal parity error", 0x0400: "internal timer error", 0x0e0b: "I/O error",
		0x000d: "cache hierarchy, level 1", 0x0015: "TLB, data, level 1", 0x0091: "memory controller, read, channel 1", 0x009f: "memory controller, read",
		0x10cf: "memory controller, scrub (corrected ones are filtered)", 0x0134: "cache, data, level 0, data read", 0x017a: "cache, generic, level 2, eviction",
		0x0282: "memory used as a cache, generic, channel 2", 0x0f0f: "bus or interconnect, generic, error, other, generic level, timed out",
		0x0810: "bus or interconnect, source, read, memory, level 0", 0x0401: "internal error of the processor", 0x2000: "unknown error code",
	} {
		if got := mcaCode(code); got != want {
			t.Errorf("0x%04x: %q, want %q", code, got, want)
		}
	}
}

// TestAMD: the bits that mean something else there, and an address that is one
// of memory for errors of memory only.
func TestAMD(t *testing.T) {
	w := mceSample()
	w.M.Cpuvendor, w.M.Status = 2, 1<<63|1<<58|1<<44|1<<43|1<<53|0x0091
	w.Head.Severity = 2
	r, err := newDecoder().decode(bytesOf(w))
	if err != nil {
		t.Fatal(err)
	}
	b := r.Body.(*HardwareError)
	if got := strings.Join(b.Flags, " "); got != "address_valid syndrome_valid deferred poison" || b.Address != "0x123456000" || b.ErrorSeverity != "deferred" || r.Severity != "" {
		t.Errorf("%q %+v", got, b)
	}
	w.M.Status = 1<<63 | 1<<58 | 0x0135
	if r, _ := newDecoder().decode(bytesOf(w)); r.Body.(*HardwareError).Address != "" {
		t.Errorf("address of a cache: %+v", r.Body)
	}
}

func TestPlace(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	kpage := make([]byte, 8*0x20000)
	binary.NativeEndian.PutUint64(kpage[8*(0x12345678/pageSize):], 4711)
	if err := os.WriteFile(filepath.Join(e.Root, "proc/kpagecgroup"), kpage, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../drivers/nvme", filepath.Join(e.Root, "sys/bus/pci/devices/0000:3b:00.0/driver")); err != nil {
		t.Fatal(err)
	}
	p := &placer{root: e.Root, owners: true}
	place := func(raw []byte) (*signal.Record, *HardwareError) {
		r, err := newDecoder().decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		p.place(r)
		return r, r.Body.(*HardwareError)
	}
	if r, b := place(bytesOf(memorySample())); b.NUMANode != "1" || r.CgroupID != 4711 {
		t.Errorf("memory is on node %q, of group %d", b.NUMANode, r.CgroupID)
	}
	p.owners = false
	if r, _ := place(bytesOf(memorySample())); r.CgroupID != 0 {
		t.Errorf("group %d where groups of memory name no workload", r.CgroupID)
	}
	if _, b := place(bytesOf(pcieSample())); b.NUMANode != "0" || b.PCIe.Driver != "nvme" || b.PCIe.Vendor != "0x144d" || b.PCIe.Class != "0x010802" {
		t.Errorf("device %+v on node %q", b.PCIe, b.NUMANode)
	}
	w := pcieSample()
	copy(w.Device[:], "../../../kernel\x00")
	if _, b := place(bytesOf(w)); b.PCIe.Vendor != "" {
		t.Errorf("a device outside of its folder: %+v", b.PCIe)
	}
	m := mceSample()
	m.M.Status &^= mciAddressValid
	if _, b := place(bytesOf(m)); b.NUMANode != "1" || b.Address != "" {
		t.Errorf("CPU on node %q", b.NUMANode)
	}
	p.root = t.TempDir()
	if r, b := place(bytesOf(memorySample())); b.NUMANode != "" || r.CgroupID != 0 {
		t.Errorf("without sysfs: %q", b.NUMANode)
	}
}

func TestEDAC(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	var collect func(*signal.Batch) error
	e.Collect = func(f func(*signal.Batch) error) { collect = f }
	stop := watchEDAC(t.Context(), e.Env)
	defer stop()
	b := new(signal.Batch)
	for end := time.Now().Add(10 * time.Second); len(b.Samples) < 9 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		b = new(signal.Batch)
		if err := collect(b); err != nil {
			t.Fatal(err)
		}
	}
	probetest.Golden(t, "testdata/edac.golden", b.Samples, nil, *update)

	none := probetest.New(t)
	none.Root = t.TempDir()
	none.Collect = func(func(*signal.Batch) error) { t.Error("a machine without EDAC has a collector") }
	watchEDAC(t.Context(), none.Env)()
}

func TestWhere(t *testing.T) {
	key := func(kind, unit uint32, where string) *bpfCountKey {
		k := &bpfCountKey{Kind: kind, Unit: unit}
		copy(k.Where[:], where)
		return k
	}
	for _, tt := range []struct {
		k    *bpfCountKey
		want string
	}{{key(kindMCE, 4, ""), "bank 4"}, {key(kindMemory, 1, ""), "mc1"}, {key(kindMemory, 1, "DIMM_A1"), "DIMM_A1"}, {key(kindPCIe, 0, "0000:00:01.0"), "0000:00:01.0"}, {key(kindPage, 0, ""), ""}} {
		if got := where(tt.k); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.k, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, raw := range samples() {
		f.Add(raw)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := newDecoder().decode(raw)
		if err != nil {
			return
		}
		(&placer{root: "/nonexistent"}).place(r)
		if _, err := r.Document(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(mceSample()), newDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
