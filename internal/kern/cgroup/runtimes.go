package cgroup

import "strings"

// podSegment recognises the groups that the kubelet makes above containers:
//
//	kubepods, burstable, besteffort, pod<uid>                       cgroupfs driver
//	[root-]kubepods[-burstable|-besteffort][-pod<uid_>].slice        systemd driver
//
// It returns what the segment tells of the pod; both empty for kubepods itself.
func podSegment(seg, parent string) (uid, qos string, ok bool) {
	switch {
	case seg == "kubepods":
		return "", "", true
	case parent == "kubepods" && (seg == "burstable" || seg == "besteffort"):
		return "", seg, true
	}
	if name, found := strings.CutPrefix(seg, "pod"); found && isPodUID(name) {
		return name, "", true
	}
	name, found := strings.CutSuffix(seg, ".slice")
	if !found {
		return "", "", false
	}
	i := strings.LastIndex(name, "kubepods")
	if i < 0 || (i > 0 && name[i-1] != '-') {
		return "", "", false
	}
	name = name[i+len("kubepods"):]
	for _, class := range [...]string{"burstable", "besteffort"} {
		if rest, found := strings.CutPrefix(name, "-"+class); found {
			name, qos = rest, class
			break
		}
	}
	if name == "" {
		return "", qos, true
	}
	if uid, found = strings.CutPrefix(name, "-pod"); found {
		// systemd reads '-' in a slice's name as a level, so the kubelet
		// writes '_'.
		if uid = strings.ReplaceAll(uid, "_", "-"); isPodUID(uid) {
			return uid, qos, true
		}
	}
	return "", "", false
}

// isPodUID tells a UUID, or the 32 hex digits of a static pod.
func isPodUID(s string) bool { return isUUID(s) || isHex(s, 32) }

// containerSegment recognises the group of a container.
func (s *scanner) containerSegment(seg string) (Identity, bool) {
	name, scope := strings.CutSuffix(seg, ".scope")
	// What a runtime in cgroupfs mode makes of a cgroupsPath in systemd form:
	// kubepods-burstable-pod<uid>.slice:cri-containerd:<id>.
	if slice, rest, ok := strings.Cut(name, ":"); ok {
		if prefix, id, ok := strings.Cut(rest, ":"); ok && isHex(id, 64) {
			if uid, qos, ok := podSegment(slice, ""); ok && uid != "" {
				s.enterPod(uid, qos, "")
			}
			return Identity{ID: id, Runtime: runtimeOf(prefix)}, true
		}
	}
	if id, ok := prefixed(name); ok {
		return id, true
	}
	if isHex(seg, 64) {
		if s.parent == "libpod_parent" {
			return Identity{}, false // a pod of podman: its containers have a prefix
		}
		return Identity{ID: seg, Runtime: s.runtimeAbove()}, true
	}
	return s.named(seg, name, scope)
}

// prefixed recognises <runtime>-<id>, with and without .scope. A monitor of a
// container (conmon) runs outside of it, in a group with nearly its name.
func prefixed(name string) (Identity, bool) {
	prefix, id := name, ""
	if i := strings.LastIndexAny(name, "-_"); i > 0 {
		prefix, id = name[:i], name[i+1:]
	}
	if (prefix == "docker" || prefix == "buildkit") && isWord(id) {
		return Identity{ID: id, Runtime: "buildkit"}, true // Docker builds in scopes of its own name
	}
	// 64 digits whatever the prefix; a shorter one could be a word (…-cafe.scope).
	if !isHex(id, 64) || strings.HasSuffix(prefix, "conmon") {
		return Identity{}, false
	}
	return Identity{ID: id, Runtime: runtimeOf(prefix)}, true
}

// runtimeOf maps the prefix of a scope to the name of the runtime.
func runtimeOf(prefix string) string {
	switch prefix {
	case "cri-containerd", "nerdctl":
		return "containerd"
	case "crio":
		return "cri-o"
	case "libpod", "libpod-payload": // the latter with --cgroups=split
		return "podman"
	}
	return prefix // docker, buildkit, kata, …
}

// runtimeAbove guesses the runtime of a bare id from the groups above it.
func (s *scanner) runtimeAbove() string {
	switch {
	case s.pod.PodUID != "":
		return "containerd" // with the cgroupfs driver; CRI-O's have a prefix
	case s.grand == "ecs":
		return "ecs"
	}
	switch s.parent {
	case "docker":
		return "docker"
	case "default", "k8s.io":
		return "containerd" // its namespaces: nerdctl, and CRI without a parent
	case "buildkit", "garden", "mesos", "ecs":
		return s.parent
	}
	return ""
}

// named recognises containers that have no 64 digits.
func (s *scanner) named(seg, name string, scope bool) (Identity, bool) {
	switch {
	case strings.HasPrefix(seg, "lxc.payload."): // LXC from 4.0, LXD, Incus
		return namedIdentity("lxc", seg[len("lxc.payload."):])
	case s.parent == "lxc.payload", s.parent == "lxc": // LXC 3, and before
		return namedIdentity("lxc", seg)
	case s.parent == "machine.slice":
		return machine(name, scope)
	case s.parent == "machine" && strings.HasSuffix(seg, ".libvirt-qemu"):
		return namedIdentity("qemu", strings.TrimSuffix(seg, ".libvirt-qemu"))
	case s.grand == "ecs" && s.isFargate(seg):
		return Identity{ID: seg, Runtime: "ecs"}, true
	case s.parent == "buildkit" && isWord(seg):
		return Identity{ID: seg, Runtime: "buildkit"}, true
	case s.parent == "garden" && seg != "good" && seg != "bad",
		s.grand == "garden" && (s.parent == "good" || s.parent == "bad"):
		return Identity{ID: seg, Runtime: "garden"}, true
	case s.parent == "mesos":
		return Identity{ID: seg, Runtime: "mesos"}, true
	case s.parent == "nomad", scope && (s.parent == "nomad.slice" || s.grand == "nomad.slice"):
		// <allocation>.<task>, in v2 below share.slice or reserve.slice.
		if len(name) > 37 && name[36] == '.' && isUUID(name[:36]) {
			return Identity{ID: name, Name: name[37:], Runtime: "nomad"}, true
		}
	}
	return Identity{}, false
}

// machine recognises what systemd-machined registers below machine.slice.
func machine(name string, scope bool) (Identity, bool) {
	if scope {
		if m, ok := strings.CutPrefix(name, "machine-"); ok {
			m = unescapeUnit(m)
			switch {
			case strings.HasPrefix(m, "qemu-"):
				return namedIdentity("qemu", m)
			case strings.HasPrefix(m, "lxc-"):
				return namedIdentity("lxc", m)
			}
			return namedIdentity("systemd-nspawn", m)
		}
		return Identity{}, false
	}
	if m, ok := strings.CutPrefix(name, "systemd-nspawn@"); ok {
		if m, ok = strings.CutSuffix(m, ".service"); ok {
			return namedIdentity("systemd-nspawn", unescapeUnit(m))
		}
	}
	return Identity{}, false
}

func namedIdentity(runtime, name string) (Identity, bool) {
	return Identity{ID: name, Name: name, Runtime: runtime}, name != ""
}

// isFargate tells <task>-<number>, the form of an ECS task on Fargate.
func (s *scanner) isFargate(seg string) bool {
	task, n, ok := strings.Cut(seg, "-")
	return ok && task == s.parent && n != "" && strings.Trim(n, "0123456789") == ""
}

// unescapeUnit undoes systemd's escapes in a unit's name: \x2d is '-'.
func unescapeUnit(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+3 < len(s) && s[i] == '\\' && s[i+1] == 'x' && isHexDigit(s[i+2]) && isHexDigit(s[i+3]) {
			b.WriteByte(nibble(s[i+2])<<4 | nibble(s[i+3]))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isHexDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// isHex tells whether s is n lower-case hex digits.
func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

// isUUID tells the 8-4-4-4-12 form.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !isHexDigit(s[i]) {
				return false
			}
		}
	}
	return true
}

// isWord tells 25 lower-case letters and digits: an id of BuildKit.
func isWord(s string) bool {
	return len(s) == 25 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
