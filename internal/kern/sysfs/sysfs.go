// Package sysfs reads attributes of devices below /sys: one value a file.
//
// Reading an attribute may ask the device, and then hang with it: call it where
// nobody waits (probe.Asker).
package sysfs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxBytes of an attribute: the kernel hands out no more than a page.
const maxBytes = 4096

// Text returns an attribute without the white space around it; false when there
// is none or it cannot be read.
func Text(parts ...string) (string, bool) {
	// Not os.Open, which asks first whether the file can be waited for.
	fd, err := retry(func() (int, error) { return unix.Open(filepath.Join(parts...), unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var buf [maxBytes]byte
	n, err := retry(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err != nil || n == 0 {
		return "", false
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(buf[:n])), "\uFFFD"), true
}

// Int returns an attribute that is a decimal number.
func Int(parts ...string) (int64, bool) {
	s, ok := Text(parts...)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}

// Uint returns an attribute that is a decimal number and not negative.
func Uint(parts ...string) (uint64, bool) {
	s, ok := Text(parts...)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil
}

// List returns the names of a folder's entries that begin with prefix, sorted;
// none when there is no such folder.
func List(dir, prefix string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// Link returns the last part of what a link leads to, as that of a device to
// its driver; empty when there is none.
func Link(parts ...string) string {
	to, err := os.Readlink(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// retry repeats a call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
