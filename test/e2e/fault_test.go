package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
	"huatuo/test/faults/slowdisk"
)

// TestPacketDrop loses packets between two network namespaces, to a firewall.
func TestPacketDrop(t *testing.T) {
	a := start(t)
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install iproute2 iptables", tool)
		}
	}
	p, err := netpair.New(fmt.Sprintf("e2e%d", os.Getpid()%100000))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.B.Run("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4242", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	before, _ := a.query(`sum(huatuo_network_drops_total{reason="NETFILTER_DROP",protocol="udp"})`)
	const n = 20
	var port int
	err = p.A.Do(func() error {
		c, err := net.Dial("udp4", p.B.Addr+":4242")
		if err != nil {
			return err
		}
		defer c.Close()
		port = c.LocalAddr().(*net.UDPAddr).Port
		for range n {
			if _, err := c.Write(make([]byte, 100)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d := a.event("packet_drop", 10*time.Second, func(d *signal.Document) bool { return strings.Contains(string(d.Fields), `"destination_port":4242`) })
	var f struct {
		Reason, Location, Protocol, Source, Destination, Device string
		SourcePort                                              int `json:"source_port"`
		Length                                                  int
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	if f.Reason != "NETFILTER_DROP" || f.Protocol != "udp" || f.Source != p.A.Addr || f.Destination != p.B.Addr || f.SourcePort != port || f.Device != p.B.Device || f.Length != 128 {
		t.Errorf("fields %s", d.Fields)
	}
	if len(d.KernelStack) < 5 || !hasFrame(d.KernelStack, "nf_hook_slow") {
		t.Errorf("stack %+v", d.KernelStack)
	}
	a.eventually(15*time.Second, "metric", func() error {
		after, ok := a.query(`sum(huatuo_network_drops_total{reason="NETFILTER_DROP",protocol="udp"})`)
		if !ok || after-before != n {
			return fmt.Errorf("%v drops more, want %d", after-before, n)
		}
		return nil
	})
	checkScrape(t, a, `huatuo_network_drops_total{reason="NETFILTER_DROP",protocol="udp"`)
	a.balanced()
}

// directRead reads one block of a device past the page cache.
func directRead(dev string, block int64) error {
	f, err := os.OpenFile(dev, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 8192)
	off := 4096 - int(uintptr(unsafe.Pointer(&buf[0]))%4096)
	_, err = f.ReadAt(buf[off:off+4096], block*4096)
	return err
}

// TestBlockIO makes a device slow, then hang: the slow request is in the right
// bucket, the hung one is told while it hangs.
func TestBlockIO(t *testing.T) {
	needRoot(t)
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	a := start(t)
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
	name := filepath.Base(l.Dev)

	d.SetDelay(300 * time.Millisecond) // a near miss: slow, but no stall
	for i := range int64(3) {
		if err := directRead(l.Dev, i); err != nil {
			t.Fatal(err)
		}
	}
	d.SetDelay(1300 * time.Millisecond)
	if err := directRead(l.Dev, 10); err != nil {
		t.Fatal(err)
	}
	stall := func(state string, sector int) *signal.Document {
		return a.event("io_stall", 15*time.Second, func(doc *signal.Document) bool {
			var f struct {
				Device, State string
				Sector        int
			}
			return json.Unmarshal(doc.Fields, &f) == nil && f.Device == name && f.State == state && f.Sector == sector
		})
	}
	doc := stall("completed", 80)
	var f struct {
		Total  float64 `json:"total_seconds"`
		Op     string
		Bytes  int
		Status string
	}
	if err := json.Unmarshal(doc.Fields, &f); err != nil {
		t.Fatal(err)
	}
	if f.Total < 1.3 || f.Total > 5 || f.Op != "read" || f.Bytes != 4096 || f.Status != "ok" {
		t.Errorf("fields %s", doc.Fields)
	}

	d.Hold()
	ended := make(chan error, 1)
	go func() { ended <- directRead(l.Dev, 20) }()
	doc = stall("on_device", 160)
	select {
	case err := <-ended:
		t.Errorf("the read should hang: %v", err)
	default:
	}
	if doc.Severity == signal.Info || doc.Title == "" {
		t.Errorf("document %+v", doc)
	}
	d.SetDelay(0)
	d.Release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var page signal.EventPage
	a.json("/api/v1/events?kind=io_stall&limit=100", &page)
	for _, e := range page.Events {
		if strings.Contains(string(e.Fields), fmt.Sprintf("%q", name)) && strings.Contains(string(e.Fields), `"sector":8,`) {
			t.Errorf("a request of 0.3 s is a stall: %s", e.Title)
		}
	}
	a.eventually(15*time.Second, "latency histogram", func() error {
		p50, ok := a.query(fmt.Sprintf(`histogram_quantile(0.5, sum(huatuo_block_io_total_seconds{device=%q,op="read"}))`, name))
		if !ok || p50 < 0.25 || p50 > 0.6 {
			return fmt.Errorf("p50 %v, %v: want about 0.3 s", p50, ok)
		}
		return nil
	})
	a.balanced()
}

// TestOOMKill runs a process into the memory limit of its cgroup.
func TestOOMKill(t *testing.T) {
	a := start(t)
	cg := probetest.NewCgroup(t, cgroupName("oom"))
	const limit = 64 << 20
	file := "memory.max"
	if probetest.OnV1() {
		file = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("memory"), file), []byte(fmt.Sprint(limit)), 0); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	time.Sleep(300 * time.Millisecond)
	// A shell joins the cgroup and becomes the victim: dd reads 256 MB into one buffer.
	c := exec.Command("sh", "-c", "read go; exec dd if=/dev/zero of=/dev/null bs=256M count=1")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(in, "go")
	if err := c.Wait(); err == nil {
		t.Fatal("dd should have been killed")
	}
	d := a.event("oom_kill", 10*time.Second, func(d *signal.Document) bool { return d.Process != nil && int(d.Process.PID) == c.Process.Pid })
	var f struct {
		Constraint string
		AnonBytes  uint64 `json:"anon_bytes"`
		Memcg      *struct {
			Path       string
			LimitBytes uint64 `json:"limit_bytes"`
			Stat       map[string]uint64
		}
		Host      map[string]uint64
		Processes []any
		Log       []string
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	if f.Constraint != "memcg" || f.Memcg == nil || f.Memcg.Path != cg.Path || f.Memcg.LimitBytes != limit || f.AnonBytes == 0 {
		t.Errorf("fields %s", d.Fields)
	}
	if len(f.Host) == 0 || len(f.Log) == 0 {
		t.Errorf("no host memory or no kernel report: %s", d.Fields)
	}
	if d.Severity != signal.Critical || d.Process.Comm != "dd" || d.Container == nil || d.Container.Cgroup != cg.Path {
		t.Errorf("document %+v, container %+v", d, d.Container)
	}
	a.eventually(15*time.Second, "metric", func() error {
		if n, ok := a.query(`sum(huatuo_oom_kills_total)`); !ok || n < 1 {
			return fmt.Errorf("%v, %v", n, ok)
		}
		return nil
	})
	// Full text finds it by the name of the victim and a word of the title.
	var page signal.EventPage
	a.json("/api/v1/events?kind=oom_kill&q=dd", &page)
	if len(page.Events) == 0 {
		t.Error("full text does not find the event")
	}
	a.balanced()
}
