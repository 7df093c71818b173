package symbol

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"huatuo/internal/kern/ksym"
	"huatuo/internal/signal"
)

func TestKernel(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "kallsyms"), `ffffffff81000000 T schedule
ffffffff81001000 T panic_noreturn_caller
ffffffff81001100 T next_function
ffffffff81002000 T _etext
ffffffffc0000000 t ext4_read	[ext4]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_probe	[bpf]
ffffffff81001200 T __traceiter_sched_switch
ffffffff81001300 T bpf_trace_run4
`)
	const trace, run, prog = 0xffffffff81001210, 0xffffffff81001310, 0xffffffffc0100010
	fn := func(names ...string) []signal.Frame {
		var fs []signal.Frame
		for _, n := range names {
			n, mod, _ := strings.Cut(n, " ")
			fs = append(fs, signal.Frame{Function: n, Module: mod})
		}
		return fs
	}
	none := signal.Frame{Function: Unknown, Missing: "no kernel function there"}
	r := New(Options{Proc: proc})
	for _, tt := range []struct {
		name string
		ips  []uint64
		want []signal.Frame
	}{
		{"plain", []uint64{0xffffffff81000004, 0xffffffffc0000008}, fn("schedule", "ext4_read ext4")},
		{"return addresses", []uint64{0xffffffff81001100, 0xffffffff81001100}, fn("next_function", "panic_noreturn_caller")},
		{"unknown", []uint64{0xffffffff81002000, 0x400000}, []signal.Frame{none, none}},
		{"hook left out", []uint64{prog, run, trace, 0xffffffff81000004}, fn("schedule")},
		{"hook without the program", []uint64{run, trace, 0xffffffff81000004}, fn("schedule")},
		{"program that was sampled", []uint64{prog, 0xffffffff81000004}, fn("bpf_prog_6deef7357e7b4530_probe bpf", "schedule")},
		{"nothing but the hook", []uint64{prog, run}, fn("bpf_prog_6deef7357e7b4530_probe bpf", "bpf_trace_run4")},
		{"empty", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, r.Kernel(tt.ips)); d != "" {
				t.Error(d)
			}
		})
	}
	if s := r.Stats(); s.Missing["no kernel function there"] != 2 || s.Named == 0 {
		t.Errorf("counted %+v", s)
	}
	write(t, filepath.Join(proc, "kallsyms"), "0000000000000000 T schedule\n")
	f := New(Options{Proc: proc}).Kernel([]uint64{0xffffffff81000004})
	if f[0].Missing != "kernel symbols not readable" {
		t.Errorf("hidden: %+v", f)
	}
}

// TestNamesLetGoOfTables: a table of the kernel's symbols has 4 MB, and is read
// anew when BPF programs come and go; a name in an event that is kept must not
// keep it all.
func TestNamesLetGoOfTables(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "kallsyms"), "ffffffff81000000 T schedule\nffffffff81002000 T _etext\n")
	k := ksym.New(proc)
	r := New(Options{Proc: proc, Kernel: k})
	const ip = 0xffffffff81000004
	sym, _ := k.Lookup(ip)
	for what, name := range map[string]string{"Function": r.Function(ip), "Kernel": r.Kernel([]uint64{ip})[0].Function} {
		if name != "schedule" || unsafe.StringData(name) == unsafe.StringData(sym.Name) {
			t.Errorf("%s gives %q in the memory of the table", what, name)
		}
	}
	if name := r.Function(0x400000); name != "" {
		t.Errorf("%q is no function of the kernel", name)
	}
}

// TestKernelHost names functions of the running kernel.
func TestKernelHost(t *testing.T) {
	k := ksym.New("")
	if err := k.Load(); err != nil {
		t.Skipf("run as root: %v", err)
	}
	addrs, err := k.Addresses("vfs_read")
	if err != nil || len(addrs) == 0 {
		t.Fatalf("vfs_read: %v", err)
	}
	if f := New(Options{Kernel: k}).Kernel(addrs[:1]); f[0] != (signal.Frame{Function: "vfs_read"}) {
		t.Errorf("%+v", f)
	}
}

// TestSlowFile has no time to read anything.
func TestSlowFile(t *testing.T) {
	tg := startTarget(t)
	r := New(Options{Wait: time.Nanosecond})
	f := one(t, r, tg.pid, tg.addrs["exported_function"])
	if f.Function == Unknown && f.Missing != "symbols still loading" {
		t.Errorf("%+v", f)
	}
	waitFor(t, func() bool { return one(t, r, tg.pid, tg.addrs["exported_function"]).Function == "exported_function" })
}

func TestCacheTooSmall(t *testing.T) {
	tg := startTarget(t)
	r := New(Options{Wait: 10 * time.Second, CacheBytes: 64 << 10})
	one(t, r, tg.pid, tg.addrs["exported_function"])
	f := one(t, r, tg.pid, tg.addrs["puts"])
	if f.Missing != "symbols too large" {
		t.Errorf("libc in 32 KB: %+v", f)
	}
	// The file fits in alone, but others pushed it out just now.
	r = New(Options{Wait: 10 * time.Second, CacheBytes: 256 << 10})
	one(t, r, tg.pid, tg.addrs["exported_function"])
	r.objects.cache.put(fileKey{inode: 1}, &object{}, r.objects.cache.limit)
	if f := one(t, r, tg.pid, tg.addrs["exported_function"]); f.Missing != "symbol cache too small" || f.Offset == 0 {
		t.Errorf("pushed out: %+v", f)
	}
	if s := r.Stats(); s.Evicted == 0 || s.CacheBytes > 256<<10 {
		t.Errorf("%+v", s)
	}
}

// TestTogether asks for several processes from several goroutines at once.
func TestTogether(t *testing.T) {
	exe := compileTarget(t)
	var tgs []*target
	for range 4 {
		tgs = append(tgs, start(t, exec.Command(exe)))
	}
	r := newResolver()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				tg := tgs[(g+i)%len(tgs)]
				r.Remember(tg.pid)
				f := r.User(tg.pid, 0, []uint64{tg.addrs["exported_function"], tg.addrs["puts"] + 1, tg.addrs["jit"]})
				if f[0].Function != "exported_function" || f[1].Function != "puts" || f[2].Missing == "" {
					t.Errorf("%+v", f)
				}
				r.Kernel([]uint64{1})
				r.Stats()
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Loads > 4 { // the program, libc, ld.so, and one to spare
		t.Errorf("%d files were read", s.Loads)
	}
}

func TestLRU(t *testing.T) {
	l := newLRU[string, int](10)
	l.put("a", 1, 4)
	l.put("b", 2, 4)
	l.get("a")
	l.put("c", 3, 4) // b goes, not a
	for k, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, ok := l.get(k); ok != want {
			t.Errorf("%s is there: %v", k, ok)
		}
	}
	l.put("a", 1, 9) // grew: c goes
	if n, bytes, evicted := l.stats(); n != 1 || bytes != 9 || evicted != 2 {
		t.Errorf("%d items, %d bytes, %d evicted", n, bytes, evicted)
	}
	l.put("d", 4, 100) // larger than the cache: nothing stays
	if n, bytes, _ := l.stats(); n != 0 || bytes != 0 {
		t.Errorf("%d items, %d bytes", n, bytes)
	}
}

func TestCrew(t *testing.T) {
	c := newCrew(1, 2)
	hold, running := make(chan struct{}), make(chan struct{})
	c.do(func() { close(running); <-hold })
	<-running
	ran := make(chan int, 3)
	accepted := 0
	for i := range 3 {
		if c.do(func() { ran <- i }) {
			accepted++
		}
	}
	if accepted != 2 {
		t.Errorf("%d accepted, want 2", accepted)
	}
	var w patience
	w.limit = 10 * time.Millisecond
	if w.await(running) != true || w.await(hold) != false || w.await(hold) != false || w.await(running) != true {
		t.Error("patience did not end")
	}
	select {
	case <-ran:
		t.Error("ran beside one that holds the slot")
	default:
	}
	close(hold)
	for range 2 {
		<-ran
	}
}

func BenchmarkUser(b *testing.B) {
	tg := startTarget(b)
	r := newResolver()
	began := must(b)(r.startTime(tg.pid))
	ips := []uint64{tg.addrs["exported_function"], tg.addrs["puts"] + 1, tg.addrs["caller_of_noreturn"] + 1, tg.addrs["local_function"] + 1}
	for len(ips) < 16 {
		ips = append(ips, ips[len(ips)%4])
	}
	for name, start := range map[string]uint64{"start known": began, "start unknown": 0} {
		b.Run(name, func(b *testing.B) {
			r.User(tg.pid, start, ips)
			b.ReportAllocs()
			for b.Loop() {
				r.User(tg.pid, start, ips)
			}
		})
	}
}

func BenchmarkKernel(b *testing.B) {
	k := ksym.New("")
	addrs, err := k.Addresses("vfs_read")
	if err != nil || len(addrs) == 0 {
		b.Skip(err)
	}
	r := New(Options{Kernel: k})
	ips := make([]uint64, 16)
	for i := range ips {
		ips[i] = addrs[0] + uint64(i) + 1
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Kernel(ips)
	}
}

func BenchmarkLoadObject(b *testing.B) {
	libc, err := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if err != nil || len(libc) == 0 {
		b.Skip("no libc of a known place")
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	node, _ := exec.LookPath("node") // a large one, where it is installed
	for name, path := range map[string]string{"libc": libc[0], "Go": self, "node": node} {
		b.Run(name, func(b *testing.B) {
			f, err := os.Open(path)
			if err != nil {
				b.Skip(err)
			}
			defer f.Close()
			b.ReportAllocs()
			var obj *object
			for b.Loop() {
				obj = loadObject(f, 16<<20, nil)
			}
			b.ReportMetric(float64(obj.bytes()), "table-bytes")
			if obj.why != noSymbolHere {
				b.Log(obj.why)
			}
		})
	}
}

func BenchmarkMaps(b *testing.B) {
	r := newResolver()
	pid := uint32(os.Getpid())
	p := r.processes.get(processKey{pid, must(b)(r.startTime(pid))}, true)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := r.maps(p); err != nil {
			b.Fatal(err)
		}
	}
}
