package cgroup

import "strings"

// Kind is what a group is for.
type Kind uint8

// The kinds of group.
const (
	Plain     Kind = iota // made by hand or by a manager unknown here
	Root                  // the root of the hierarchy: the host itself
	Container             // a container, or something below it
	Pod                   // a Kubernetes pod, outside of its containers
	Unit                  // a systemd service, scope, socket, mount or swap
	Inner                 // holds workloads, is none: a slice, /docker, /kubepods/burstable
)

// Identity is what a group's path tells of the workload in it.
type Identity struct {
	Kind    Kind
	ID      string // container: its id, 64 hex digits for most runtimes
	Name    string // container: its name, when the path has it (LXC, nspawn, Nomad)
	Runtime string // docker, containerd, cri-o, podman, lxc, …; empty when the path does not tell
	PodUID  string // with dashes; a static pod's has none
	QoS     string // guaranteed, burstable, besteffort
	Unit    string // outermost systemd unit, when there is no container
	// Top is the path of the workload's own group: a group with a longer path
	// (/docker/<id>/init.scope) is part of it, and the kernel's counters of
	// Top include those of that group.
	Top string
}

// Workload tells whether the group at path is the top of a workload: what a
// collector of hierarchical counters should look at, and nothing twice.
func (id *Identity) Workload(path string) bool {
	return id.Top == path && (id.Kind == Container || id.Kind == Unit || id.Kind == Plain)
}

// Clean brings a path from /proc/PID/cgroup into the form that Identify gives
// back in Top: seen from inside a cgroup namespace a foreign path begins with
// /.. once or more, and that of a removed group ends in " (deleted)".
func Clean(path string) string {
	path = strings.TrimSuffix(path, " (deleted)")
	for strings.HasPrefix(path, "/..") && (len(path) == 3 || path[3] == '/') {
		path = path[3:]
	}
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return path
}

// Identify reads a group's path. The innermost container wins, because nodes
// run in containers (kind) and containers in containers (Docker in Docker);
// what is in a container and none itself, systemd units too, belongs to it.
func Identify(path string) Identity {
	path = Clean(path)
	if path == "/" {
		return Identity{Kind: Root, Top: "/"}
	}
	s := scanner{path: path}
	for pos := 1; pos <= len(path); {
		end := len(path)
		if i := strings.IndexByte(path[pos:], '/'); i >= 0 {
			end = pos + i
		}
		s.segment(path[pos:end], path[:end])
		s.parent, s.grand = path[pos:end], s.parent
		pos = end + 1
	}
	return s.finish()
}

// scanner walks the segments of a path, outermost first.
type scanner struct {
	path          string
	parent, grand string // the segments before this one
	pod           Identity
	container     Identity
	unit          Identity
	inner         bool // the last segment only holds others
}

func (s *scanner) segment(seg, top string) {
	s.inner = false
	if uid, qos, ok := podSegment(seg, s.parent); ok {
		s.enterPod(uid, qos, top)
		return
	}
	if id, ok := s.containerSegment(seg); ok {
		id.Kind, id.Top = Container, top
		if s.pod.PodUID != "" {
			id.PodUID, id.QoS = s.pod.PodUID, s.pod.QoS
		}
		s.container = id
		return
	}
	if s.container.ID != "" {
		return
	}
	switch {
	case strings.HasSuffix(seg, ".slice"):
		s.inner = true
	case isUnit(seg):
		if s.unit.Unit == "" {
			// systemd puts '_' before a name that would clash with a
			// controller's file.
			s.unit = Identity{Kind: Unit, Unit: strings.TrimPrefix(seg, "_"), Top: top}
		}
	default:
		s.inner = isInner(seg, s.parent)
	}
}

func (s *scanner) enterPod(uid, qos, top string) {
	if qos == "" {
		qos = s.pod.QoS
	}
	if uid == "" { // kubepods, or a class below it
		s.inner = true
		s.pod = Identity{QoS: qos}
		return
	}
	if qos == "" {
		qos = "guaranteed" // these pods have no group of their class
	}
	s.pod = Identity{Kind: Pod, PodUID: uid, QoS: qos, Top: top}
	s.container = Identity{} // that was the node
}

func (s *scanner) finish() Identity {
	switch {
	case s.container.ID != "":
		return s.container
	case s.pod.PodUID != "":
		return s.pod
	case s.unit.Unit != "":
		return s.unit
	case s.inner:
		id := Identity{Kind: Inner, Top: s.path}
		if strings.HasSuffix(s.path, ".slice") {
			id.Unit = s.parent
		}
		return id
	default:
		return Identity{Kind: Plain, Top: s.path}
	}
}

// isUnit tells whether seg is named like a systemd unit that holds processes.
func isUnit(seg string) bool {
	for _, suffix := range [...]string{".service", ".scope", ".socket", ".mount", ".swap"} {
		if len(seg) > len(suffix) && strings.HasSuffix(seg, suffix) {
			return true
		}
	}
	return false
}

// isInner tells whether seg is a group that a runtime makes to hold its
// containers.
func isInner(seg, parent string) bool {
	switch seg {
	case "docker", "ecs", "lxc", "lxc.payload", "garden", "libpod_parent", "machine", "nomad", "mesos", "kubelet", "k8s.io":
		return true
	case "buildkit":
		return parent == "docker"
	case "good", "bad":
		return parent == "garden"
	}
	return parent == "ecs" && isHex(seg, 32)
}
