package procfs

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"
)

// NetNS returns the number of a process' network namespace, as ls -l
// /proc/PID/ns/net shows it.
func (f *FS) NetNS(pid uint32) (uint32, error) {
	var link [64]byte
	n, err := retry(func() (int, error) { return unix.Readlink(f.path(pid, "ns/net"), link[:]) })
	if err != nil {
		return 0, gone(pid, "ns/net", err)
	}
	b, ok := bytes.CutPrefix(link[:n], []byte("net:["))
	b, end := bytes.CutSuffix(b, []byte("]"))
	v, digits := Uint(b)
	if !ok || !end || !digits || v > 1<<32-1 {
		return 0, gone(pid, "ns/net", unix.EINVAL)
	}
	return uint32(v), nil
}

// NetNamespaces returns a process of each network namespace, by its number: the
// oldest by process id, whose /proc/PID/net shows the namespace. No more than
// limit are returned, those of the oldest processes.
func (f *FS) NetNamespaces(limit int) (map[uint32]uint32, error) {
	pids, err := f.Pids()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	of := make(map[uint32]uint32)
	for _, pid := range pids {
		ns, err := f.NetNS(pid)
		if err != nil {
			continue // it has ended
		}
		if _, known := of[ns]; !known && len(of) < limit {
			of[ns] = pid
		}
	}
	return of, nil
}
