package packetfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// harness is a program that gives what is in a map to the filter, and the map.
type harness struct {
	prog  *ebpf.Program
	frame *ebpf.Map
}

// newHarness loads a filter. The frame lies in the map as in ht_filter; behind
// it are how many bytes there are, and the length.
func newHarness(t testing.TB, p *Program) *harness {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: stateBytes + 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	body := p.instructions()
	body[0] = body[0].WithSymbol(function)
	insns := append(asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "found"),
		asm.Return(),
		asm.LoadMem(asm.R2, asm.R0, stateBytes, asm.DWord).WithSymbol("found"),
		asm.LoadMem(asm.R3, asm.R0, stateBytes+8, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Add.Imm(asm.R1, stateBytes-FrameBytes),
		asm.Call.Label(function),
		asm.Return(),
	}, body...)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: insns})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%+v", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return &harness{prog, m}
}

func (h *harness) set(t testing.TB, pkt []byte, have, length int) {
	t.Helper()
	v := bytes.Repeat([]byte{0xee}, stateBytes+16) // what lies behind a packet is of the last one
	copy(v[stateBytes-FrameBytes:], pkt)
	binary.NativeEndian.PutUint64(v[stateBytes:], uint64(have))
	binary.NativeEndian.PutUint64(v[stateBytes+8:], uint64(length))
	if err := h.frame.Put(uint32(0), v); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) run(t testing.TB, pkt []byte) bool {
	t.Helper()
	h.set(t, pkt, len(pkt), len(pkt))
	n, err := h.prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return n != 0
}

func needRoot(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
}

// TestKernelFilters loads each filter and compares the kernel's verdict with that
// of the machine of classic BPF, on whole packets and on such as end early.
func TestKernelFilters(t *testing.T) {
	needRoot(t)
	all := packets(t)
	all = append(all, mutants(all, 1)...)
	long := "port 1" + strings.Repeat(" or 40001", 40)
	for _, f := range append([]string{long, "host ::" + strings.Repeat(" or ::1", 30)}, filters...) {
		p, err := Compile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, vm := newHarness(t, p), machine(t, p)
		for i, pkt := range all {
			for _, n := range []int{len(pkt), i * 7 % len(pkt)} {
				if got, want := h.run(t, pkt[:n]), run(t, vm, pkt[:n]); got != want {
					t.Errorf("%q takes %d bytes of packet %d: %v, want %v", f, n, i, got, want)
				}
			}
		}
		h.prog.Close()
		h.frame.Close()
	}
}

// TestInsert: the body of the function is replaced, and nothing else.
func TestInsert(t *testing.T) {
	p, err := Compile("tcp port 443")
	if err != nil {
		t.Fatal(err)
	}
	fn := func(name string) asm.Instruction {
		return btf.WithFuncMetadata(asm.Mov.Imm(asm.R0, 1).WithSymbol(name), &btf.Func{Name: name, Type: &btf.FuncProto{Return: &btf.Void{}}})
	}
	spec := func() *ebpf.CollectionSpec {
		return &ebpf.CollectionSpec{
			Maps: map[string]*ebpf.MapSpec{state: {ValueSize: stateBytes}},
			Variables: map[string]*ebpf.VariableSpec{switchOn: {Value: make([]byte, 1)}, switchLink: {Value: make([]byte, 1)},
				wantedBytes: {Value: make([]byte, 4)}},
			Programs: map[string]*ebpf.ProgramSpec{
				"asks":  {Instructions: asm.Instructions{fn("asks"), asm.Call.Label(function), asm.Return(), fn(function), asm.Return(), fn("other"), asm.Return()}},
				"last":  {Instructions: asm.Instructions{fn("last"), asm.Call.Label(function), asm.Return(), fn(function), asm.Return()}},
				"other": {Instructions: asm.Instructions{fn("other"), asm.Return()}},
			},
		}
	}
	s := spec()
	if err := p.Insert(s); err != nil {
		t.Fatal(err)
	}
	n := len(p.instructions())
	got := s.Programs["asks"].Instructions
	if len(got) != 3+n+2 || got[3].Symbol() != function || btf.FuncMetadata(&got[3]).Name != function || got[3].Constant != 0 || got[3+n].Symbol() != "other" {
		t.Errorf("asks: %v", got)
	}
	if got := s.Programs["last"].Instructions; len(got) != 3+n {
		t.Errorf("last: %v", got)
	}
	if got := s.Programs["other"].Instructions; len(got) != 2 {
		t.Errorf("other: %v", got)
	}
	if v := s.Variables; v[switchOn].Value[0] != 1 || v[switchLink].Value[0] != 0 || binary.LittleEndian.Uint32(v[wantedBytes].Value) != 64 {
		t.Errorf("constants %v", v)
	}
	for what, spoil := range map[string]func(*ebpf.CollectionSpec){
		"no map":      func(s *ebpf.CollectionSpec) { delete(s.Maps, state) },
		"other size":  func(s *ebpf.CollectionSpec) { s.Maps[state].ValueSize-- },
		"no constant": func(s *ebpf.CollectionSpec) { delete(s.Variables, switchLink) },
		"no function": func(s *ebpf.CollectionSpec) { delete(s.Programs, "asks"); delete(s.Programs, "last") },
		"no type": func(s *ebpf.CollectionSpec) {
			s.Programs["last"].Instructions[3] = asm.Mov.Imm(asm.R0, 1).WithSymbol(function)
		},
	} {
		s := spec()
		spoil(s)
		if err := p.Insert(s); err == nil || !strings.Contains(err.Error(), "BUG") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReads: how much of the packet a filter wants copied.
func TestReads(t *testing.T) {
	for _, c := range []struct {
		expr  string
		link  bool
		bytes uint32
	}{
		{"arp", false, 1}, {"ip", false, 1}, {"udp", false, 41}, {"icmp", false, 10}, {"host 192.0.2.1", false, 28}, {"tcp port 443", false, 64},
		{"tcp[13] & 2 != 0", false, 74}, {"ip[ip[9]] = 1", false, 240}, {"ether host 02:00:00:00:00:01", true, 1}, {"ether[ip[0]] = 1", true, 240}, {"broadcast", true, 1},
		{"ip[239] = 1", false, 240}, {"less 100", false, 1},
	} {
		p, err := Compile(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		if link, bytes := p.reads(); link != c.link || bytes != c.bytes {
			t.Errorf("%q: link %v, %d bytes; want %v, %d", c.expr, link, bytes, c.link, c.bytes)
		}
	}
}

// FuzzCompile: nothing crashes, what compiles is a program of classic BPF whose
// jumps go forward, and an error has a place in the text.
func FuzzCompile(f *testing.F) {
	for _, s := range filters {
		f.Add(s, []byte(s))
	}
	f.Fuzz(func(t *testing.T, expr string, pkt []byte) {
		p, err := Compile(expr)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || len(expr) <= maxExpr && e.Offset > len(expr) || e.Msg == "" {
				t.Fatalf("%q: %v", expr, err)
			}
			return
		}
		for i, in := range p.code {
			if (in.op == jump || in.op == jumpX) && (in.yes <= i || in.no <= i || in.yes >= len(p.code) || in.no >= len(p.code)) {
				t.Fatalf("%q: a jump from %d to %d and %d", expr, i, in.yes, in.no)
			}
		}
		run(t, machine(t, p), pkt)
		if n := len(p.instructions()); n > 3*maxCode+4 {
			t.Fatalf("%q: %d instructions", expr, n)
		}
	})
}

// BenchmarkFilter is the filter alone, in the kernel, on a packet that it leaves out.
func BenchmarkFilter(b *testing.B) {
	needRoot(b)
	for _, f := range []string{"arp", "tcp port 443", "host 10.9.9.9 and tcp port 443", "tcp[tcpflags] & tcp-rst != 0"} {
		b.Run(f, func(b *testing.B) {
			p, err := Compile(f)
			if err != nil {
				b.Fatal(err)
			}
			h := newHarness(b, p)
			pkt := packets(b)[12] // a SYN to port 80
			h.set(b, pkt, len(pkt), len(pkt))
			n, took, err := h.prog.Benchmark(make([]byte, 64), b.N, b.ResetTimer)
			if err != nil || n != 0 {
				b.Fatal(n, err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
		})
	}
}

// BenchmarkCompile is what the start of a probe pays.
func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile("host 192.0.2.1 and tcp port 443"); err != nil {
			b.Fatal(err)
		}
	}
}
