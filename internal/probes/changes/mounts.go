package changes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
)

// maxMounts bounds what is remembered: each container adds some ten.
const maxMounts = 4096

// mounts compares the options of mounts. The kernel tells a reader of mountinfo
// that it is another one, so that a round in which nothing happened costs one
// system call.
type mounts struct {
	file  string
	fd    int // open, to be told; -1: not yet. Not an os.File: the runtime would be told instead
	known map[int]mount
}

type mount struct {
	point, source, fstype string
	options               string // of the mount, and of the file system
}

func newMounts(root string) *mounts {
	m := &mounts{file: filepath.Join(root, "proc/1/mountinfo"), fd: -1}
	if f, err := os.Open(m.file); err != nil { // not allowed: our own mounts
		m.file = filepath.Join(root, "proc/self/mountinfo")
	} else {
		f.Close()
	}
	return m
}

func (m *mounts) look() ([]change, error) {
	if m.fd >= 0 && !m.told() {
		return nil, nil
	}
	if m.fd < 0 {
		fd, err := unix.Open(m.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open mounts: %w", err)
		}
		m.fd = fd
	}
	text, err := os.ReadFile(m.file)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return m.compare(mountsByID(text)), nil
}

// told tells whether the kernel has changed the list since the last call.
func (m *mounts) told() bool {
	p := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLPRI}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0
}

func (m *mounts) compare(found map[int]mount) (out []change) {
	for id, is := range found {
		was, known := m.known[id]
		if !known || was.options == is.options || was.point != is.point || was.fstype != is.fstype || was.source != is.source {
			continue
		}
		gone, come := differ(was.options, is.options)
		if readOnly(gone, come) {
			continue
		}
		out = append(out, change{
			what: "mount", setting: "options", target: is.point, old: strings.Join(gone, ","), new: strings.Join(come, ","),
			title: fmt.Sprintf("options of %s on %s", is.fstype, is.point),
		})
	}
	slices.SortFunc(out, func(a, b change) int { return strings.Compare(a.target, b.target) })
	m.known = found
	return out
}

// differ returns the options that the one has and the other has not.
func differ(was, is string) (gone, come []string) {
	a, b := strings.Split(was, ","), strings.Split(is, ",")
	for _, o := range a {
		if !slices.Contains(b, o) {
			gone = append(gone, o)
		}
	}
	for _, o := range b {
		if !slices.Contains(a, o) {
			come = append(come, o)
		}
	}
	return gone, come
}

// readOnly tells whether all that happened is that it can no longer be written: the probe fs has an event for that.
func readOnly(gone, come []string) bool {
	is := func(o string) bool { return slices.Contains([]string{"ro", "emergency_ro", "shutdown"}, o) }
	if len(come) == 0 || slices.ContainsFunc(gone, func(o string) bool { return o != "rw" }) {
		return false
	}
	return !slices.ContainsFunc(come, func(o string) bool { return !is(o) })
}

func mountsByID(text []byte) map[int]mount {
	all := map[int]mount{}
	for _, m := range procfs.ParseMounts(text) {
		if len(all) == maxMounts {
			break
		}
		options := strings.Split(m.Options, ",")
		for _, o := range strings.Split(m.Super, ",") {
			if !slices.Contains(options, o) { // rw stands in both
				options = append(options, o)
			}
		}
		all[m.ID] = mount{strings.ToValidUTF8(m.Point, "\uFFFD"), m.Source, m.FSType, strings.ToValidUTF8(strings.Join(options, ","), "\uFFFD")}
	}
	return all
}

func (m *mounts) close() {
	if m.fd >= 0 {
		unix.Close(m.fd)
	}
}
