package diskstats

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	f := func(root, golden string, cfg any) {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), cfg)
			e.Gather()
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, *update)
		})
	}
	f("testdata", "default", nil) // whole disks; the loop device that was used
	f("testdata", "partitions", Config{Partitions: true})
	f("testdata", "exclude", Config{Exclude: "^(sd|loop|dm-|cciss)"})
	f("testdata/v4.18", "v4.18", nil) // no flushes; sdb of an older kernel still: no discards
}

func TestRefuses(t *testing.T) {
	e := probetest.New(t)
	e.Root = "testdata"
	if err := e.TryStart(Spec(), Config{Exclude: "("}); err == nil || !strings.Contains(err.Error(), "diskstats.exclude") {
		t.Errorf("run with a bad expression = %v; want an error that names diskstats.exclude", err)
	}
	e = probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run without /proc/diskstats = %v; want not exist", err)
	}
}

func TestIsSpare(t *testing.T) {
	f := func(name string, want bool) {
		t.Helper()
		if got := isSpare(name); got != want {
			t.Errorf("isSpare(%q) = %v, want %v", name, got, want)
		}
	}
	f("loop0", true)
	f("zram12", true)
	f("sr0", true)
	f("sda", false)
	f("loop", false)
	f("fdisk", false)
}

// TestForget checks that a device that is gone leaves no entry.
func TestForget(t *testing.T) {
	root := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(root+"/proc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+"/proc/diskstats", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := newPoller(root, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1, 0} {
		write(strings.Join([]string{"8 0 sda 1 2 3 4 5 6 7 8 9 10 11", "8 1 sdb 1 2 3 4 5 6 7 8 9 10 11"}[:want], "\n"))
		b := new(signal.Batch)
		if err := p.collect(b); err != nil || len(p.devices) != want || len(b.Samples) != want*minColumns {
			t.Errorf("%d devices, %d samples, %v; want %d devices", len(p.devices), len(b.Samples), err, want)
		}
	}
}

// TestKernel reads known bytes from a loop device of its own, around the page cache.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const size = 8 << 20
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("needs a free loop device: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
		}
	})
	e := probetest.New(t)
	e.Start(Spec(), nil)
	read := func(what string) float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_disk_"+what, filepath.Base(dev))
		return v
	}
	bytesBefore, readsBefore := read("read_bytes_total"), read("reads_total")
	readDirect(t, dev, size)
	if d := read("read_bytes_total") - bytesBefore; d < size || d > size+1<<20 {
		t.Errorf("%d bytes read, read_bytes moved by %g", size, d)
	}
	if d := read("reads_total") - readsBefore; d < 8 {
		t.Errorf("8 reads of 1 MiB, reads moved by %g", d)
	}
}

// readDirect reads size bytes of dev in pieces of 1 MiB with O_DIRECT.
func readDirect(t *testing.T, dev string, size int) {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // aligned
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(buf)
	for off := 0; off < size; off += len(buf) {
		if n, err := unix.Pread(fd, buf, int64(off)); err != nil || n != len(buf) {
			t.Fatalf("read %s at %d: %d, %v", dev, off, n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/diskstats", "testdata/v4.18/proc/diskstats"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		name, _, n, ok := parse(line)
		if ok && (len(name) == 0 || n < minColumns || n > nColumns) {
			t.Errorf("name %q, %d columns, ok", name, n)
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p, err := newPoller("/", Config{})
	if err != nil {
		b.Fatal(err)
	}
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
