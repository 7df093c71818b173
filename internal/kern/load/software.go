package load

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// software are perf's events of software that programs are run on, by the name
// in their section: perf_event/<name>.
var software = map[string]uint64{"page_faults_maj": unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ}

// softwareLink is a program on an event of software, one perf event per CPU.
// A CPU that comes online later has none.
type softwareLink struct {
	link.Link // nil: nothing but Close is asked of it
	events    []int
}

// attachSoftware runs p at each occurrence of the event, on all CPUs.
func attachSoftware(name string, p *ebpf.Program) (link.Link, error) {
	event, ok := software[name]
	if !ok {
		return nil, fmt.Errorf("BUG: no event of software is called %q", name)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	l := &softwareLink{}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: event, Sample: 1, Size: unix.PERF_ATTR_SIZE_VER1}
	for cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) { // offline
			continue
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("open perf event %s: %w", name, err)
		}
		l.events = append(l.events, fd)
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD()); err != nil {
			l.Close()
			return nil, fmt.Errorf("give perf event %s a program: %w", name, err)
		}
	}
	return l, nil
}

// Close takes the program off the event.
func (l *softwareLink) Close() error {
	for _, fd := range l.events {
		unix.Close(fd)
	}
	l.events = nil
	return nil
}
