package limits

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// knobs reads the counters and limits of the host below /proc/sys. They are
// sums of counters of the CPUs: no read waits for anybody.
type knobs struct {
	dir string
	buf []byte
}

// endless is a limit that is none: systemd sets fs.file-max to 2^63-1.
const endless = 1 << 62

func (k *knobs) collect(b *signal.Batch) error {
	err := k.read("fs/file-nr", 3, func(n []uint64) {
		b.Value(filesOpen, float64(n[0]))
		if n[2] < endless {
			b.Value(filesLimit, float64(n[2]))
		}
	})
	err = errors.Join(err, k.read("fs/inode-nr", 2, func(n []uint64) {
		b.Value(inodes, float64(n[0]-min(n[1], n[0])), "used")
		b.Value(inodes, float64(n[1]), "unused")
	}))
	// The fifth number counts negative ones since af0c9af1b3f6 ("fs/dcache: Track & report number of negative dentries"), v5.0; it is 0 before.
	err = errors.Join(err, k.read("fs/dentry-state", 5, func(n []uint64) {
		b.Value(names, float64(n[0]-min(n[1], n[0])), "used")
		b.Value(names, float64(n[1]-min(n[4], n[1])), "unused")
		b.Value(names, float64(n[4]), "negative")
	}))
	err = errors.Join(err, k.read("kernel/threads-max", 1, func(n []uint64) { b.Value(tasksLimit, float64(n[0]), "threads_max") }))
	return errors.Join(err, k.read("kernel/pid_max", 1, func(n []uint64) { b.Value(tasksLimit, float64(n[0]), "pid_max") }))
}

// read hands the numbers of a file to f, when there are at least so many. A file that is not there gives none.
func (k *knobs) read(name string, least int, f func([]uint64)) error {
	b, err := procfs.ReadInto(k.dir+"/"+name, k.buf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	k.buf = b
	if n := numbers(b); len(n) >= least {
		f(n)
		return nil
	}
	return fmt.Errorf("parse %s: not %d numbers: %.40q", name, least, b)
}

// numbers reads what stands before the first token that is no number: dentry-state
// may have a negative one at its end.
func numbers(b []byte) []uint64 {
	var out []uint64
	for f := range bytes.FieldsSeq(b) {
		v, ok := procfs.Uint(f)
		if !ok {
			break
		}
		out = append(out, v)
	}
	return out
}
