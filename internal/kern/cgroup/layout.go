// Package cgroup knows the host's control groups: which hierarchies there are
// and where they are mounted, the id of each group, and what a group's path
// tells of the workload in it.
//
// The identity of a workload is one cgroup id, so one hierarchy must give it:
// the default (v2) hierarchy where it holds the cpu controller, else the v1 cpu
// hierarchy. In hybrid mode the unified tree exists as well, but groups made by
// hand or by older runtimes are missing there. BPF programs must take the id
// from the same place: task->cgroups->dfl_cgrp->kn->id when Layout.Unified is
// set, else task->cgroups->subsys[cpu_cgrp_id]->cgroup->kn->id.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mode says which versions of control groups are mounted.
type Mode string

// The modes.
const (
	V1     Mode = "v1"     // v1 hierarchies only
	V2     Mode = "v2"     // the default hierarchy only
	Hybrid Mode = "hybrid" // v1 hierarchies with controllers, and the default hierarchy beside them
)

// Layout is where the control groups of the host are found.
type Layout struct {
	Mode Mode
	// Unified tells that the default hierarchy gives a workload's identity;
	// otherwise the v1 cpu hierarchy does.
	Unified bool
	// IdentityRoot is the directory of the root of the hierarchy that gives
	// the identity.
	IdentityRoot string

	v2 string            // mount point of the default hierarchy, "" when there is none
	v1 map[string]string // controller (or "name=…") → mount point
}

// ErrNone tells that no hierarchy can give a workload's identity: no control
// groups are mounted, or none with the cpu controller.
var ErrNone = fmt.Errorf("no cgroup hierarchy with the cpu controller is mounted: %w", errors.ErrUnsupported)

// Detect finds the hierarchies of the host whose root is seen at root: "/" in
// production on the host, the place where it is mounted in a container.
func Detect(root string) (*Layout, error) {
	b, err := readMountinfo(root)
	if err != nil {
		return nil, fmt.Errorf("detect cgroups: %w", err)
	}
	l := &Layout{v1: make(map[string]string)}
	mounts := parseMountinfo(string(b))
	// A hierarchy may be mounted more than once. The mount that shows it from
	// its root wins over one that shows a container's part of it, a short
	// path over a long one, and what cannot be seen from here is left out.
	slices.SortStableFunc(mounts, func(a, b mount) int {
		if a.whole() != b.whole() {
			if a.whole() {
				return -1
			}
			return 1
		}
		return len(a.point) - len(b.point)
	})
	for _, m := range mounts {
		m.point = filepath.Join(root, m.point)
		if fi, err := os.Stat(m.point); err != nil || !fi.IsDir() {
			continue
		}
		if m.fstype == "cgroup2" {
			if l.v2 == "" {
				l.v2 = m.point
			}
			continue
		}
		for _, o := range m.controllers() {
			if l.v1[o] == "" {
				l.v1[o] = m.point
			}
		}
	}
	return l, l.choose()
}

func (l *Layout) choose() error {
	v1 := false
	for c := range l.v1 {
		v1 = v1 || !strings.HasPrefix(c, "name=") // a named hierarchy has no controller
	}
	switch {
	case l.v2 != "" && v1:
		l.Mode = Hybrid
	case l.v2 != "":
		l.Mode = V2
	default:
		l.Mode = V1
	}
	switch {
	case l.v1["cpu"] != "":
		l.IdentityRoot = l.v1["cpu"]
	case l.v2 != "":
		l.IdentityRoot, l.Unified = l.v2, true
	default:
		return ErrNone
	}
	return nil
}

// readMountinfo prefers the mounts of process 1 below a foreign root: there the
// mount points of this process' own namespace are not those of the host.
func readMountinfo(root string) ([]byte, error) {
	if filepath.Clean(root) != "/" {
		if b, err := os.ReadFile(filepath.Join(root, "proc/1/mountinfo")); err == nil {
			return b, nil
		}
	}
	return os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
}

// mount is one line of mountinfo.
type mount struct {
	root, point, fstype, super string
}

func (m *mount) whole() bool { return m.root == "/" }

// controllers returns the v1 controllers of the mount, and "name=…" of a named
// hierarchy.
func (m *mount) controllers() []string {
	var cs []string
	for o := range strings.SplitSeq(m.super, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			cs = append(cs, o)
		case o == "cpu", o == "cpuacct", o == "cpuset", o == "memory", o == "blkio", o == "devices",
			o == "freezer", o == "net_cls", o == "net_prio", o == "perf_event", o == "hugetlb",
			o == "pids", o == "rdma", o == "misc":
			cs = append(cs, o)
		}
	}
	return cs
}

func parseMountinfo(s string) []mount {
	var ms []mount
	for line := range strings.SplitSeq(s, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 || (r[0] != "cgroup" && r[0] != "cgroup2") {
			continue
		}
		m := mount{root: unescape(l[3]), point: unescape(l[4]), fstype: r[0]}
		if len(r) > 2 {
			m.super = r[2]
		}
		ms = append(ms, m)
	}
	return ms
}

// unescape undoes the octal escapes of mountinfo: \040 and friends.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// Mount returns the mount point of a v1 controller ("cpu", "memory",
// "name=systemd"), or of the default hierarchy when controller is empty; ""
// when it is not mounted.
func (l *Layout) Mount(controller string) string {
	if controller == "" {
		return l.v2
	}
	return l.v1[controller]
}

// IsV1 tells whether controller has a v1 hierarchy: whether FileIn answers with
// files of the v1 form for it.
func (l *Layout) IsV1(controller string) bool { return l.v1[controller] != "" }

// FileIn returns where a controller's file of the group with that path is: in
// the controller's v1 hierarchy when it has one, else in the default hierarchy,
// and "" when neither is mounted. The files that only the default hierarchy
// has (*.pressure) are looked for there. It does not ask whether the file
// exists: in hybrid mode a group may be missing in some hierarchies.
func (l *Layout) FileIn(controller, path, file string) string {
	dir := l.v1[controller]
	if dir == "" || strings.HasSuffix(file, ".pressure") {
		dir = l.v2
	}
	if dir == "" {
		return ""
	}
	if path == "/" {
		path = ""
	}
	return dir + path + "/" + file
}

// ProcPath chooses from path(controller), a process' place in the hierarchies
// as procfs.Cgroups tells it, the one in the hierarchy that gives the identity.
func (l *Layout) ProcPath(path func(controller string) string) string {
	if l.Unified {
		return path("")
	}
	return path("cpu")
}
