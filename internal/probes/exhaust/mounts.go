package exhaust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
)

const (
	// maxMounts bounds a round: a node has some ten file systems of its own, and one for each volume.
	maxMounts = 256
	// patience is how long a file system may take to tell its space, once: one that hangs is not asked again until it has answered.
	patience = 2 * time.Second
)

// remote are file systems on something else than a block device of this host that have space of their own.
var remote = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "zfs", "lustre", "glusterfs", "beegfs"}

// mounts reads the space of file systems, never waiting for one that hangs.
type mounts struct {
	file   string // mountinfo
	prefix string // of the paths in it
	asker  *probe.Asker[unix.Statfs_t]
	who    *who
}

func newMounts(root string, w *who) *mounts {
	m := &mounts{who: w}
	m.file, m.prefix = filepath.Join(root, "proc/1/mountinfo"), filepath.Join(root, "proc/1/root")
	if _, err := os.Stat(m.prefix + "/"); err != nil { // not allowed: our own mounts
		m.file, m.prefix = filepath.Join(root, "proc/self/mountinfo"), ""
	}
	m.asker = probe.NewAsker(patience, func(point string) (st unix.Statfs_t, err error) {
		return st, unix.Statfs(point, &st)
	})
	return m
}

func (m *mounts) read(ctx context.Context) ([]reading, error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	found := fillableMounts(text)
	var ask []string
	stats := make(map[string]unix.Statfs_t, len(found))
	for _, x := range found {
		path := m.prefix + x.Point
		if x.FSType != "tmpfs" {
			ask = append(ask, path)
			continue
		}
		var st unix.Statfs_t // of memory alone: there is nothing that could hang
		if unix.Statfs(path, &st) == nil {
			stats[path] = st
		}
	}
	m.asker.Ask(ctx, ask)
	for _, a := range m.asker.Answers() {
		if a.Known && !a.Hung {
			stats[a.Name] = a.Value
		}
	}
	var rs []reading
	for _, x := range found {
		if st, ok := stats[m.prefix+x.Point]; ok {
			rs = m.readings(rs, x, &st)
		}
	}
	return rs, nil
}

func (m *mounts) readings(rs []reading, x *procfs.Mount, st *unix.Statfs_t) []reading {
	users := func() []*User { return m.who.writers(x.Device) }
	// As df does: what is kept for root is not there for others.
	used := (st.Blocks - min(st.Bfree, st.Blocks)) * uint64(st.Frsize)
	if limit := used + st.Bavail*uint64(st.Frsize); limit > 0 {
		rs = append(rs, reading{
			resource: diskSpace, key: x.Device, instance: x.Point, name: "Space of " + x.Point, used: used, limit: limit, bytes: true, users: users,
		})
	}
	if st.Files > 0 && st.Ffree <= st.Files {
		rs = append(rs, reading{
			resource: inodes, key: x.Device, instance: x.Point, name: "Inodes of " + x.Point, used: st.Files - st.Ffree, limit: st.Files,
		})
	}
	return rs
}

// fillableMounts returns the file systems that can fill up, each once, by the shortest path.
func fillableMounts(text []byte) []*procfs.Mount {
	byID := map[string]*procfs.Mount{}
	for _, m := range procfs.ParseMounts(text) {
		if !fillable(&m) || has(m.Options, "ro") || has(m.Super, "ro") {
			continue
		}
		if old := byID[m.Device]; old == nil || len(m.Point) < len(old.Point) {
			byID[m.Device] = &m
		}
	}
	list := make([]*procfs.Mount, 0, len(byID))
	for _, x := range byID {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *procfs.Mount) int { return strings.Compare(a.Point, b.Point) })
	return list[:min(len(list), maxMounts)]
}

func has(options, one string) bool { return slices.Contains(strings.Split(options, ","), one) }

func fillable(x *procfs.Mount) bool {
	switch x.FSType {
	case "tmpfs":
		return true
	case "squashfs", "iso9660", "erofs", "devtmpfs": // full by nature, or no data
		return false
	}
	return strings.HasPrefix(x.Source, "/dev/") || slices.Contains(remote, x.FSType)
}
