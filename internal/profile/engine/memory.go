//go:build !noprofiler

package engine

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Usage is what an engine has in the kernel. Make one with new and hand it to Run.
type Usage struct {
	mu       sync.Mutex
	maps     map[string]object
	programs []uint32
}

// begin notes what an engine has brought: what is there now and not in was.
func (u *Usage) begin(was map[string]object) error {
	now, err := objects()
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.maps, u.programs = map[string]object{}, nil
	for key, o := range now {
		if _, old := was[key]; old {
			continue
		}
		if o.program {
			u.programs = append(u.programs, o.id)
		} else {
			u.maps[key] = o
		}
	}
	return nil
}

func (u *Usage) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.maps, u.programs = nil, nil
}

// Programs lists the ids of the BPF programs.
func (u *Usage) Programs() []uint32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]uint32(nil), u.programs...)
}

// MapBytes is how much memory the BPF maps have: all of them, and of that the
// tables of executables, which are as many and as large as those are. The kernel
// charges it to the agent's control group, not to its resident memory.
func (u *Usage) MapBytes() (all, tables uint64, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, was := range u.maps {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", was.fd))
		if err != nil {
			continue // closed meanwhile
		}
		o := parseObject(b)
		if o.program || o.id != was.id {
			continue // another has that descriptor now
		}
		o.fd = was.fd
		inner, err := innerBytes(o)
		if err != nil {
			return 0, 0, err
		}
		all += o.memlock + inner
		tables += inner
	}
	return all, tables, nil
}

// innerBytes is what the tables in a map of tables have: one of each executable,
// in a map by its size. They are not counted with that map, and have no
// descriptor here.
func innerBytes(o object) (uint64, error) {
	fd, err := unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, fmt.Errorf("look at a map: %w", err)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return 0, fmt.Errorf("look at a map: %w", err)
	}
	defer m.Close()
	if m.Type() != ebpf.HashOfMaps {
		return 0, nil
	}
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("look at a map: %w", err)
	}
	var log2 uint
	if _, err := fmt.Sscanf(info.Name, "exe_id_to_%d_", &log2); err != nil || log2 > 30 {
		return 0, nil // none of those
	}
	key := make([]byte, m.KeySize())
	n := uint64(0)
	for err := m.NextKey(nil, &key); err == nil && n < uint64(m.MaxEntries()); err = m.NextKey(key, &key) {
		n++
	}
	const element = 8 // 4 bytes, rounded up as the kernel does for arrays
	return n << log2 * element, nil
}

const (
	// ringHertz sizes the unwinder's ring, at 25 kB a sample, for a second of the
	// longest stacks at this rate. It is read four times a second and most stacks
	// have 1 kB, so that there is room for a boost and for other types.
	ringHertz = 19
	// smallHost is up to how many CPUs a machine is thought to run few programs.
	smallHost = 8
)

// ring is the rate that the ring is made for.
func (e *Engine) ring() int { return max(ringHertz, e.o.Hertz/4, e.hooks.ringHertz()) }

// mapScale scales the unwinder's tables by powers of two. As they come they are
// for a million pages of code of 65,536 programs, and take 31 MB before the first.
func (e *Engine) mapScale() int {
	switch {
	case e.o.Small:
		return -4
	case runtime.NumCPU() <= smallHost:
		return -2
	}
	return 0
}

// frameCache is how many frames the unwinder keeps.
func (e *Engine) frameCache() uint32 {
	if e.o.Small {
		return 2048
	}
	return 16384
}
