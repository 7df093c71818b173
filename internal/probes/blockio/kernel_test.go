package blockio

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/diskio"
	"huatuo/test/faults/slowdisk"
)

// disk is a loop device on a file whose speed the test sets.
type disk struct {
	*slowdisk.Disk
	*slowdisk.Loop
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	d, err := slowdisk.Mount(t.TempDir(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Release()
		d.SetDelay(0)
		l.Detach()
	})
	return &disk{d, l}
}

// access reads or writes one block past the page cache.
func (d *disk) access(block int, write bool) error {
	f, err := os.OpenFile(d.Dev, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 8192)
	off := 4096 - int(uintptr(unsafe.Pointer(&buf[0]))%4096)
	if write {
		_, err = f.WriteAt(buf[off:off+4096], int64(block)*4096)
	} else {
		_, err = f.ReadAt(buf[off:off+4096], int64(block)*4096)
	}
	return err
}

func (d *disk) read(t *testing.T, block int) {
	t.Helper()
	if err := d.access(block, false); err != nil {
		t.Fatal(err)
	}
}

// TestKernel makes a device slow, hang and fail, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testDisk)
}

func testDisk(t *testing.T, o load.Options) {
	d := newDisk(t)
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Stall, cfg.Burst = 300*time.Millisecond, 100
	if o.Kinds[0] == load.TPBTF && o.Ring == "ringbuf" {
		cfg = Spec().Config.(Config) // once as it is in production
	}
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Errorf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}

	slow(t, env, d, cfg.Stall)
	nearMiss(t, env, d, cfg.Stall)
	hanging(t, env, d, cfg.Stall)
	failing(t, env, d)
	workload(t, env, d)
	sized(t, env, d)
	merged(t, env, d)

	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// of returns the events about d so far.
func of(env *probetest.Env, d *disk) []*signal.Record {
	return slices.DeleteFunc(env.Records(), func(r *signal.Record) bool {
		switch b := r.Body.(type) {
		case *IOStall:
			return b.Device != d.Name
		case *IOError:
			return b.Device != d.Name
		}
		return true
	})
}

func slow(t *testing.T, env *probetest.Env, d *disk, stall time.Duration) {
	delay := stall * 6 / 5
	d.SetDelay(delay)
	d.read(t, 3)
	d.SetDelay(0)
	r := env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*IOStall)
		return ok && b.Device == d.Name && b.State == completed
	})
	b := r.Body.(*IOStall)
	if b.Op != "read" || b.Sector != 24 || b.Bytes != 4096 || b.Status != "ok" {
		t.Errorf("stall %+v", b)
	}
	if min, max := delay.Seconds(), delay.Seconds()+1; b.TotalSeconds < min || b.TotalSeconds > max || b.DeviceSeconds < min || b.QueueSeconds > 0.5 {
		t.Errorf("times of %+v: want %v to %v s, on the device", b, min, max)
	}
	if r.Process.PID != uint32(os.Getpid()) || r.Process.Comm == "" {
		t.Errorf("sent by %+v, but this is %d", r.Process, os.Getpid())
	}
	// Which part of it the device took a busy machine may change.
	probetest.Event{Title: `read of 4096 bytes on ` + d.Name + ` took \S+s, (all|\S+s) of it on the device`, Severity: signal.Warning, PID: os.Getpid()}.Check(t, r)
	// The request is in the right bucket.
	for _, s := range env.Gather() {
		if s.Schema != deviceSeconds || s.Labels[0] != d.Name || s.Labels[1] != "read" {
			continue
		}
		if s.Hist.Count != 1 || s.Hist.Sum < delay.Seconds() || s.Hist.Sum > delay.Seconds()+1 {
			t.Errorf("histogram %+v", s.Hist)
		}
		for i, n := range s.Hist.Counts {
			if up := bound(s.Hist, i); n != 0 && (up < delay.Seconds() || bound(s.Hist, i-1) > s.Hist.Sum) {
				t.Errorf("a request of %v is in the bucket up to %v", s.Hist.Sum, up)
			}
		}
	}
}

func nearMiss(t *testing.T, env *probetest.Env, d *disk, stall time.Duration) {
	d.SetDelay(stall / 3)
	defer d.SetDelay(0)
	for range 5 { // on a busy machine it may become a stall after all
		before, start := len(of(env, d)), time.Now()
		d.read(t, 4)
		took := time.Since(start)
		time.Sleep(300 * time.Millisecond)
		switch n := len(of(env, d)) - before; {
		case took >= stall:
			continue
		case n != 0:
			t.Errorf("%d events of a request of %v", n, took)
		}
		return
	}
	t.Log("the machine is too busy to tell a request of a third of the threshold")
}

// hanging holds a write until the event about it has come, while it hangs.
func hanging(t *testing.T, env *probetest.Env, d *disk, stall time.Duration) {
	d.Hold()
	done := make(chan error, 1)
	go func() { done <- d.access(5, true) }()
	hung := env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*IOStall)
		return ok && b.Device == d.Name && b.Op == "write" && b.State == onDevice
	})
	for _, s := range env.Gather() {
		if s.Schema == inflight && s.Labels[0] == d.Name && s.Value != 1 {
			t.Errorf("%v requests in flight, want 1", s.Value)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("the write ended before it was released: %v", err)
	default:
	}
	d.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b := hung.Body.(*IOStall)
	if b.Sector != 40 || b.Pending != 1 || b.TotalSeconds < stall.Seconds() || b.TotalSeconds > stall.Seconds()+2 {
		t.Errorf("hang %+v", b)
	}
	if hung.Process.PID != uint32(os.Getpid()) {
		t.Errorf("sent by %+v, but this is %d", hung.Process, os.Getpid())
	}
	probetest.Event{Title: `write of 4096 bytes on ` + d.Name + ` has been under way for \S+s, .+`, Severity: signal.Warning, Kernel: true, PID: os.Getpid()}.Check(t, hung)
	if len(hung.KernelStack) < 3 {
		t.Errorf("stack of who waits: %+v", hung.KernelStack)
	}
	env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*IOStall)
		return ok && b.Device == d.Name && b.Op == "write" && b.State == completed
	})
}

func failing(t *testing.T, env *probetest.Env, d *disk) {
	d.SetError(syscall.EIO)
	if err := d.access(6, true); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v, want EIO", err)
	}
	d.SetError(0)
	r := env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*IOError)
		return ok && b.Device == d.Name
	})
	b := r.Body.(*IOError)
	if b.Op != "write" || b.Status != "io" || b.Errno != "EIO" || b.Sector != 48 || b.Bytes != 4096 || r.Process.PID != uint32(os.Getpid()) {
		t.Errorf("error %+v by %+v", b, r.Process)
	}
	probetest.Event{Title: `write of 4096 bytes at sector 48 of ` + d.Name + ` failed: io \(EIO\)`, Severity: signal.Critical, PID: os.Getpid()}.Check(t, r)
	answered(t, env, d)
	if n, _ := probetest.Value(env.Gather(), errorsTotal.Name, d.Name, "write", "io"); n != 1 {
		t.Errorf("%v errors, want 1", n)
	}
}

// answered: an error that answers a caller's question is counted and no event. A
// loop device on a file without holes to make cannot discard.
func answered(t *testing.T, env *probetest.Env, d *disk) {
	before := len(of(env, d))
	d.SetError(syscall.EOPNOTSUPP)
	err := d.access(7, true)
	d.SetError(0)
	if err == nil {
		t.Error("a write that the device does not know of succeeds")
	}
	time.Sleep(300 * time.Millisecond) // rings are read at intervals of 100 ms
	counted := 0.0
	for _, s := range env.Gather() {
		if s.Schema == errorsTotal && s.Labels[0] == d.Name && s.Labels[2] == "unsupported" {
			counted = s.Value
		}
	}
	if n := len(of(env, d)) - before; n != 0 && counted > 0 {
		t.Errorf("%d events of an answer that is no fault", n)
	}
	if counted == 0 {
		t.Logf("the loop device gives %v as %q", err, of(env, d)[len(of(env, d))-1].Title)
	}
}

// workload reads in a cgroup and expects it in the cgroup's histogram. The kernel
// charges a new group's first requests to the root while it has no memory at
// hand for what it keeps of a group, so some may be missing.
func workload(t *testing.T, env *probetest.Env, d *disk) {
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-blockio-%d", os.Getpid()))
	c := exec.Command("sh", "-c", "read _; exec dd if="+d.Dev+" of=/dev/null bs=4096 count=20 iflag=direct 2>/dev/null")
	// The program itself may have to be read from the disk: let that not be in the cgroup.
	if err := exec.Command("dd", "if=/dev/null", "of=/dev/null").Run(); err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	io.WriteString(in, "\n")
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	samples := env.Gather()
	if n, _ := probetest.WorkloadValue(samples, containerBytes.Name, cg.ID, "read"); n < 15*4096 || n > 40*4096 {
		t.Errorf("the cgroup read %v bytes, want %d or few more", n, 20*4096)
	}
	for _, s := range samples {
		if s.Schema == containerSeconds && s.CgroupID == cg.ID && s.Labels[0] == "read" && s.Hist.Count >= 15 {
			return
		}
	}
	t.Error("no reads in the cgroup's histogram")
}

// sized: requests of known sizes are in the buckets of those sizes.
func sized(t *testing.T, env *probetest.Env, d *disk) {
	sizes := func() *signal.Hist {
		for _, s := range env.Gather() {
			if s.Schema == sizeBytes && s.Labels[0] == d.Name && s.Labels[1] == "read" {
				return s.Hist
			}
		}
		t.Fatal("no sizes of reads")
		return nil
	}
	f, err := os.OpenFile(d.Dev, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	buf = buf[4096-int(uintptr(unsafe.Pointer(&buf[0]))%4096):]
	bytes := func() float64 {
		v, _ := probetest.Value(env.Gather(), bytesTotal.Name, d.Name, "read")
		return v
	}
	before, read := sizes(), bytes()
	total := 0
	for _, n := range []int{4096, 4096, 16384, 16384, 16384, 20480} {
		if _, err := f.ReadAt(buf[:n], 65536); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if got := bytes() - read; got != float64(total) {
		t.Errorf("%s moved by %g, want %d", bytesTotal.Name, got, total)
	}
	after := sizes()
	for bound, want := range map[int]uint64{4096: 2, 8192: 0, 16384: 3, 32768: 1} {
		i := int(math.Log2(float64(bound))) - after.First
		if got := after.Counts[i] - before.Counts[i]; got != want {
			t.Errorf("%d requests of up to %d bytes, want %d", got, bound, want)
		}
	}
	if after.Count-before.Count != 6 || after.Sum-before.Sum != float64(total) {
		t.Errorf("%d requests of %g bytes in all, want 6 of %d", after.Count-before.Count, after.Sum-before.Sum, total)
	}
}

// merged submits sixteen writes at once that follow each other on the disk, and
// eight that precede each other: all but one of each become part of another.
func merged(t *testing.T, env *probetest.Env, d *disk) {
	value := func() float64 {
		v, _ := probetest.Value(env.Gather(), merges.Name, d.Name, "write")
		return v
	}
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-blockio-%d", os.Getpid()))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), writerName+"="+d.Dev)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	before, stat := value(), mergedWrites(t, d.Name)
	io.WriteString(in, "\n")
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	want := 15 + 7.0
	if mergedWrites(t, d.Name) == stat {
		t.Log("this kernel merges none of the device's requests")
		want = 0
	}
	if got := value() - before; got != want {
		t.Errorf("%s moved by %g, want %g", merges.Name, got, want)
	}
	// As in workload: the first of a new group may be charged to the root.
	if v, _ := probetest.WorkloadValue(env.Gather(), containerMerges.Name, cg.ID, "write"); v < max(want-15, 0) || v > want {
		t.Errorf("%s is %g, want %g", containerMerges.Name, v, want)
	}
}

// bound is the upper bound of bucket i.
func bound(h *signal.Hist, i int) float64 {
	b := 1.0
	e := h.First + i
	for ; e >= 1<<h.Resolution; e -= 1 << h.Resolution {
		b *= 2
	}
	for ; e < 0; e += 1 << h.Resolution {
		b /= 2
	}
	for ; e > 0; e-- {
		b *= 1.189207115002721
	}
	return b
}

// TestForms loads the programs for kernels whose tracepoints have the queue as
// first argument. They cannot be attached to this kernel's, and its verifier
// takes only the raw ones: it knows the arguments of the others.
func TestForms(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	l, err := env.Kernel.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	for name := range l.Spec.Programs {
		if !strings.HasSuffix(name, "_q_raw") {
			delete(l.Spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollection(l.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Programs) != 5 {
		t.Errorf("%d programs, want those of insert, issue, requeue and the two merges", len(c.Programs))
	}
	c.Close()
}

// TestKernelUnmeasured adds more disks than the probe made room for when it
// started: what they do is in no histogram, and is counted.
func TestKernelUnmeasured(t *testing.T) {
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs /dev/loop-control: a kernel with CONFIG_BLK_DEV_LOOP")
	}
	root := t.TempDir() // of a host without disks: room for eight
	if err := os.MkdirAll(root+"/sys/block", 0o755); err != nil {
		t.Fatal(err)
	}
	const room = 8 * 4
	if n := devicesMax(root); n != room {
		t.Fatalf("room for %d, want %d", n, room)
	}
	env := probetest.NewKernel(t, load.Options{})
	if err := os.MkdirAll(root+"/proc", 0o755); err != nil {
		t.Fatal(err)
	}
	o, err := attach(&probe.Env{Kernel: env.Kernel, Root: root, Log: env.Log, Rings: env.Rings}, Spec().Config.(Config))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	const disks = 20
	for i := range disks {
		file := fmt.Sprintf("%s/%d", root, i)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil { // all hole: guests have little room
			t.Fatal(err)
		}
		l, err := slowdisk.Attach(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Detach() })
		if err := errors.Join(diskio.Together(l.Dev, true, 1, 0, 1), diskio.Together(l.Dev, false, 1, 0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	var per []uint64
	if err := o.Map("missed").Lookup(uint32(1), &per); err != nil {
		t.Fatal(err)
	}
	var missed uint64
	for _, n := range per {
		missed += n
	}
	// Each has two operations, the disk below them takes one or two, and a read for partitions is one more.
	if least := uint64(2*disks - room); missed < least {
		t.Errorf("%d requests were not measured, want %d or more", missed, least)
	}
}
