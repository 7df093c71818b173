package runqueue

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// slowFault is a fault of 153 ms at 0x7f0000003010, with a stack.
func slowFault() *bpfPageFaultStallWire {
	w := &bpfPageFaultStallWire{
		What: isPageFaultStall, Ts: 1_000_000_000, Slept: 153_000_000, Longest: 150_000_000, Suppressed: 3, Cgroup: 42, Address: 0x7f0000003010, Known: 1,
		Pid: 11, Tgid: 10, Sleeps: 2, Io: 1, Major: 1, Frames: 16, UserFrames: 8,
		Regs: bpfHtRegs{Kind: 1, Pc: 0x401000, Sp: 0x7ffe0000},
	}
	copy(w.Comm[:], "java")
	w.Stack[0], w.Stack[1], w.User[0] = 0xa, 0xb, 0x401000
	return w
}

func bytesOfFault(w *bpfPageFaultStallWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecodeFault(t *testing.T) {
	r, err := decode(bytesOfFault(slowFault()), at)
	if err != nil {
		t.Fatal(err)
	}
	b := r.Body.(*PageFaultStall)
	if want := "java (pid 10) slept 153ms in a page fault"; r.Title != want {
		t.Errorf("title %q, want %q", r.Title, want)
	}
	if r.Schema != faultStall || r.Suppressed != 3 || r.CgroupID != 42 || r.Process.TID != 11 || len(r.KernelIPs) != 2 || len(r.UserIPs) != 1 || r.Registers["pc"] == "" || r.Unresolved != nil {
		t.Errorf("record %+v", r)
	}
	if want := (PageFaultStall{StallSeconds: 0.153, LongestSeconds: 0.15, Sleeps: 2, Major: true, IO: true, Mapping: onUnknown, Address: "0x7f0000003010"}); *b != want {
		t.Errorf("body %+v, want %+v", *b, want)
	}

	named := slowFault()
	copy(named.Place.File[:], "db.dat")
	named.Place.Offset = 0x3010
	if r, _ := decode(bytesOfFault(named), at); r.Title != "java (pid 10) slept 153ms in a page fault on db.dat at offset 0x3010" {
		t.Errorf("with the file's name: %q", r.Title)
	}

	minor := slowFault()
	minor.Known, minor.Major, minor.Io, minor.UserFrames = 0, 0, 0, -2
	r, _ = decode(bytesOfFault(minor), at)
	if b := r.Body.(*PageFaultStall); b.Address != "" || b.Major || !slices.Contains(r.Unresolved, lackAddress) || len(r.UserIPs) != 1 || r.UserIPs[0] != 0x401000 {
		t.Errorf("without an address: %+v %+v", r, b)
	}
	if _, err := decode(bytesOfFault(minor)[:200], at); err == nil {
		t.Error("a short sample decodes")
	}
	minor.What = 7
	if _, err := decode(bytesOfFault(minor), at); err == nil {
		t.Error("an unknown kind decodes")
	}
}

const someMaps = `55d3c8a00000-55d3c8a02000 r-xp 00001000 fe:00 1234                       /usr/bin/java
7f0000000000-7f0000004000 r--p 00008000 07:00 12                         /data/db.dat
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
7f0000006000-7f0000007000 rw-s 00000000 00:01 5                          /dev/shm/x (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
`

// host makes a root with the maps of process 10 and a block device.
func host(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"proc/10", "sys/dev/block"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "proc/10/maps"), []byte(someMaps), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../devices/virtual/block/loop0", filepath.Join(root, "sys/dev/block/7:0")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestPlace(t *testing.T) {
	p := &placer{root: host(t)}
	for _, tt := range []struct {
		name    string
		pid     uint32
		addr    uint64
		known   string // by the kernel
		io      bool
		want    PageFaultStall
		lacking bool
	}{
		{name: "file", pid: 10, addr: 0x7f0000003010, known: "db.dat", io: true, want: PageFaultStall{Mapping: onFile, File: "/data/db.dat", Offset: 0xb010, Device: "loop0"}},
		{name: "last byte of a mapping", pid: 10, addr: 0x7f0000003fff, io: true, want: PageFaultStall{Mapping: onFile, File: "/data/db.dat", Offset: 0xbfff, Device: "loop0"}},
		{name: "swap", pid: 10, addr: 0x7f0000004000, io: true, want: PageFaultStall{Mapping: onSwap}},
		{name: "anonymous", pid: 10, addr: 0x7f0000004abc, want: PageFaultStall{Mapping: onAnonymous}},
		{name: "stack", pid: 10, addr: 0x7ffd00000010, want: PageFaultStall{Mapping: onAnonymous}},
		{name: "no device", pid: 10, addr: 0x7f0000006010, known: "x", want: PageFaultStall{Mapping: onFile, File: "/dev/shm/x (deleted)", Offset: 0x10}},
		{name: "between mappings", pid: 10, addr: 0x7f0000005010, want: PageFaultStall{Mapping: onUnknown}, lacking: true},
		{name: "after all", pid: 10, addr: 0x7fff00000010, want: PageFaultStall{Mapping: onUnknown}, lacking: true},
		{name: "gone", pid: 11, addr: 0x7f0000003010, known: "db.dat", want: PageFaultStall{Mapping: onFile, File: "db.dat", Offset: 0x77}, lacking: true},
		{name: "mapped anew", pid: 10, addr: 0x7f0000003010, known: "other.dat", want: PageFaultStall{Mapping: onFile, File: "other.dat", Offset: 0x77}, lacking: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := slowFault()
			w.Tgid, w.Address = tt.pid, tt.addr
			if !tt.io {
				w.Io, w.Major = 0, 0
			}
			if copy(w.Place.File[:], tt.known) > 0 {
				w.Place.Offset = 0x77
			}
			r, err := decode(bytesOfFault(w), at)
			if err != nil {
				t.Fatal(err)
			}
			p.place(r)
			b := r.Body.(*PageFaultStall)
			if got := (PageFaultStall{Mapping: b.Mapping, File: b.File, Offset: b.Offset, Device: b.Device}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got := slices.Contains(r.Keys, "dev:7:0"); got != (tt.want.Device != "") {
				t.Errorf("keys %q", r.Keys)
			}
			if got := slices.Contains(r.Unresolved, lackMapping); got != tt.lacking {
				t.Errorf("unresolved: %q", r.Unresolved)
			}
			if tt.want.File != "" && !strings.Contains(r.Title, tt.want.File) {
				t.Errorf("title %q", r.Title)
			}
		})
	}
}

// TestPlaceNeverWaits: a process that does not give its maps holds up neither
// its own event for long nor the others.
func TestPlaceNeverWaits(t *testing.T) {
	root := host(t)
	fifo := filepath.Join(root, "proc/12/maps")
	if err := os.MkdirAll(filepath.Dir(fifo), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil { // who opens it waits for a writer
		t.Fatal(err)
	}
	t.Cleanup(func() { // let them go
		if f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			defer f.Close()
			time.Sleep(10 * time.Millisecond)
		}
	})
	var out []*signal.Record
	p := &placer{root: root, emit: func(r *signal.Record) { out = append(out, r) }, queue: make(chan *signal.Record, placeQueue)}
	inner := p.wrap(&probe.Env{Lost: func(func() probe.Loss) {}})
	begin := time.Now()
	for i := range maxPlacing + 4 {
		w := slowFault()
		if w.Tgid = 12; i == maxPlacing+3 {
			w.Tgid = 10 // no thread is left to ask it either
		}
		r, err := decode(bytesOfFault(w), at)
		if err != nil {
			t.Fatal(err)
		}
		inner.Emit(r)
	}
	close(p.queue)
	p.run()
	if took := time.Since(begin); took > (maxPlacing+2)*placePatience+5*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(out) != maxPlacing+4 || p.asking.Load() > maxPlacing {
		t.Errorf("%d records, %d threads", len(out), p.asking.Load())
	}
	for _, r := range out {
		if !slices.Contains(r.Unresolved, lackMapping) {
			t.Errorf("%+v", r)
		}
	}
}

// faultRungs are the ways in which the event comes about: with perf's event of
// major faults and without, with the stack of the sleep and without.
func faultRungs(t *testing.T, f func(t *testing.T, o load.Options)) {
	for name, o := range map[string]load.Options{
		"tp_btf":        {Kinds: []string{load.TPBTF, load.PerfEvent}, Ring: "ringbuf"},
		"tp_btf/perf":   {Kinds: []string{load.TPBTF, load.PerfEvent}, Ring: "perf"},
		"raw_tp":        {Kinds: []string{load.RawTP, load.PerfEvent}},
		"tp_btf, alone": {Kinds: []string{load.TPBTF}},
		"legacy":        {Kinds: []string{load.RawTP, load.PerfEvent}, Flavour: load.Legacy},
		"legacy, alone": {Kinds: []string{load.RawTP}, Flavour: load.Legacy},
	} {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}

// quiet keeps the Go runtime from sending signals to threads that take long.
const quiet = "GODEBUG=asyncpreemptoff=1"

// touchOne lets a process map a file and read one byte of it, and keeps it alive
// until the test's end. It returns how long the byte took.
func touchOne(t *testing.T, cg *probetest.Cgroup, file string, offset int, env ...string) (pid int, took time.Duration) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(append(os.Environ(), fmt.Sprintf("%s=%d %s", toucherOfOne, offset, file), "GOMAXPROCS=1"), env...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has mapped the file
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := in.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has touched it
		t.Fatal(err)
	}
	return c.Process.Pid, time.Since(begin)
}

// TestKernelPageFaultStall maps a file on a device that takes 150 ms for each
// page, and touches one; at 20 ms there is no event.
func TestKernelPageFaultStall(t *testing.T) {
	d, dir := disk(t)
	faultRungs(t, func(t *testing.T, o load.Options) { testFaultStall(t, o, d, dir) })
}

func testFaultStall(t *testing.T, o load.Options, d *slowdisk.Disk, dir string) {
	env := probetest.NewKernel(t, o)
	env.Start(Spec(), nil)
	page := os.Getpagesize()
	file := filepath.Join(dir, "mapped.dat")
	coldFile(t, file, 16*page)
	cg := cgroupFor(t, "page-fault")

	near := nearMiss(t, cg, d, file)
	var r *signal.Record
	var b *PageFaultStall
	var took time.Duration
	for range 3 { // whatever interrupts the sleep makes the fault another one, which is no major fault
		d.SetDelay(150 * time.Millisecond)
		var pid int
		pid, took = touchOne(t, cg, file, 3*page+16, quiet)
		d.SetDelay(0)
		r = env.WaitRecord(func(r *signal.Record) bool { return r.Schema == faultStall && int(r.Process.PID) == pid })
		if b = r.Body.(*PageFaultStall); b.Major {
			break
		}
		t.Logf("no major fault: %+v", b)
		coldFile(t, file, 16*page)
	}
	if b.StallSeconds < 0.1 || b.StallSeconds > took.Seconds() || b.LongestSeconds > b.StallSeconds || b.Sleeps == 0 || !b.Major || !b.IO {
		t.Errorf("body %+v after %v", b, took)
	}
	if r.CgroupID != cg.ID || r.Process.Comm == "" || r.Process.TID == 0 || faultStall.Severity != signal.Warning {
		t.Errorf("record %+v", r)
	}
	for _, r := range env.Records() {
		if int(r.Process.PID) == near && r.Schema == faultStall {
			t.Errorf("a fault of 20 ms is an event: %s", r.Title)
		}
	}
	checkPlace(t, env, o, r, file, 3*page+16)
	checkStacks(t, o, r)
}

// nearMiss has a page read that takes 20 ms, and returns who read it. Where the
// disk had others to serve before, it tries again.
func nearMiss(t *testing.T, cg *probetest.Cgroup, d *slowdisk.Disk, file string) (pid int) {
	t.Helper()
	for page := 4; page < 16; page++ {
		d.SetDelay(20 * time.Millisecond)
		pid, took := touchOne(t, cg, file, page*os.Getpagesize(), quiet)
		d.SetDelay(0)
		if took >= 15*time.Millisecond && took < 90*time.Millisecond {
			return pid
		}
	}
	t.Skip("the machine is too busy: no page of 12 took between 15 and 90 ms to read; run it on an idle one")
	return 0
}

// TestKernelPageFaultSignal: a signal that comes meanwhile makes the thread take
// the fault once more, and no major one. The address is known all the same.
func TestKernelPageFaultSignal(t *testing.T) {
	d, dir := disk(t)
	env := probetest.NewKernel(t, load.Options{})
	env.Start(Spec(), nil)
	if env.Hooks()[2].By != load.TPBTF {
		t.Skip("needs a kernel with BTF: raw tracepoints know no address")
	}
	file := filepath.Join(dir, "mapped.dat")
	coldFile(t, file, 4*os.Getpagesize())
	d.SetDelay(150 * time.Millisecond)
	pid, _ := touchOne(t, cgroupFor(t, "page-fault"), file, 40) // its runtime sends one after 10 ms
	d.SetDelay(0)
	r := env.WaitRecord(func(r *signal.Record) bool { return r.Schema == faultStall && int(r.Process.PID) == pid })
	if b := r.Body.(*PageFaultStall); b.File != file || b.Offset != 40 || len(r.UserIPs) == 0 {
		t.Errorf("body %+v, %d frames of the program", b, len(r.UserIPs))
	}
}

// checkPlace: by a trusted task or by perf, the file and the offset are told.
func checkPlace(t *testing.T, env *probetest.Env, o load.Options, r *signal.Record, file string, offset int) {
	t.Helper()
	b := r.Body.(*PageFaultStall)
	if !slices.Contains(o.Kinds, load.PerfEvent) && o.Kinds[0] != load.TPBTF {
		if b.Mapping != onUnknown || !slices.Contains(r.Unresolved, lackAddress) {
			t.Errorf("without the address: %+v, unresolved %q", b, r.Unresolved)
		}
		return
	}
	for _, h := range env.Hooks() {
		if h.Hook == "page_faults_maj" && (h.By == load.PerfEvent) != slices.Contains(o.Kinds, load.PerfEvent) {
			t.Errorf("hook %+v", h)
		}
	}
	if b.Mapping != onFile || b.File != file || b.Offset != uint64(offset) || !strings.HasPrefix(b.Device, "loop") || b.Address == "" {
		t.Errorf("body %+v, want %s at %#x on a loop device", b, file, offset)
	}
	if want := fmt.Sprintf(" in a page fault on %s at offset %#x", file, offset); !strings.HasSuffix(r.Title, want) {
		t.Errorf("title %q, want it to end in %q", r.Title, want)
	}
	least := 1
	if slices.Contains(o.Kinds, load.PerfEvent) {
		least = 2 // who touched it, and who called that
	}
	if len(r.UserIPs) < least || len(r.Unresolved) > 0 {
		t.Errorf("%d frames of the program, unresolved %q", len(r.UserIPs), r.Unresolved)
	}
}

// checkStacks: where programs may have the stack of another task, it is that of the sleep.
func checkStacks(t *testing.T, o load.Options, r *signal.Record) {
	t.Helper()
	if o.Kinds[0] != load.TPBTF {
		if r.KernelIPs != nil || r.Registers != nil {
			t.Errorf("a stack of %d frames, registers %v", len(r.KernelIPs), r.Registers)
		}
		return
	}
	syms := ksym.New("")
	if err := syms.Load(); err != nil {
		t.Skipf("needs kernel symbols: %v", err)
	}
	var names []string
	for _, ip := range r.KernelIPs {
		if s, ok := syms.Lookup(ip); ok {
			names = append(names, s.Name)
		}
	}
	if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "folio_wait") || strings.Contains(n, "schedule") }) ||
		!slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "fault") }) {
		t.Errorf("frames %q: want where it slept and the fault", names)
	}
	if r.Registers["pc"] == "" || len(r.UserIPs) == 0 {
		t.Errorf("registers %v, frames of the program %d", r.Registers, len(r.UserIPs))
	}
}

// coldFile writes a file that is not in memory afterwards.
func coldFile(t *testing.T, name string, size int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}
