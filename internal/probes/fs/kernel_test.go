package fs

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// disk is ext4 on a loop device on a file whose speed the test sets.
type disk struct {
	*slowdisk.Disk
	*slowdisk.Loop
	dir string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4: apt-get install e2fsprogs")
	}
	d, err := slowdisk.Mount(t.TempDir(), 32<<20)
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
	x := &disk{d, l, t.TempDir()}
	t.Cleanup(func() {
		d.SetError(0)
		d.SetDelay(0)
		d.Release()
		unix.Unmount(x.dir, unix.MNT_DETACH)
		l.Detach()
	})
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", l.Dev).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	if err := unix.Mount(l.Dev, x.dir, "ext4", 0, "errors=continue"); err != nil {
		t.Skipf("needs a kernel with ext4: %v", err)
	}
	return x
}

// save writes a file and its data to the device, and returns how long fsync took and the file's inode.
func (d *disk) save(name string) (time.Duration, uint64, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return 0, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	err = f.Sync()
	return time.Since(start), st.Ino, err
}

// latency returns the device's histogram.
func (d *disk) latency(env *probetest.Env, s *signal.Schema) *signal.Hist {
	for _, x := range env.Gather() {
		if x.Schema == s && x.Labels[0] == d.Name {
			return x.Hist
		}
	}
	return &signal.Hist{}
}

// TestKernel makes a file system slow, damaged, read-only and lose data, by
// each kind of hook and ring.
func TestKernel(t *testing.T) { probetest.Rungs(t, testDisk) }

func testDisk(t *testing.T, o load.Options) {
	d := newDisk(t)
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Interval = 50 * time.Millisecond
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	slow(t, env, d)
	if o.Ring == "ringbuf" && o.Kinds[0] == load.TPBTF { // nothing of it depends on that
		space(t, env, d)
	}
	for _, r := range env.Records() {
		t.Errorf("an event of a sound file system: %s", r.Title)
	}
	broken(t, env, d)

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

// slow: one fsync of a known length is in the bucket of that length.
func slow(t *testing.T, env *probetest.Env, d *disk) {
	d.SetDelay(40 * time.Millisecond)
	took, _, err := d.save("slow")
	d.SetDelay(0)
	if err != nil {
		t.Fatal(err)
	}
	h := d.latency(env, fsync)
	if h.Count != 1 || h.Sum > took.Seconds() || h.Sum < 0.9*took.Seconds() || took < 80*time.Millisecond {
		t.Fatalf("one fsync of %v: count %d, sum %g", took, h.Count, h.Sum)
	}
	for i, n := range h.Counts {
		lo, hi := math.Exp2(float64(h.First+i-1)), math.Exp2(float64(h.First+i))
		if in := h.Sum > lo && h.Sum <= hi; in != (n == 1) {
			t.Errorf("%d in bucket (%g, %g], fsync took %g", n, lo, hi, h.Sum)
		}
	}
	if c := d.latency(env, commit); c.Count == 0 || c.Sum < 0.04 {
		t.Errorf("%d commits that took %g s", c.Count, c.Sum)
	}
	v, ok := probetest.Value(env.Gather(), size.Name, d.Name, "ext4", d.dir)
	if !ok || v < 1<<20 || v > 32<<20 {
		t.Errorf("size %g, %v", v, ok)
	}
	if v, ok := probetest.Value(env.Gather(), readOnly.Name, d.Name, "ext4", d.dir); !ok || v != 0 {
		t.Errorf("read-only %g, %v", v, ok)
	}
}

// space: what a file takes is no longer available, and comes back with it.
func space(t *testing.T, env *probetest.Env, d *disk) {
	value := func(s *signal.Schema) float64 {
		v, _ := probetest.Value(env.Gather(), s.Name, d.Name, "ext4", d.dir)
		return v
	}
	becomes := func(what string, s *signal.Schema, lo, hi float64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if v := value(s); v >= lo && v <= hi {
				return
			} else if time.Now().After(end) {
				t.Errorf("%s: %s is %g, want %g to %g", what, s.Name, v, lo, hi)
				return
			}
		}
	}
	room, nodes := value(free), value(inodesFree)
	if all := value(inodes); all < nodes || nodes < 100 || room < 8<<20 || value(hung) != 0 {
		t.Fatalf("%g bytes, %g of %g inodes of an empty disk of 32 MiB", room, nodes, all)
	}
	const size, files = 8 << 20, 50
	if err := os.WriteFile(filepath.Join(d.dir, "large"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range files - 1 {
		if err := os.WriteFile(filepath.Join(d.dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	becomes("a file of 8 MiB", free, room-size-1<<20, room-size)
	becomes("50 files", inodesFree, nodes-files, nodes-files)
	for i := range files - 1 {
		os.Remove(filepath.Join(d.dir, fmt.Sprint(i)))
	}
	os.Remove(filepath.Join(d.dir, "large"))
	if dir, err := os.Open(d.dir); err == nil {
		unix.Syncfs(int(dir.Fd())) // blocks are free when the journal has it
		dir.Close()
	}
	becomes("the files removed", free, room-1<<20, room)
	becomes("the files removed", inodesFree, nodes, nodes)
}

func broken(t *testing.T, env *probetest.Env, d *disk) {
	counted := func() float64 {
		v, _ := probetest.Value(env.Gather(), errorsTotal.Name, d.Name, "ext4", "error")
		return v
	}
	if n := counted(); n != 0 {
		t.Errorf("a sound file system has %g errors", n)
	}
	trigger := filepath.Join("/sys/fs/ext4", d.Name, "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("test"), 0); err != nil {
		t.Fatal(err)
	}
	is := func(kind string) func(*signal.Record) bool {
		return func(r *signal.Record) bool {
			b, ok := r.Body.(*FSError)
			return ok && b.Device == d.Name && b.Kind == kind
		}
	}
	r := env.WaitRecord(is("damage"))
	if b := r.Body.(*FSError); int(r.Process.PID) != os.Getpid() || len(r.KernelIPs) == 0 || r.CgroupID == 0 || b.FSType != "ext4" || b.Function == "" || b.Line == 0 {
		t.Errorf("%+v, process %+v", b, r.Process)
	}
	probetest.Event{Title: `ext4 on ` + d.Name + ` is damaged: found in \w+`, Severity: signal.Critical, Kernel: true, PID: os.Getpid()}.Check(t, r)
	for end := time.Now().Add(10 * time.Second); counted() != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%g errors are counted, want 1", counted())
		}
	}
	for _, flags := range []uintptr{unix.MS_RDONLY, 0} {
		if err := unix.Mount("", d.dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
		r := env.WaitRecord(func(r *signal.Record) bool {
			b, ok := r.Body.(*ReadonlyRemount)
			return ok && b.Device == d.Name && b.Mountpoint == d.dir
		})
		probetest.Event{Title: `.*` + d.dir + `.*read-only.*`, Severity: signal.Critical, NoProcess: true}.Check(t, r)
	}
	// Once without an error: what is written the second time has its place on the device, and only data fails.
	if _, _, err := d.save("lost"); err != nil {
		t.Fatal(err)
	}
	d.SetError(unix.EIO)
	_, inode, err := d.save("lost")
	d.SetError(0)
	if err == nil {
		t.Fatal("a device that fails takes data")
	}
	r = env.WaitRecord(func(r *signal.Record) bool {
		return is("write")(r) && r.Body.(*FSError).Inode == inode
	})
	probetest.Event{Title: `ext4 on ` + d.Name + ` lost data that could not be written: EIO`, Severity: signal.Critical, NoProcess: true}.Check(t, r)
	if b := r.Body.(*FSError); b.Error != "EIO" || b.FSType != "ext4" || r.Process.PID != 0 {
		t.Errorf("%+v of inode %d, process %+v", b, inode, r.Process)
	}
}

// TestKernelDirty: a writer that is faster than its device is paused, and its
// cgroup pays.
func TestKernelDirty(t *testing.T) {
	d := newDisk(t)
	n := strings.TrimPrefix(d.Name, "loop")
	bdi := "/sys/class/bdi/7:" + n
	if _, err := os.Stat(bdi + "/strict_limit"); err != nil {
		t.Skip("needs limits of one device: Linux 6.2")
	}
	for name, v := range map[string]string{"max_bytes": "262144", "strict_limit": "1"} {
		if err := os.WriteFile(filepath.Join(bdi, name), []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // a later user of the loop device gets another bdi, but the limits are ours to undo
		os.WriteFile(bdi+"/strict_limit", []byte("0"), 0)
	})
	env := probetest.NewKernel(t, load.Options{})
	env.Start(Spec(), nil)
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-fs-%d", os.Getpid()))
	d.SetDelay(5 * time.Millisecond)
	w := exec.Command("sh", "-c", "read go; dd if=/dev/zero bs=64k count=64 of="+filepath.Join(d.dir, "f"))
	in, err := w.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, w.Process.Pid)
	start := time.Now()
	in.Close()
	w.Wait() // dd says if it cannot write: then there are no pauses
	took := time.Since(start).Seconds()
	d.SetDelay(0)
	samples := env.Gather()
	if v, ok := probetest.WorkloadValue(samples, containerPauses.Name, cg.ID); !ok || v < 1 {
		t.Fatalf("pauses %g, %v", v, ok)
	}
	if tick("/") == 0 {
		return
	}
	if v, ok := probetest.WorkloadValue(samples, containerPauseSeconds.Name, cg.ID); !ok || v <= 0 || v > took+0.3 {
		t.Errorf("%g s of pauses in %g s", v, took)
	}
}
