//go:build !noprofiler

package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/sysfs"
)

// entryName is the program that a CPU's clock runs; the kernel keeps 15 bytes of it.
const entryName = "native_tracer_entry"

// The CPUs' clocks are started here and not by the unwinder, which opens them at
// one rate for its whole life.

// findEntry returns the unwinder's entry program, which is one of the
// descriptors of this process: the library does not hand it out. was are the
// descriptors that were there before the library loaded it.
func findEntry(was map[string]object) (*ebpf.Program, error) {
	now, err := objects()
	if err != nil {
		return nil, err
	}
	for key, o := range now {
		if _, old := was[key]; old || !o.program {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue // closed meanwhile
		}
		p, err := ebpf.NewProgramFromFD(fd)
		if err != nil { // which has closed it
			continue
		}
		if info, err := p.Info(); err == nil && len(info.Name) >= 15 && strings.HasPrefix(entryName, info.Name) {
			return p, nil
		}
		p.Close()
	}
	return nil, errors.New("the unwinder's entry program is not there")
}

// object is a BPF program or map that a descriptor of this process stands for.
type object struct {
	fd      int
	id      uint32
	program bool // else a map
	memlock uint64
}

// objects lists the BPF programs and maps that this process has descriptors of,
// by kind and id.
func objects() (map[string]object, error) {
	const dir = "/proc/self/fdinfo/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	out := map[string]object{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || link != "anon_inode:bpf-map" && link != "anon_inode:bpf-prog" {
			continue
		}
		b, err := os.ReadFile(dir + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		o := parseObject(b)
		o.fd = fd
		out[strings.TrimPrefix(link, "anon_inode:")+strconv.FormatUint(uint64(o.id), 10)] = o
	}
	return out, nil
}

// parseObject reads the kernel's lines about a BPF object.
func parseObject(fdinfo []byte) (o object) {
	for s := bufio.NewScanner(bytes.NewReader(fdinfo)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "prog_id":
			o.program, o.id = true, uint32(n)
		case "map_id":
			o.id = uint32(n)
		case "memlock":
			o.memlock = n
		}
	}
	return o
}

// startClocks runs p on all CPUs that are online, so often in a second.
func startClocks(p *ebpf.Program, hertz int) (stop func(), err error) {
	return onEachCPU(p, unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: unix.PERF_ATTR_SIZE_VER1,
		Sample: uint64(time.Second) / uint64(hertz), Bits: unix.PerfBitDisabled | unix.PerfBitExcludeIdle,
	})
}

// onEachCPU runs a program at events of perf's, until stop is called.
func onEachCPU(p *ebpf.Program, attr unix.PerfEventAttr) (stop func(), err error) {
	cpus, err := sysfs.OnlineCPUs()
	if err != nil {
		return nil, err
	}
	var fds []int
	stop = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	for _, cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			continue // went offline just now
		}
		if err == nil {
			fds = append(fds, fd)
			err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("run a program at events of CPU %d: %w", cpu, err)
		}
	}
	if len(fds) == 0 {
		return nil, fmt.Errorf("run a program at events of the CPUs: %w", unix.ENODEV)
	}
	for _, fd := range fds { // together: a rate begins on all CPUs
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			stop()
			return nil, fmt.Errorf("run a program at events of a CPU: %w", err)
		}
	}
	return stop, nil
}
