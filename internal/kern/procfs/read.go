package procfs

import (
	"bytes"
	"io/fs"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ReadInto reads the whole file at path into buf, which it grows when it is
// too small, and returns the part that was filled. Give it what the last call
// returned and a steady reader allocates nothing.
//
// It is meant for files that the kernel makes while they are read (proc, sys,
// cgroup): it asks for no size first, and keeps the file out of the runtime's
// poller, which os.Open does not.
func ReadInto(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == unix.EINTR {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return buf[:0], &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf = buf[:0]
	for {
		// A proc file hands out whole records only: less room than a page may read as an early end.
		if cap(buf)-len(buf) < 4096 {
			buf = slices.Grow(buf, max(4096, cap(buf)))
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return buf[:0], &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

// Uints returns the numbers that stand before the first token that is none.
func Uints(b []byte) []uint64 {
	var out []uint64
	for f := range bytes.FieldsSeq(b) {
		v, ok := Uint(f)
		if !ok {
			break
		}
		out = append(out, v)
	}
	return out
}

// Uint parses a whole token of decimal digits. It allocates nothing.
func Uint(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	return v, err == nil
}

// Float parses a whole token as a decimal fraction without a sign. It allocates nothing.
func Float(b []byte) (float64, bool) {
	if len(b) == 0 || len(b) > 32 || b[0] < '0' || b[0] > '9' { // also refuses NaN and Inf
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil
}
