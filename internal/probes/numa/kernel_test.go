package numa

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// sum is that of a metric over all nodes.
func sum(samples []signal.Sample, name string) (v float64) {
	for _, s := range samples {
		if s.Schema.Name == "huatuo_numa_"+name {
			v += s.Value
		}
	}
	return v
}

// TestKernelKinds uses a known amount of each kind of memory that nodes tell of.
// Others take and give back memory meanwhile: each is tried until it shows.
func TestKernelKinds(t *testing.T) {
	if _, err := os.Stat("/sys/devices/system/node/node0/meminfo"); err != nil {
		t.Skip("needs a kernel with CONFIG_NUMA: ", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if v, want := sum(e.Gather(), "memory_total_bytes"), float64(info.Totalram)*float64(info.Unit); v < want*0.85 || v > want*1.3 { // a balloon counts for one of them only
		t.Errorf("the nodes have %g bytes, the host %g", v, want)
	}
	const size = 64 << 20
	for _, c := range []struct {
		what, name string
		do         func(t *testing.T)
		lo, hi     float64
	}{
		{"64 MiB in huge pages", "memory_anonymous_huge_bytes", func(t *testing.T) { huge(t, size) }, size / 2, size * 1.5},
		{"256 MiB taken", "memory_free_bytes", func(t *testing.T) {
			mem, err := probetest.Pages(4 * size)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Munmap(mem) })
			probetest.Fill(mem)
		}, -8 * size, -2 * size},
		{"64 MiB of files read", "memory_file_bytes", func(t *testing.T) { hole(t, size) }, size * 0.75, size * 2},
		{"64 MiB in a memory file system", "memory_shmem_bytes", func(t *testing.T) { inMemory(t, size) }, size * 0.75, size * 1.5},
		{"20000 names made", "memory_slab_bytes", func(t *testing.T) { names(t) }, 1 << 20, 256 << 20},
	} {
		t.Run(c.what, func(t *testing.T) {
			var d float64
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				t.Run("try", func(t *testing.T) {
					before := sum(e.Gather(), c.name)
					c.do(t)
					d = sum(e.Gather(), c.name) - before
				})
				if d >= c.lo && d <= c.hi {
					return
				}
			}
			t.Errorf("huatuo_numa_%s moved by %g, want %g to %g", c.name, d, c.lo, c.hi)
		})
	}
	pool(t, e)
}

func huge(t *testing.T, size int) {
	mem, err := probetest.HugePages(size)
	if err != nil {
		t.Skip("needs transparent huge pages: ", err)
	}
	t.Cleanup(func() { probetest.Unmap(mem) })
	probetest.Fill(mem)
}

// inMemory writes a file of a memory file system.
func inMemory(t *testing.T, size int) {
	dir := t.TempDir()
	if err := unix.Mount("huatuo-test", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hole reads a file without blocks.
func hole(t *testing.T, size int64) {
	path := filepath.Join(t.TempDir(), "hole")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
}

// names looks for files that are not there: the kernel keeps each name.
func names(t *testing.T) {
	dir := t.TempDir()
	for i := range 20000 {
		if _, err := os.Stat(fmt.Sprintf("%s/%d-%s", dir, i, strings.Repeat("x", 60))); err == nil {
			t.Fatal("there is such a file")
		}
	}
}

// pool reserves four huge pages more.
func pool(t *testing.T, e *probetest.Env) {
	const file, n = "/proc/sys/vm/nr_hugepages", 4
	b, err := os.ReadFile(file)
	if err != nil {
		t.Logf("the kernel has no pool of huge pages: %v", err)
		return
	}
	var was float64
	fmt.Sscan(string(b), &was)
	state := func(name string) (v float64) {
		for _, s := range e.Gather() {
			if s.Schema == hugePages && s.Labels[1] == name {
				v += s.Value
			}
		}
		return v
	}
	total, free := state("total"), state("free")
	t.Run("pool", func(t *testing.T) {
		probetest.Set(t, file, fmt.Sprint(was+n))
		if d := state("total") - total; d != n {
			t.Errorf("%s{state=total} moved by %g, want %d", hugePages.Name, d, n)
		}
		if d := state("free") - free; d != n {
			t.Errorf("%s{state=free} moved by %g, want %d", hugePages.Name, d, n)
		}
	})
	if d := state("total") - total; d != 0 {
		t.Errorf("%g huge pages are left of them", d)
	}
}
