package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestWire holds the Go side to bpf/include/hist.h.
func TestWire(t *testing.T) {
	var h bpfHtHist
	if got, want := len(h.Slots), signal.LatencySlots(0); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
}

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// sample is a page of a file that could not be written.
func sample() *bpfFsErrorWire {
	w := &bpfFsErrorWire{Ts: 1_000_000_000, Suppressed: 2, Inode: 12, Dev: 7<<20 | 3, Kind: 1, Error: uint32(unix.EIO), Frames: -95}
	copy(w.Fstype[:], "ext4")
	copy(w.Device[:], "loop3")
	return w
}

// damage is what ext4 found while a task asked for something.
func damage(w *bpfFsErrorWire) {
	w.Kind, w.Error, w.Inode, w.Line, w.Pid, w.Tgid, w.Cgroup, w.Frames = 0, 0, 0, 99, 11, 10, 42, 8
	w.Stack[0] = 0xa
	copy(w.Comm[:], "ls")
	copy(w.Function[:], "ext4_lookup")
}

func bytesOf(w *bpfFsErrorWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	d := &decoder{clock: at}
	for _, tt := range []struct {
		name   string
		change func(*bpfFsErrorWire)
		title  string
		body   FSError
		pid    uint32
	}{
		{"write", func(*bpfFsErrorWire) {}, "ext4 on loop3 lost data that could not be written: EIO",
			FSError{Device: "loop3", FSType: "ext4", Kind: "write", Error: "EIO", Inode: 12}, 0},
		{"unknown error", func(w *bpfFsErrorWire) { w.Error = 4000 }, "ext4 on loop3 lost data that could not be written: error 4000",
			FSError{Device: "loop3", FSType: "ext4", Kind: "write", Error: "error 4000", Inode: 12}, 0},
		{"block device", func(w *bpfFsErrorWire) {
			w.Fstype, w.Device = [16]uint8{'b', 'd', 'e', 'v'}, [32]uint8{'b', 'd', 'e', 'v'}
		}, "bdev on 7:3 lost data that could not be written: EIO", FSError{Device: "7:3", FSType: "bdev", Kind: "write", Error: "EIO"}, 0},
		{"damage", damage, "ext4 on loop3 is damaged: found in ext4_lookup",
			FSError{Device: "loop3", FSType: "ext4", Kind: "damage", Function: "ext4_lookup", Line: 99}, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := sample()
			tt.change(w)
			r, err := d.decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			if r.Title != tt.title || *r.Body.(*FSError) != tt.body || r.Process.PID != tt.pid || r.Suppressed != 2 {
				t.Errorf("%q, process %+v, %+v", r.Title, r.Process, r.Body)
			}
			if (len(r.KernelIPs) == 1) != (tt.pid != 0) || (r.CgroupID == 42) != (tt.pid != 0) {
				t.Errorf("record %+v", r)
			}
		})
	}
	if _, err := d.decode(bytesOf(sample())[:100]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Kind = 2
	if _, err := d.decode(bytesOf(w)); err == nil {
		t.Error("a kind that there is not decodes")
	}
}

func FuzzDecode(f *testing.F) {
	d := &decoder{clock: at}
	w := sample()
	damage(w)
	f.Add(bytesOf(sample()))
	f.Add(bytesOf(w))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := d.decode(raw)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, text string) {
		for _, x := range parseMounts(text) {
			if x.id == "" || !watched(x) {
				t.Errorf("%+v of %q", x, text)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sample()), &decoder{clock: at}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 254:0 /var/lib /mnt/somewhere/else ro - ext4 /dev/vda rw,discard
30 27 8:1 / /mnt/with\040space ro - xfs /dev/sda1 ro
31 27 0:40 / /srv rw - nfs4 server:/export rw,vers=4.2
32 27 0:41 / /snap/core ro - squashfs /dev/loop1 ro
33 27 8:17 / /data rw - ext4 /dev/sdb1 rw,emergency_ro
34 27 0:5 / /dev rw - devtmpfs devtmpfs rw
broken
`

func TestMounts(t *testing.T) {
	var got []string
	for _, x := range parseMounts(mountinfo) {
		got = append(got, fmt.Sprint(x.id, " ", x.source, " ", x.fstype, " ", x.point, " ", x.readOnly))
	}
	want := []string{
		"0:40 server:/export nfs4 /srv false", "254:0 /dev/vda ext4 / false", // a bind mount for reading makes no file system so
		"8:17 /dev/sdb1 ext4 /data true", "8:1 /dev/sda1 xfs /mnt/with space true",
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("mounts\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var many strings.Builder
	for i := range 2 * maxMounts {
		fmt.Fprintf(&many, "1 1 9:%d / /m/%d rw - ext4 /dev/md%d rw\n", i, i, i)
	}
	if n := len(parseMounts(many.String())); n != maxMounts {
		t.Errorf("%d mounts, want %d", n, maxMounts)
	}
}

// newFake returns mounts of a file that the test writes, with a statfs of its own.
func newFake(t *testing.T, statfs func(string, *unix.Statfs_t) error) (m *mounts, write func(string), records *[]*signal.Record) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mountinfo")
	write = func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	records = new([]*signal.Record)
	m = &mounts{file: file, emit: func(r *signal.Record) { *records = append(*records, r) }, now: time.Now, timeout: 20 * time.Millisecond, statfs: statfs}
	return m, write, records
}

// TestReadOnly: the change counts, not the state in which a file system was found.
func TestReadOnly(t *testing.T) {
	m, write, records := newFake(t, func(string, *unix.Statfs_t) error { return nil })
	line := func(opts string) string { return "1 1 8:1 / /data rw - ext4 /dev/sda1 " + opts + "\n" }
	for _, step := range []struct {
		text string
		want int
	}{
		{line("ro"), 0}, {line("rw"), 0}, {line("rw,errors=remount-ro"), 0}, {line("ro"), 1}, {line("ro"), 1},
		{"", 1}, {line("ro"), 1}, {line("rw"), 1}, {line("rw,emergency_ro"), 2},
	} {
		write(step.text)
		if err := m.look(); err != nil {
			t.Fatal(err)
		}
		if len(*records) != step.want {
			t.Errorf("%q: %d events, want %d", step.text, len(*records), step.want)
		}
	}
	r := (*records)[0]
	if r.Title != "ext4 on sda1 at /data became read-only" || *r.Body.(*ReadonlyRemount) != (ReadonlyRemount{"sda1", "ext4", "/data"}) || m.emitted.Load() != 2 {
		t.Errorf("%q, %+v", r.Title, r.Body)
	}
}

// TestHung: a file system that does not answer is told as hung, holds up no
// other one and no scrape, and is not asked again; when it answers all is well.
func TestHung(t *testing.T) {
	release := make(chan struct{})
	calls := make(chan string, 100)
	m, write, _ := newFake(t, func(path string, st *unix.Statfs_t) error {
		calls <- path
		if path == "/dead" {
			<-release
		}
		*st = unix.Statfs_t{Blocks: 10, Bavail: 4, Frsize: 4096, Files: 100, Ffree: 30}
		return nil
	})
	write("1 1 8:1 / /data rw - ext4 /dev/sda1 rw\n2 1 0:40 / /dead rw - nfs server:/x rw\n")
	state := func() map[string]float64 {
		if err := m.look(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(m.timeout * 2)
		b := &signal.Batch{}
		m.collect(b)
		out := map[string]float64{}
		for _, s := range b.Samples {
			out[strings.TrimPrefix(s.Schema.Name, "huatuo_filesystem_")+" "+s.Labels[2]] = s.Value
		}
		return out
	}
	for range 3 {
		got := state()
		if got["hung /dead"] != 1 || got["hung /data"] != 0 || got["size_bytes /data"] != 40960 || got["available_bytes /data"] != 16384 || got["inodes_available /data"] != 30 {
			t.Errorf("with a dead server: %v", got)
		}
		if _, ok := got["size_bytes /dead"]; ok {
			t.Error("the dead file system has a size")
		}
	}
	dead := 0
	for range len(calls) {
		if <-calls == "/dead" {
			dead++
		}
	}
	if dead != 1 {
		t.Errorf("the dead file system was asked %d times", dead)
	}
	close(release)
	time.Sleep(m.timeout)
	if got := state(); got["hung /dead"] != 0 || got["size_bytes /dead"] != 40960 {
		t.Errorf("once it answers: %v", got)
	}
}

func TestTick(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "# CONFIG_HZ is not set\nCONFIG_HZ_250=y\nCONFIG_HZ=250\n": 250, "CONFIG_HZ=x\n": 0} {
		if got := tickOf(strings.NewReader(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	env := probetest.New(t)
	if err := env.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.fs.interval") {
		t.Errorf("an interval of zero: %v", err)
	}
}
