package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const (
	// maxMounts bounds the series: a node has some ten, one with many volumes a hundred.
	maxMounts = 128
	// maxAsking bounds the threads that a dead server may hold.
	maxAsking = 8
)

// remote are file systems on something else than a block device of this host that have space of their own.
var remote = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "zfs", "lustre", "glusterfs", "beegfs"}

// mount is one file system. Several mounts of it are one.
type mount struct {
	id       string // major:minor, which is what is mounted as long as it is
	source   string
	fstype   string
	point    string
	readOnly bool

	asked time.Time // when statfs was called that has not come back; zero: none
	known bool      // stat is of the last call
	stat  unix.Statfs_t
}

// mounts asks file systems for their space. None is ever waited for: each call
// has a goroutine of its own, a file system has one at most, and there are maxAsking.
type mounts struct {
	file    string // mountinfo
	prefix  string // of the paths in it
	emit    func(*signal.Record)
	emitted atomic.Uint64
	now     func() time.Time
	timeout time.Duration
	statfs  func(path string, st *unix.Statfs_t) error

	mu     sync.Mutex
	asking int
	list   []*mount // in the order of their ids
	looked bool     // before: what is read-only at first did not become it
}

func newMounts(env *probe.Env, cfg Config) *mounts {
	m := &mounts{emit: env.Emit, now: env.Now, timeout: cfg.Timeout, statfs: unix.Statfs}
	m.file, m.prefix = filepath.Join(env.Root, "proc/1/mountinfo"), filepath.Join(env.Root, "proc/1/root")
	if _, err := os.Stat(m.prefix + "/"); err != nil { // not allowed: our own mounts
		m.file, m.prefix = filepath.Join(env.Root, "proc/self/mountinfo"), ""
	}
	return m
}

// look reads what is mounted, tells what became read-only and asks for space.
func (m *mounts) look() error {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	found := parseMounts(string(text))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, x := range found {
		j := slices.IndexFunc(m.list, func(o *mount) bool { return o.id == x.id && o.source == x.source && o.fstype == x.fstype })
		if j < 0 {
			continue
		}
		old := m.list[j]
		if x.readOnly && !old.readOnly && m.looked {
			m.emitted.Add(1)
			m.emit(m.record(x))
		}
		old.readOnly, old.point = x.readOnly, x.point
		found[i] = old
	}
	m.list, m.looked = found, true
	for _, x := range m.list {
		m.ask(x)
	}
	return nil
}

// ask starts a statfs unless one is under way. The caller holds mu.
func (m *mounts) ask(x *mount) {
	if !x.asked.IsZero() || m.asking >= maxAsking {
		return
	}
	x.asked = time.Now()
	m.asking++
	path := m.prefix + x.point
	go func() {
		var st unix.Statfs_t
		err := m.statfs(path, &st)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asking--
		x.asked = time.Time{}
		x.known, x.stat = err == nil, st
	}()
}

// device names a device number as the kernel has it.
func (m *mounts) device(dev uint32) string {
	id := fmt.Sprintf("%d:%d", dev>>20, dev&(1<<20-1))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.list {
		if x.id == id {
			return label(x.source)
		}
	}
	return id
}

// label is what metrics call a device: sda1, not /dev/sda1.
func label(source string) string {
	return strings.ToValidUTF8(strings.TrimPrefix(source, "/dev/"), "\uFFFD")
}

func (m *mounts) record(x *mount) *signal.Record {
	return &signal.Record{
		Schema: remounted, Time: m.now(),
		Title: fmt.Sprintf("%s on %s at %s became read-only", x.fstype, label(x.source), x.point),
		Body:  &ReadonlyRemount{Device: label(x.source), FSType: x.fstype, Mountpoint: x.point},
	}
}

// parseMounts returns the file systems worth watching, each once.
func parseMounts(text string) []*mount {
	byID := map[string]*mount{}
	for line := range strings.Lines(text) {
		// 36 35 98:0 /root /mountpoint opts tag:x … - fstype source superopts
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		x := &mount{id: f[2], point: unescape(f[4]), fstype: g[0], source: unescape(g[1])}
		if !watched(x) {
			continue
		}
		for _, o := range strings.Split(g[2], ",") {
			// ext4 since 6.15 does not say ro when an error made it so.
			x.readOnly = x.readOnly || o == "ro" || o == "emergency_ro" || o == "shutdown"
		}
		if old := byID[x.id]; old == nil || len(x.point) < len(old.point) {
			byID[x.id] = x
		}
	}
	var list []*mount
	for _, x := range byID {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *mount) int { return strings.Compare(a.id, b.id) })
	return list[:min(len(list), maxMounts)]
}

func watched(x *mount) bool {
	if x.fstype == "squashfs" || x.fstype == "iso9660" || x.fstype == "erofs" { // full and read-only by nature
		return false
	}
	return strings.HasPrefix(x.source, "/dev/") && !strings.HasPrefix(x.fstype, "devtmpfs") || slices.Contains(remote, x.fstype)
}

// unescape undoes the kernel's \040 for what would end a field.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
