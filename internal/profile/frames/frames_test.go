package frames

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// wire makes what the program sends.
func wire(comm string, kernel, user []uint64) []byte {
	w := bpfStackWire{Ts: 5e9, Pid: 43, Tgid: 42, Cpu: 1, Kernel: uint16(len(kernel)), User: uint16(len(user))}
	copy(w.Comm[:], comm)
	copy(w.Ips[:], append(slices.Clone(kernel), user...))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&w)), unsafe.Sizeof(w))
	return slices.Clone(b[:header+8*(len(kernel)+len(user))])
}

func TestDecode(t *testing.T) {
	raw := wire("worker/1", []uint64{1, 2}, []uint64{3, 4, 5})
	for _, padded := range [][]byte{raw, append(slices.Clone(raw), 0, 0, 0, 0)} {
		s, err := decode(padded)
		if err != nil || s.mono != 5e9 || s.pid != 42 || s.tid != 43 || s.cpu != 1 || s.comm != "worker/1" ||
			!slices.Equal(s.kernel, []uint64{1, 2}) || !slices.Equal(s.user, []uint64{3, 4, 5}) {
			t.Errorf("%+v, %v", s, err)
		}
	}
	first, _ := decode(raw)
	raw[header] = 9
	if first.kernel[0] != 1 {
		t.Error("what was decoded changes with the ring")
	}
	if s, _ := decode(wire("", nil, nil)); len(s.kernel)+len(s.user) != 0 {
		t.Errorf("%+v", s)
	}
	most := slices.Repeat([]uint64{7}, most)
	if s, err := decode(wire("deep", most, most)); err != nil || len(s.kernel) != len(most) || len(s.user) != len(most) {
		t.Errorf("%v: %d and %d frames", err, len(s.kernel), len(s.user))
	}
	over := wire("", []uint64{1}, nil)
	binary.LittleEndian.PutUint16(over[unsafe.Offsetof(bpfStackWire{}.User):], 128)
	for name, bad := range map[string][]byte{"nothing": nil, "half a header": raw[:header-1], "a frame short": raw[:len(raw)-1], "too many": over} {
		if s, err := decode(bad); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(wire("worker/1", []uint64{1, 2}, []uint64{3}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := decode(raw)
		if err == nil && header+8*(len(s.kernel)+len(s.user)) > len(raw) {
			t.Errorf("%d frames of %d bytes", len(s.kernel)+len(s.user), len(raw))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := wire("worker/1", slices.Repeat([]uint64{1 << 63}, 20), slices.Repeat([]uint64{1 << 40}, 20))
	for b.Loop() {
		if _, err := decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLoss(t *testing.T) {
	var l loss
	l.queue.Add(2)
	l.undecoded.Add(1)
	for _, tt := range []struct{ full, missed, want uint64 }{
		{10, 5, 18}, {10, 5, 0}, {0, 0, 0}, {11, 5, 1}, {11, 9, 4},
	} {
		if got := l.since(tt.full, tt.missed); got != tt.want {
			t.Errorf("ring %d, missed %d: %d, want %d", tt.full, tt.missed, got, tt.want)
		}
	}
}

func TestCache(t *testing.T) {
	now := time.Now()
	c := newCache[int, string](2, time.Minute)
	c.put(1, "one", now)
	c.put(2, "two", now)
	c.put(3, "three", now) // the second generation
	if _, ok := c.keep(1, now); !ok {
		t.Error("the old generation is lost")
	}
	c.put(4, "four", now) // the third
	if _, ok := c.get(2); ok {
		t.Error("what nobody asked for is still there")
	}
	if v, ok := c.get(1); !ok || v != "one" {
		t.Error("what was asked for is gone")
	}
	c.put(5, "five", now.Add(2*time.Minute))
	c.put(6, "six", now.Add(4*time.Minute))
	if _, ok := c.get(1); ok {
		t.Error("nothing grows old")
	}
	if len(c.young)+len(c.old) != 2 {
		t.Errorf("%d entries", len(c.young)+len(c.old))
	}
}

func TestBeginsThread(t *testing.T) {
	libc := signal.Frame{Function: symbol.Unknown, Module: "/usr/lib/x86_64-linux-gnu/libc.so.6"}
	own := signal.Frame{Function: "work", Module: "/bin/p"}
	for _, tt := range []struct {
		want  bool
		stack []signal.Frame
	}{
		{true, []signal.Frame{own, {Function: "main"}}},
		{true, []signal.Frame{own, {Function: "_start"}}},
		{true, []signal.Frame{own, {Function: "__libc_start_call_main"}}},
		{true, []signal.Frame{own, {Function: "__clone3"}}},
		{true, []signal.Frame{own, {Function: "runtime.goexit.abi0"}}},
		{true, []signal.Frame{own, {Function: "runtime.mcall"}}},
		{true, []signal.Frame{own, libc}},
		{false, []signal.Frame{libc}},
		{false, []signal.Frame{libc, libc}},
		{false, []signal.Frame{own}},
		{false, []signal.Frame{own, {Function: "mainly"}}},
		{false, []signal.Frame{own, {Function: symbol.Unknown, Module: "/usr/lib/libcrypto.so.3"}}},
	} {
		if got := beginsThread(tt.stack); got != tt.want {
			t.Errorf("%+v: %t", tt.stack, got)
		}
	}
}

func TestCode(t *testing.T) {
	own, none := signal.Frame{Function: "work", Module: "/bin/p"}, signal.Frame{Function: symbol.Unknown, Missing: "not mapped as code"}
	for _, tt := range []struct {
		want  int
		stack []signal.Frame
	}{
		{2, []signal.Frame{own, own, none, none}},
		{1, []signal.Frame{own}},
		{3, []signal.Frame{own, none, own}},
		{2, []signal.Frame{none, none}}, // of a process that has gone
		{2, []signal.Frame{own, {Function: symbol.Unknown, Module: "/bin/p"}}},
	} {
		if got := code(tt.stack); len(got) != tt.want {
			t.Errorf("%+v: %d frames", tt.stack, len(got))
		}
	}
}

// fakeProc is a /proc with one process.
func fakeProc(t *testing.T, stat, exe string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "42"), 0o700); err != nil {
		t.Fatal(err)
	}
	become(t, dir, stat, exe)
	return dir
}

func become(t *testing.T, dir, stat, exe string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "42/stat"), []byte(stat), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "42/exe")
	os.Remove(link)
	if exe != "" {
		if err := os.Symlink(exe, link); err != nil {
			t.Fatal(err)
		}
	}
}

const statOf = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 "

// namerOf returns a namer with a clock that the test moves, and what it emits.
func namerOf(proc string) (n *namer, now *time.Time, out *[]*signal.StackSample) {
	now, out = new(time.Now()), new([]*signal.StackSample)
	n = newNamer(Options{Rate: fixed(20), Proc: proc, Symbols: symbol.New(symbol.Options{Proc: proc}), Emit: func(s *signal.StackSample) { *out = append(*out, s) }},
		func(ns uint64) time.Time { return time.Unix(0, int64(ns)) })
	n.now = func() time.Time { return *now }
	return n, now, out
}

// TestProcess: a pid is whose it is now, and of the last one when there is none.
func TestProcess(t *testing.T) {
	dir := fakeProc(t, statOf+"1000 99", "/usr/bin/first (deleted)")
	n, now, _ := namerOf(dir)
	want := func(start uint64, exe string) {
		t.Helper()
		if p := n.process(42); p.start != start || p.exe != exe {
			t.Errorf("%+v, want %d %s", p, start, exe)
		}
	}
	want(1000, "/usr/bin/first")
	become(t, dir, statOf+"2000 99", "/usr/bin/second")
	want(1000, "/usr/bin/first") // believed for a second
	*now = now.Add(procAge)
	want(2000, "/usr/bin/second")
	if err := os.RemoveAll(filepath.Join(dir, "42")); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(procAge)
	want(2000, "/usr/bin/second")
	if p := n.process(43); p.start != 0 || p.exe != "" {
		t.Errorf("of nobody: %+v", p)
	}
	for _, bad := range []string{"", "42 (a) S 1", statOf + "x 99"} {
		file := filepath.Join(t.TempDir(), "stat")
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := startTime(filepath.Dir(file) + "/"); got != 0 {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

// TestSameStack: equal names are one stack, whatever the addresses and processes.
func TestSameStack(t *testing.T) {
	n, now, out := namerOf(t.TempDir()) // nobody can be named
	n.take(sample{mono: 7, pid: 42, tid: 43, cpu: 1, comm: "w", user: []uint64{1, 2}})
	n.take(sample{pid: 42, user: []uint64{1, 2}})
	n.take(sample{pid: 44, user: []uint64{5, 6}})
	n.take(sample{pid: 44, user: []uint64{5, 6, 7}})
	*now = now.Add(2 * stackAge)
	n.take(sample{pid: 42, user: []uint64{1, 2}})
	n.take(sample{pid: 42})
	n.o.Want = func(s *signal.StackSample) bool { return s.Stack != nil || s.PID != 99 }
	n.take(sample{pid: 99})
	got := *out
	if len(got) != 6 {
		t.Fatalf("%d samples", len(got))
	}
	if s := got[0]; s.Value != 50e6 || s.Type.Name != "cpu" || s.PID != 42 || s.TID != 43 || s.CPU != 1 || s.Thread != "w" || s.Time.UnixNano() != 7 {
		t.Errorf("%+v", s)
	}
	for i, same := range []bool{true, true, true, false, true, false} {
		if (got[i].Stack == got[0].Stack) != same {
			t.Errorf("sample %d: %+v", i, got[i].Stack)
		}
	}
	if s := got[0].Stack; !s.Truncated || s.Kernel != 0 || len(s.Frames) != 3 || s.Frames[2].Function != truncated || s.Frames[0].Missing == "" {
		t.Errorf("%+v", s)
	}
	if s := got[5].Stack; len(s.Frames) != 1 || s.Frames[0].Missing == "" {
		t.Errorf("of no stack: %+v", s)
	}
}

func TestCallee(t *testing.T) {
	for _, tt := range []struct {
		arch string
		ret  uint64
		code []byte
		want uint64
	}{
		{"amd64", 0x401005, []byte{0xe8, 0xfb, 0x0f, 0, 0}, 0x402000},
		{"amd64", 0x402005, []byte{0xe8, 0xfb, 0xef, 0xff, 0xff}, 0x401000},
		{"amd64", 0x402005, []byte{0x00, 0x00, 0x00, 0xff, 0xd0}, 0},
		{"arm64", 0x401004, []byte{0x00, 0x04, 0x00, 0x94}, 0x402000}, // bl +0x1000
		{"arm64", 0x402004, []byte{0x00, 0xfc, 0xff, 0x97}, 0x401000}, // bl -0x1000
		{"arm64", 0x402004, []byte{0x00, 0x00, 0x3f, 0xd6}, 0},        // blr x0
		{"riscv64", 0x402004, []byte{0xe8, 0x00, 0x00, 0x94}, 0},
	} {
		if got := callee(tt.arch, tt.ret, tt.code); got != tt.want {
			t.Errorf("%s, % x: %#x, want %#x", tt.arch, tt.code, got, tt.want)
		}
	}
}

// TestNamesStay: what was named once keeps its names when the symbols have gone
// for those of others, and not when the process is another.
func TestNamesStay(t *testing.T) {
	n, now, out := namerOf(fakeProc(t, statOf+"1000 99", "/bin/p"))
	s := sample{pid: 42, user: []uint64{1, 2}}
	p := n.process(42)
	was := &signal.Stack{Frames: []signal.Frame{{Function: "spin"}, {Function: "main"}}}
	n.known.put(n.addresses(&s, &p), named{was, now.Add(stackAge)}, *now)
	for range 3 {
		n.take(s)
		*now = now.Add(stackAge - time.Second)
	}
	become(t, n.o.Proc, statOf+"2000 99", "/bin/p")
	n.take(s)
	for i, got := range *out {
		if (got.Stack == was) != (i < 3) {
			t.Errorf("sample %d: %+v", i, got.Stack)
		}
	}
}

func TestMaxDepth(t *testing.T) {
	dir := t.TempDir()
	if got := maxDepth(dir); got != most {
		t.Errorf("without a file: %d", got)
	}
	if err := os.MkdirAll(dir+"/sys/kernel", 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"127\n": 127, "30\n": 30, "1000\n": most, "x": most, "0": most} {
		if err := os.WriteFile(dir+"/sys/kernel/perf_event_max_stack", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := maxDepth(dir); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
