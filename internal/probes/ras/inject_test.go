package ras

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// guest skips a test that would harm a machine that is more than a guest of `make vmtest`.
func guest(t *testing.T) {
	t.Helper()
	if os.Getenv("HUATUO_TEST_HOOKS") == "" {
		t.Skip("needs a guest: `make vmtest P=ras`; this machine would lose a page of memory, or its log would tell errors")
	}
}

// waitFor returns the first event of a source, once the probe runs and provoke was called.
func waitFor(t *testing.T, source string, provoke func()) (*probetest.Env, *signal.Record) {
	t.Helper()
	e := probetest.NewKernel(t, load.Options{})
	e.Start(Spec(), nil)
	provoke()
	return e, e.WaitRecord(func(r *signal.Record) bool { return r.Body.(*HardwareError).Source == source })
}

// poisonEnv makes the test binary a program that poisons a page of its own.
const poisonEnv = "HUATUO_TEST_POISON"

// poison has the kernel believe that a page is broken; it may kill the caller for it.
func poison(t *testing.T) {
	page, err := unix.Mmap(-1, 0, int(pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	page[0] = 1
	const madvHwpoison = 100
	if err := unix.Madvise(page, madvHwpoison); err != nil {
		fmt.Println("refused:", err)
	}
}

// TestKernelPage poisons a page of another process.
func TestKernelPage(t *testing.T) {
	if os.Getenv(poisonEnv) != "" {
		poison(t)
		return
	}
	guest(t)
	e, r := waitFor(t, "memory_page", func() {
		c := exec.Command(os.Args[0], "-test.run=^TestKernelPage$")
		c.Env = append(os.Environ(), poisonEnv+"=1")
		out, err := c.CombinedOutput()
		if strings.Contains(string(out), "refused: invalid argument") {
			t.Skip("needs a kernel that handles errors of memory (CONFIG_MEMORY_FAILURE)")
		}
		t.Logf("%v: %.300s", err, out)
	})
	b := r.Body.(*HardwareError)
	if b.Page.Result != "recovered" || !strings.HasSuffix(b.Page.Type, " page") || b.Page.Frame == 0 || b.Address == "" || b.NUMANode == "" {
		t.Errorf("%s: %+v, %+v", r.Title, b, b.Page)
	}
	if n, _ := probetest.Value(e.Gather(), errorsTotal.Name, "memory_page", "uncorrected", ""); n != 1 {
		t.Errorf("%v are counted", n)
	}
	t.Log(r.Title)
}

// pageEnv makes the test binary a program that holds a page and tells where it is.
const pageEnv = "HUATUO_TEST_PAGE"

// hold waits for a line, takes a page and tells its address.
func hold(t *testing.T) {
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	page, err := unix.Mmap(-1, 0, int(pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	page[0] = 1
	fmt.Printf("@%d\n", uintptr(unsafe.Pointer(&page[0])))
	in.ReadString('\n') // until the parent has seen it
}

// TestKernelOwner asks to whom a page of a process in a group belongs.
func TestKernelOwner(t *testing.T) {
	if os.Getenv(pageEnv) != "" {
		hold(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to read page maps: run `make ktest` as root")
	}
	if _, err := os.Stat("/proc/kpagecgroup"); err != nil {
		t.Skip("needs /proc/kpagecgroup (CONFIG_PROC_PAGE_MONITOR, CONFIG_MEMCG)")
	}
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-ras-%d", os.Getpid()))
	st, err := os.Stat(cg.Dir("memory"))
	if err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestKernelOwner$")
	c.Env = append(os.Environ(), pageEnv+"=1")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(stdin)
	var addr uint64
	for s := bufio.NewScanner(stdout); addr == 0 && s.Scan(); {
		fmt.Sscanf(s.Text(), "@%d", &addr)
	}
	if addr == 0 {
		t.Fatal("no page")
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], int64(addr/pageSize*8)); err != nil {
		t.Fatal(err)
	}
	pfn := binary.NativeEndian.Uint64(entry[:]) & (1<<55 - 1)
	p := &placer{root: "/"}
	if got, want := p.owner(pfn*pageSize), st.Sys().(*syscall.Stat_t).Ino; pfn == 0 || got != want {
		t.Errorf("page frame 0x%x belongs to group %d, want %d", pfn, got, want)
	}
	if node := p.nodeOfAddress(pfn * pageSize); node == "" {
		t.Log("this kernel does not tell the node of an address")
	}
}

// TestKernelMCE has the kernel's own injector report a corrected error of the memory.
func TestKernelMCE(t *testing.T) {
	guest(t)
	const dir = "/sys/kernel/debug/mce-inject"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs the module mce-inject")
	}
	e, r := waitFor(t, "machine_check", func() {
		for _, f := range [][2]string{{"flags", "sw"}, {"cpu", "0"}, {"status", "0x9c00004000010091"}, {"misc", "0x86"}, {"addr", "0x1234000"}, {"bank", "4"}} {
			if err := os.WriteFile(filepath.Join(dir, f[0]), []byte(f[1]+"\n"), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	b := r.Body.(*HardwareError)
	if b.ErrorSeverity != "corrected" || b.MachineCheck.Bank != 4 || b.MachineCheck.CPU != 0 || b.MachineCheck.Status != "0x9c00004000010091" ||
		b.Message != "memory controller, read, channel 1" || r.Severity != signal.Info {
		t.Errorf("%s: %+v, %+v", r.Title, b, b.MachineCheck)
	}
	if n, _ := probetest.Value(e.Gather(), errorsTotal.Name, "machine_check", "corrected", "bank 4"); n < 1 {
		t.Errorf("%v are counted", n)
	}
	t.Log(r.Title)
}

// TestKernelAER has the kernel's own injector make a root port report a bad packet.
func TestKernelAER(t *testing.T) {
	guest(t)
	f, err := os.OpenFile("/dev/aer_inject", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs the module aer_inject")
	}
	defer f.Close()
	ports, _ := filepath.Glob("/sys/bus/pci_express/drivers/aer/0000:*")
	if len(ports) == 0 {
		t.Skip("needs a PCIe port that reports errors")
	}
	device, _, _ := strings.Cut(filepath.Base(ports[0]), ":pcie")
	inject := make([]byte, 32) // struct aer_error_inj
	var bus, dev, fn byte
	if _, err := fmt.Sscanf(device, "0000:%x:%x.%x", &bus, &dev, &fn); err != nil {
		t.Fatal(err)
	}
	inject[0], inject[1], inject[2] = bus, dev, fn
	binary.NativeEndian.PutUint32(inject[8:], 1<<6) // corrected: bad TLP
	e, r := waitFor(t, "pcie", func() {
		if _, err := f.Write(inject); err != nil {
			t.Fatal(err)
		}
	})
	b := r.Body.(*HardwareError)
	if b.ErrorSeverity != "corrected" || b.PCIe.Device != device || b.Message != "bad tlp" || b.PCIe.Driver != "pcieport" || b.PCIe.Class != "0x060400" {
		t.Errorf("%s: %+v, %+v", r.Title, b, b.PCIe)
	}
	if n, _ := probetest.Value(e.Gather(), errorsTotal.Name, "pcie", "corrected", device); n != 1 {
		t.Errorf("%v are counted", n)
	}
	t.Log(r.Title)
}
