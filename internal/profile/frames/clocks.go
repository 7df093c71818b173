package frames

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/sysfs"
)

var errClosed = errors.New("the clocks are stopped")

// clocks are the perf events that run the program, one per CPU that is online.
type clocks struct {
	id uint32 // of prog; 0: not known

	mu     sync.Mutex
	prog   *ebpf.Program // nil: closed
	period uint64        // ns; 0: stopped
	events map[int]int   // descriptor by CPU
	last   uint64        // missed, as it was read last
}

// newClocks loads the program of spec, with the maps that are made already.
func newClocks(spec *ebpf.CollectionSpec, maps *load.Object) (*clocks, error) {
	made := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := maps.Map(name); m != nil {
			made[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: made})
	if err != nil {
		return nil, wrap("load the program of CPU clocks", err, errors.Is(err, ebpf.ErrNotSupported))
	}
	defer c.Close()
	k := &clocks{prog: c.DetachProgram("on_clock"), events: map[int]int{}}
	if info, err := k.prog.Info(); err == nil {
		if id, ok := info.ID(); ok {
			k.id = uint32(id)
		}
	}
	return k, nil
}

// start runs the program on all CPUs, so often in a second.
func (c *clocks) start(hertz int) (stop func(), err error) {
	c.mu.Lock()
	c.period = uint64(time.Second) / uint64(hertz)
	c.mu.Unlock()
	if err := c.follow(); err != nil {
		c.stop()
		return nil, err
	}
	return c.stop, nil
}

func (c *clocks) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.period = 0
	for _, fd := range c.events {
		unix.Close(fd)
	}
	clear(c.events)
}

// follow starts the clocks of CPUs that are online and have none, and ends those
// of CPUs that have gone: an event does not come back with its CPU. A CPU that
// went and came back between two calls is not noticed.
func (c *clocks) follow() error {
	cpus, err := sysfs.OnlineCPUs()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog == nil {
		return errClosed
	}
	if c.period == 0 {
		return nil
	}
	for cpu, fd := range c.events {
		if !slices.Contains(cpus, cpu) {
			unix.Close(fd)
			delete(c.events, cpu)
		}
	}
	for _, cpu := range cpus {
		if _, ok := c.events[cpu]; ok {
			continue
		}
		fd, err := openClock(cpu, c.period, c.prog)
		if errors.Is(err, unix.ENODEV) { // went offline just now
			continue
		}
		if err != nil {
			return err
		}
		c.events[cpu] = fd
	}
	return nil
}

// openClock starts the clock of a CPU. It is one of software: it needs no PMU,
// and cannot interrupt what has interrupts off, whose time is counted where they
// come on again.
func openClock(cpu int, period uint64, p *ebpf.Program) (int, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: unix.PERF_ATTR_SIZE_VER1,
		Sample: period, Bits: unix.PerfBitDisabled | unix.PerfBitExcludeIdle,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, wrap(fmt.Sprintf("open the clock of CPU %d", cpu), err, errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOENT))
	}
	err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, wrap(fmt.Sprintf("run a program by the clock of CPU %d", cpu), err, errors.Is(err, unix.EOPNOTSUPP))
	}
	return fd, nil
}

// missed is how many samples the kernel left out, because a BPF program was
// running on that CPU already, since the start (counted since Linux 5.12).
func (c *clocks) missed() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog == nil {
		return c.last
	}
	if st, err := c.prog.Stats(); err == nil {
		c.last = st.RecursionMisses
	}
	return c.last
}

// close ends all clocks. It may be called again.
func (c *clocks) close() {
	c.missed()
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prog != nil {
		c.prog.Close()
		c.prog = nil
	}
}
