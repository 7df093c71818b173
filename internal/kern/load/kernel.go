// Package load brings BPF objects into the running kernel: it chooses for
// each hook the cheapest kind of attachment that this kernel accepts, loads
// each program on its own so that one refusal costs one hook, and tells what
// it chose and why.
package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Options of Open. The zero value uses what the kernel offers.
type Options struct {
	// BTF is a file with the kernel's type information (raw BTF or an ELF file
	// with a .BTF section), or a directory in which <release>.btf is looked
	// for, for kernels that carry none. Empty: /sys/kernel/btf/vmlinux.
	BTF string
	// Kinds restricts the kinds of attachment that may be used. Empty: all.
	Kinds []string
	// Ring is "ringbuf", "perf", or "" and "auto" to let the kernel decide.
	Ring string
	// Flavour is "modern", "legacy", or "" and "auto" to let the kernel decide.
	Flavour string
	// CgroupController is the v1 controller whose hierarchy names workloads
	// ("cpu"); empty for the default hierarchy.
	CgroupController string
}

// Kernel is the running kernel as a loader of BPF sees it. It is safe for
// concurrent use.
type Kernel struct {
	typesMu  sync.Mutex
	released bool
	types    *btf.Spec // nil: no BTF, programs that need CO-RE cannot be loaded
	typesOf  string    // "kernel", a path, or why there are none
	cache    *btf.Cache
	ring     bool
	legacy   string // why the legacy flavour is taken; empty: it is not
	subsys   int32
	memlock  error // why this process may lock no more memory
	opts     Options

	permit sync.Once
	denied error // why this process may load no program

	mu    sync.Mutex
	kinds map[kind]error
}

// Open finds out what the kernel offers. Missing BTF is not an error: programs
// that need it will say so. An unusable Options.BTF is one.
func Open(o Options) (*Kernel, error) {
	k := &Kernel{opts: o, subsys: -1, cache: btf.NewCache(), kinds: map[kind]error{}}
	// Before d5299b67dd59 ("bpf: Memcg-based memory accounting for bpf maps"),
	// v5.11, maps and programs count as locked memory, of which a process has
	// 64 KiB by default. Newer kernels are left as they are.
	k.memlock = rlimit.RemoveMemlock()
	if err := k.loadTypes(); err != nil {
		return nil, err
	}
	for _, s := range o.Kinds {
		if !slices.Contains(Kinds(), s) {
			return nil, fmt.Errorf("unknown kind of hook %q: want some of %s", s, strings.Join(Kinds(), ", "))
		}
	}
	switch o.Ring {
	case "", "auto":
		k.ring = haveRing()
	case "ringbuf":
		k.ring = true
	case "perf":
	default:
		return nil, fmt.Errorf("unknown ring %q: want auto, ringbuf or perf", o.Ring)
	}
	if err := k.chooseFlavour(); err != nil {
		return nil, err
	}
	if o.CgroupController != "" {
		k.subsys = k.controllerIndex(o.CgroupController)
	}
	return k, nil
}

// BTF tells where the type information comes from: "kernel", a path, or "none".
func (k *Kernel) BTF() string { return k.typesOf }

// Ring tells how events travel: "ringbuf" or "perf".
func (k *Kernel) Ring() string {
	if k.ring {
		return "ringbuf"
	}
	return "perf"
}

// Types returns the kernel's type information, nil when there is none.
func (k *Kernel) Types() *btf.Spec {
	s, _ := k.typesAndCache()
	return s
}

// Release gives back the memory that the type information takes, some 10 MB.
// It is read again when it is needed: when a probe is loaded later.
func (k *Kernel) Release() {
	k.typesMu.Lock()
	defer k.typesMu.Unlock()
	if k.types != nil {
		k.types, k.cache, k.released = nil, btf.NewCache(), true
	}
}

func (k *Kernel) typesAndCache() (*btf.Spec, *btf.Cache) {
	k.typesMu.Lock()
	defer k.typesMu.Unlock()
	if k.released {
		k.released = false
		if err := k.loadTypes(); err != nil {
			k.types = nil // the file of Options.BTF has gone: programs will say that there are no types
		}
	}
	return k.types, k.cache
}

func (k *Kernel) loadTypes() error {
	if k.opts.BTF == "" {
		s, err := k.cache.Kernel()
		k.types, k.typesOf = s, "kernel"
		if err != nil {
			k.types, k.typesOf = nil, "none"
		}
		return nil
	}
	path, err := findBTF(k.opts.BTF)
	if err != nil {
		return err
	}
	k.types, err = btf.LoadSpec(path)
	if err != nil {
		return fmt.Errorf("load BTF from %s: %w (want raw BTF or an ELF file with a .BTF section of this very kernel)", path, err)
	}
	k.typesOf = path
	return nil
}

// findBTF resolves a file, or a directory that holds <release>.btf at any
// depth (the layout of BTFHub archives, unpacked).
func findBTF(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find BTF: %w", err)
	}
	if !st.IsDir() {
		return path, nil
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("find BTF: %w", err)
	}
	want := unix.ByteSliceToString(u.Release[:]) + ".btf"
	var found string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() == want {
			found = p
			return fs.SkipAll
		}
		return nil // an unreadable corner must not hide the file elsewhere
	})
	if err != nil {
		return "", fmt.Errorf("find BTF: %w", err)
	}
	if found == "" {
		return "", fmt.Errorf("find BTF: no %s below %s", want, path)
	}
	return found, nil
}

// controllerIndex returns the value of enum cgroup_subsys_id for a v1
// controller, which depends on the kernel's configuration, or -1.
func (k *Kernel) controllerIndex(name string) int32 {
	types := k.Types()
	if types == nil {
		return -1
	}
	var e *btf.Enum
	if err := types.TypeByName("cgroup_subsys_id", &e); err != nil {
		return -1
	}
	for _, v := range e.Values {
		if v.Name == name+"_cgrp_id" {
			return int32(v.Value)
		}
	}
	return -1
}

// haveRing tells whether the kernel has BPF ring buffers (5.8), by making one.
func haveRing() bool {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		return !errors.Is(err, unix.EINVAL) && !errors.Is(err, ebpf.ErrNotSupported)
	}
	m.Close()
	return true
}

// Usable returns nil when this process may load tracing programs at all, and
// otherwise an error that says what it lacks.
func (k *Kernel) Usable() error {
	err := loadTrivial()
	if err == nil {
		if k.memlock != nil {
			return fmt.Errorf("raise the limit of locked memory, as BPF maps need before Linux 5.11: %w: give this process CAP_SYS_RESOURCE, or start it with `ulimit -l unlimited`", k.memlock)
		}
		return nil
	}
	if !forbidden(err) {
		return fmt.Errorf("load a trivial BPF program: %w", err)
	}
	if os.Geteuid() == 0 {
		return fmt.Errorf("this process may not load BPF programs although it is root: the container or a security module withholds CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN before Linux 5.8)")
	}
	return fmt.Errorf("this process may not load BPF programs: run as root, or give it the capabilities CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8), for example with `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep huatuo`")
}
