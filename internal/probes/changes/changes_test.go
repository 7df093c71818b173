package changes

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func by() (a bpfActor) {
	a = bpfActor{Cgroup: 42, Pid: 11, Tgid: 10, Ppid: 9, Uid: 1000}
	copy(a.Comm[:], "sysctl")
	copy(a.Parent[:], "bash")
	return a
}

func write(name, old, value string) *bpfSysctlWire {
	w := &bpfSysctlWire{Kind: sysctlKind, Netns: 4026531840, Ts: 1_000_000_000, Suppressed: 2, By: by(), OldLen: int32(len(old)), ValueLen: int32(len(value))}
	copy(w.Name[:], name)
	copy(w.Old[:len(w.Old)-1], old)
	copy(w.Value[:len(w.Value)-1], value)
	return w
}

func loaded() *bpfModuleWire {
	w := &bpfModuleWire{Kind: moduleKind, Ts: 2_000_000_000, By: by(), Taints: 1<<0 | 1<<12 | 1<<13}
	copy(w.Name[:], "nvidia")
	return w
}

func bytesOf[T any](w *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

// TestGolden compares the document of each kind of event with what is kept in testdata.
func TestGolden(t *testing.T) {
	long := write("kernel/core_pattern", strings.Repeat("a", 127), strings.Repeat("b", 127))
	long.OldLen, long.ValueLen = -int32(unix.E2BIG), -int32(unix.E2BIG)
	gone := loaded()
	gone.Gone, gone.Taints = 1, 0
	for name, raw := range map[string][]byte{
		"sysctl": bytesOf(write("vm/swappiness", "60", "10")),
		"net":    bytesOf(write("net/ipv4/tcp_rmem", "4096\t131072\t6291456", "4096 87380  16777216")),
		"device": bytesOf(write("net/ipv4/conf/eth0.100/rp_filter", "1", "0")),
		"key":    bytesOf(write("net/ipv4/tcp_fastopen_key", "00000000-00000000-00000000-00000000", "11111111-22222222-33333333-44444444")),
		"long":   bytesOf(long),
		"module": bytesOf(loaded()),
		"gone":   bytesOf(gone),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := (&decoder{at}).decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			if r.CgroupID != 42 || r.Process.PID != 10 || r.Process.TID != 11 {
				t.Errorf("record %+v", r)
			}
			golden(t, name, r)
		})
	}
}

// TestExample decodes what a kernel has sent: this one may have no modules.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("testdata/module.hex")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Fields(string(text)) {
		raw, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		r, err := (&decoder{at}).decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("recorded%d", i+1), r)
		r.Time = time.Date(2026, 11, 26, 8, 21, 0, 0, time.UTC)
		probetest.Example(t, r, "Recorded on Linux 6.1 (amd64) in a virtual machine, when TestKernelModule loaded the module dummy.")
	}
}

func golden(t *testing.T, name string, r *signal.Record) {
	t.Helper()
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
	}
}

// TestKey: no part of a key is in the document.
func TestKey(t *testing.T) {
	for _, name := range []string{"net/ipv4/tcp_fastopen_key", "net/ipv6/conf/all/stable_secret"} {
		r, err := (&decoder{at}).decode(bytesOf(write(name, "2001:db8::1", "11111111-2222")))
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.Document()
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(d); bytes.Contains(b, []byte("2001")) || bytes.Contains(b, []byte("1111")) {
			t.Errorf("a key leaves the agent: %s", b)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	short := bytesOf(loaded())
	other := bytes.Clone(short)
	other[0] = 9
	for _, raw := range [][]byte{nil, {0}, short[:len(short)-1], bytesOf(write("a", "b", "c"))[:40], other} {
		if _, err := (&decoder{at}).decode(raw); err == nil {
			t.Errorf("%d bytes decode", len(raw))
		}
	}
}

// TestEffects: whether a write had an effect is what the file says afterwards.
func TestEffects(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"vm/swappiness": "10\n", "net/ipv4/ip_forward": "1\n", "kernel/hostname": "x\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := &effects{dir: dir, own: 7}
	for _, c := range []struct {
		name, old, value string
		netns            uint32
		want             string
	}{
		{"vm/swappiness", "60", "10", 7, applied},
		{"vm/swappiness", "10", "1000", 7, unchanged},
		{"vm/swappiness", "10", "0xa", 7, unchanged},
		{"net/ipv4/ip_forward", "0", "1", 7, applied},
		{"net/ipv4/ip_forward", "0", "1", 8, unknown},
		{"kernel/hostname", "y", "x", 7, unknown},
		{"vm/none", "1", "2", 7, unknown},
		{"../../../etc/passwd", "1", "2", 7, unknown},
	} {
		w := write(c.name, c.old, c.value)
		w.Netns = c.netns
		r, err := (&decoder{at}).decode(bytesOf(w))
		if err != nil {
			t.Fatal(err)
		}
		e.look(r)
		if got := sysctlOf(r).Effect; got != c.want || (got == unchanged) != strings.HasSuffix(r.Title, "it is unchanged") {
			t.Errorf("%s: %s, want %s", r.Title, got, c.want)
		}
	}
}

func TestMounts(t *testing.T) {
	before := "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n26 22 259:7 / /var/my\\040data rw,relatime - xfs /dev/sda7 rw,attr2\n" +
		"30 22 259:9 / /old rw - ext4 /dev/sda9 rw\n31 22 259:8 / /emergency rw - ext4 /dev/sda8 rw\n32 22 0:9 / /reused rw - tmpfs a rw\n"
	after := "22 1 259:2 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n26 22 259:7 / /var/my\\040data rw,relatime - xfs /dev/sda7 rw,attr2,inode64\n" +
		"30 22 259:9 / /old ro - ext4 /dev/sda9 ro\n31 22 259:8 / /emergency rw - ext4 /dev/sda8 rw,emergency_ro\n32 22 0:9 / /elsewhere ro - tmpfs a rw\n33 22 0:9 / /new ro - tmpfs a rw\n"
	m := newMounts(t.TempDir())
	if cs := m.compare(mountsByID([]byte(before))); len(cs) != 0 {
		t.Errorf("what is there at first is a change: %+v", cs)
	}
	var got []string
	for _, c := range m.compare(mountsByID([]byte(after))) {
		got = append(got, c.target+": "+c.old+" -> "+c.new)
	}
	want := []string{"/: relatime -> noatime", "/var/my data:  -> inode64"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	got = nil
	for _, c := range m.compare(mountsByID([]byte(before))) { // and back: to be written again is a change
		got = append(got, c.target+": "+c.old+" -> "+c.new)
	}
	want = []string{"/: noatime -> relatime", "/emergency: emergency_ro -> ", "/old: ro -> rw", "/var/my data: inode64 -> "}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestHost compares settings below a fake /sys.
func TestHost(t *testing.T) {
	root := t.TempDir()
	set := func(file, text string) {
		t.Helper()
		file = filepath.Join(root, "sys", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := newHost(root)
	set("devices/system/cpu/online", "0-3")
	set("kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
	for range 2 {
		if cs := h.look(); len(cs) != 0 {
			t.Errorf("nothing has changed: %+v", cs)
		}
	}
	set("devices/system/cpu/online", "0,2-3")
	set("kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
	set("kernel/mm/ksm/run", "0") // comes with a module
	var titles []string
	for _, c := range h.look() {
		titles = append(titles, c.record(at(0)).Title)
	}
	want := []string{"cpu/online: 0,2-3, was 0-3", "transparent_hugepage/enabled: always, was madvise"}
	if !slices.Equal(titles, want) {
		t.Errorf("%q, want %q", titles, want)
	}
}

// TestSysctls compares values below a fake /proc/sys.
func TestSysctls(t *testing.T) {
	root := t.TempDir()
	set := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, "proc/sys", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"vm/swappiness", "net/ipv4/tcp_rmem", "net/ipv4/icmp_ratelimit", "net/ipv4/tcp_fastopen_key", "kernel/ns_last_pid", "vm/stat_refresh", "kernel/random/uuid"} {
		set(name, "1\t2")
	}
	s := newSysctls(root)
	if want := []string{"vm/swappiness", "net/ipv4/tcp_rmem"}; !slices.Equal(s.names, want) {
		t.Errorf("%q are compared, want %q", s.names, want)
	}
	for range 2 {
		if rs := s.look(at(0)); len(rs) != 0 {
			t.Errorf("nothing has changed: %+v", rs)
		}
	}
	for _, name := range []string{"net/ipv4/tcp_rmem", "kernel/ns_last_pid"} {
		set(name, "1 3")
	}
	set("vm/swappiness", "1  2")
	rs := s.look(at(0))
	if len(rs) != 1 || rs[0].Title != "Somebody wrote net.ipv4.tcp_rmem = 1 3, was 1 2" || sysctlOf(rs[0]).Source != "poll" {
		t.Errorf("%+v", rs)
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"max\n": "max", "9223372036854771712\n": "max", "-1\n": "max", "104857600\n": "104857600", "50000 100000\n": "50000 100000", "": "",
		"8:0 rbps=1 wbps=max\n8:16 rbps=2\n": "8:0 rbps=1 wbps=max; 8:16 rbps=2", "0-3,5\n": "0-3,5",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// inotify makes an event as the kernel writes it.
func inotify(wd int32, mask uint32, name string) []byte {
	pad := (len(name)/16 + 1) * 16
	b := binary.NativeEndian.AppendUint32(nil, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(pad))
	return append(append(b, name...), make([]byte, pad-len(name))...)
}

func TestEachWrite(t *testing.T) {
	b := slices.Concat(inotify(1, unix.IN_MODIFY, "cpu.max"), inotify(2, unix.IN_CREATE, "x"), inotify(-1, unix.IN_Q_OVERFLOW, ""), inotify(3, unix.IN_MODIFY, "memory.max"))
	var got []string
	eachWrite(b, func(wd int, name string) { got = append(got, fmt.Sprint(wd, name)) })
	if want := []string{"1cpu.max", "-1", "3memory.max"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	eachWrite(b[:len(b)-1], func(wd int, _ string) {
		if wd == 3 {
			t.Error("half an event is one")
		}
	})
}

// TestMany: of more changes than there are events for the rest are counted.
func TestMany(t *testing.T) {
	n := 0
	p := &poller{env: &probe.Env{Log: probetest.New(t).Log, Emit: func(*signal.Record) { n++ }}}
	p.emit(make([]*signal.Record, maxEvents+5))
	if n != maxEvents || p.made.Load() != maxEvents || p.held.Load() != 5 {
		t.Errorf("%d events, %d made, %d held", n, p.made.Load(), p.held.Load())
	}
}

func TestCut(t *testing.T) {
	c := change{what: "cgroup", setting: "io.max", title: "io.max of x", old: "", new: strings.Repeat("é", maxText)}
	r := c.record(at(0))
	if b := changeOf(r); len(b.New) > maxText+3 || !strings.HasSuffix(b.New, "…") || !strings.HasSuffix(r.Title, ", was none") {
		t.Errorf("%q", r.Title)
	}
	if _, err := r.Document(); err != nil {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	for _, spoil := range []func(*Config){
		func(c *Config) { c.Interval = 0 }, func(c *Config) { c.Settle = -1 }, func(c *Config) { c.MaxGroups = -1 },
	} {
		cfg := Spec().Config.(Config)
		spoil(&cfg)
		if err := probetest.New(t).TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), "probes.changes") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(write("vm/swappiness", "60", "10")))
	f.Add(bytesOf(loaded()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := (&decoder{at}).decode(raw)
		if err != nil {
			return
		}
		if _, err := r.Document(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"))
	f.Add(inotify(1, unix.IN_MODIFY, "cpu.max"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range mountsByID(b) {
			differ(m.options, "rw")
		}
		eachWrite(b, func(int, string) {})
		plain(string(b))
		chosen(string(b))
		dotted(spaced(string(b)))
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := bytesOf(write("net/ipv4/tcp_rmem", "4096\t131072\t6291456", "4096 87380 16777216"))
	d := &decoder{at}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernelLook does a round in which nothing happened, with the sysctls of this machine and without.
func BenchmarkKernelLook(b *testing.B) {
	for _, poll := range []bool{false, true} {
		b.Run(fmt.Sprintf("sysctls=%v", poll), func(b *testing.B) {
			env := probetest.New(b)
			p := newPoller(env.Env, quick(), poll)
			defer p.close()
			b.ReportAllocs()
			for b.Loop() {
				p.round = 0
				if err := p.look(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
