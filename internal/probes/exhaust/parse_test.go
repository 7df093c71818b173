package exhaust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
)

func newHost(root string) *host {
	return &host{proc: filepath.Join(root, "proc"), who: newWho(root, nil, nil)}
}

func describe(rs []reading) string {
	var s []string
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%s %d of %d", r.resource, r.used, r.limit))
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

func TestHost(t *testing.T) {
	root := probetest.Unpack(t, "testdata/host.txt")
	rs, err := newHost(root).read()
	if want := "conntrack 130000 of 262144, host_files 91000 of 100000, host_tasks 31500 of 32768, swap 2040107008 of 2147479552"; err != nil || describe(rs) != want {
		t.Errorf("%s, %v; want %s", describe(rs), err, want)
	}
	// A limit that is none, no swap, no connection tracking.
	for name, text := range map[string]string{"sys/fs/file-nr": "576\t0\t9223372036854775807\n", "meminfo": "MemTotal: 1 kB\nSwapTotal:  0 kB\nSwapFree:  0 kB\n"} {
		if err := os.WriteFile(filepath.Join(root, "proc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "proc/sys/net")); err != nil {
		t.Fatal(err)
	}
	if rs, err := newHost(root).read(); err != nil || describe(rs) != "host_tasks 31500 of 32768" {
		t.Errorf("%s, %v", describe(rs), err)
	}
	// What cannot be read is an error, and the rest is told.
	name := filepath.Join(root, "proc/loadavg")
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := newHost(root).read(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory for a file: %v", err)
	}
}

func TestFillableMounts(t *testing.T) {
	b, err := os.ReadFile("testdata/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range fillableMounts(b) {
		got = append(got, m.Device+" "+m.FSType+" "+m.Point)
	}
	want := []string{"259:2 ext4 /", "0:26 tmpfs /dev/shm", "0:51 nfs4 /home", "259:7 xfs /var/lib/my data"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestParseSockets(t *testing.T) {
	b, err := os.ReadFile("testdata/sockstat")
	if err != nil {
		t.Fatal(err)
	}
	if tcp, udp := parseSockets(b); tcp != 20+5 || udp != 4 {
		t.Errorf("%d of TCP, %d of UDP", tcp, udp)
	}
	if tcp, udp := parseSockets([]byte("TCP6: inuse 7\nUDP6: inuse 2\nUDPLITE6: inuse 9\nFRAG6: inuse 0 memory 0\n")); tcp != 7 || udp != 2 {
		t.Errorf("%d of TCP6, %d of UDP6", tcp, udp)
	}
}

// TestCountPairs: of the sockets in the table those with a local port of the range count, each for its own pair.
func TestCountPairs(t *testing.T) {
	var got []string
	for _, p := range countPairs(portRange{low: 40000, high: 40003}, "testdata/tcp", "testdata/tcp6", "testdata/none") {
		got = append(got, fmt.Sprintf("%d %s %s", p.count, p.pair.from, p.pair.to))
	}
	// Of the third pair there is one socket, less than half of the ports.
	if want := []string{"3 10.0.0.1 10.0.0.2:3306", "2 2001:db8::1 [2001:db8::2]:443"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n := countBound(portRange{low: 40000, high: 40003}, "testdata/tcp"); n != 4 {
		t.Errorf("%d ports are bound, want 4", n)
	}
}

func TestParse(t *testing.T) {
	if n, ok := parseEntries([]byte("entries  clashres found\n000000ff  00000000 00000000\n000000ff  00000000 00000000\n")); !ok || n != 255 {
		t.Errorf("%d entries, %v", n, ok)
	}
	if _, ok := parseEntries(nil); ok {
		t.Error("no file has entries")
	}
	if p, ok := parseRange([]byte("32768\t60999\n")); !ok || p.size() != 28232 || !p.has(32768) || !p.has(60999) || p.has(61000) {
		t.Errorf("%+v %v", p, ok)
	}
	for _, bad := range []string{"", "1", "2 1", "1 70000"} {
		if _, ok := parseRange([]byte(bad)); ok {
			t.Errorf("%q is a range", bad)
		}
	}
	limits := "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n"
	if n := parseLimit([]byte(limits)); n != 1024 {
		t.Errorf("limit %d", n)
	}
	if n := parseLimit([]byte("Max open files            unlimited            unlimited            files     \n")); n != 0 {
		t.Errorf("no limit is %d", n)
	}
	if n := parseStatus([]byte("Name:\tx\nFDSize:\t256\nVmSwap:\t     12 kB\n"), "VmSwap:"); n != 12 {
		t.Errorf("swap %d", n)
	}
	if !writable([]byte("pos:\t0\nflags:\t0102001\nmnt_id:\t18\n")) || writable([]byte("pos:\t0\nflags:\t0100000\nmnt_id:\t18\n")) || writable(nil) {
		t.Error("flags of fdinfo")
	}
	v2 := "anon 100\nfile 70\ninactive_anon 90\nactive_anon 10\ninactive_file 40\nactive_file 30\nworkingset_refault_file 5\n"
	if n := parseCache([]byte(v2), false); n != 70 {
		t.Errorf("cache of v2 %d", n)
	}
	v1 := "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\ntotal_active_file 4\n"
	if n := parseCache([]byte(v1), true); n != 34 {
		t.Errorf("cache of v1 %d", n)
	}
	for target, want := range map[string]string{
		"socket:[4711]": "socket", "pipe:[1]": "pipe", "anon_inode:[eventpoll]": "eventpoll", "anon_inode:bpf-map": "bpf-map", "/var/log/x": "/var/log/x", "/memfd:a:b (deleted)": "/memfd:a:b (deleted)", "": "",
	} {
		if got := kindOf(target); got != want {
			t.Errorf("%q is of %q, want %q", target, got, want)
		}
	}
}

// TestHungMount: a file system that does not answer delays a round once, and has no readings.
func TestHungMount(t *testing.T) {
	root := probetest.Unpack(t, "testdata/mounts.txt")
	m := newMounts(root, nil)
	m.prefix = ""
	answer := make(chan struct{})
	defer close(answer)
	m.asker = probe.NewAsker(20*time.Millisecond, func(point string) (st unix.Statfs_t, err error) {
		if point == "/hangs" {
			<-answer
		}
		return unix.Statfs_t{Blocks: 100, Bfree: 10, Bavail: 5, Frsize: 4096, Files: 50, Ffree: 1}, nil
	})
	for range 2 {
		rs, err := m.read(t.Context())
		if want := fmt.Sprintf("disk_space %d of %d, inodes 49 of 50", 90*4096, 95*4096); err != nil || describe(rs) != want {
			t.Errorf("%s, %v; want %s", describe(rs), err, want)
		}
	}
}

// TestPortion: each round has its part of many processes, and all have had their turn after some.
func TestPortion(t *testing.T) {
	p := &processes{}
	pids := make([]uint32, 2*maxProcesses+100)
	for i := range pids {
		pids[i] = uint32(i)
	}
	seen := map[uint32]bool{}
	for range 3 {
		part := p.portion(pids)
		if len(part) != maxProcesses {
			t.Fatalf("a part of %d", len(part))
		}
		for _, pid := range part {
			seen[pid] = true
		}
	}
	if len(seen) != len(pids) {
		t.Errorf("%d of %d processes", len(seen), len(pids))
	}
	if got := p.portion(pids[:5]); len(got) != 5 {
		t.Errorf("%d of five", len(got))
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"mountinfo", "sockstat", "tcp", "tcp6", "host.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		parseTasks(b)
		parseKB(b, "SwapTotal:")
		fillableMounts(b)
		parseSockets(b)
		parseEntries(b)
		parseRange(b)
		parseLimit(b)
		parseStatus(b, "FDSize:")
		parseCache(b, false)
		writable(b)
		kindOf(string(b))
		parseTable(strings.NewReader(string(b)), func(s *socket) {
			if !s.local.IsValid() || !s.remote.IsValid() {
				t.Errorf("socket %+v", s)
			}
		})
	})
}

// BenchmarkKernelRound reads each source of this machine once.
func BenchmarkKernelRound(b *testing.B) {
	env := probetest.New(b)
	if l, err := cgroup.Detect("/"); err == nil {
		x, err := cgroup.NewIndex(l, cgroup.IndexOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer x.Close()
		env.Layout, env.Cgroups = l, x
	}
	w := newWatcher(env.Env, defaults())
	for _, s := range w.sources {
		b.Run(strings.ReplaceAll(s.name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rs, err := s.read(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				s.tracker.look(rs, time.Now())
			}
		})
	}
}
