// Package frozenfs mounts a small file system of its own and freezes it: who
// then writes to it waits and cannot be interrupted, until it is thawed. It
// needs root, a loop device and ext4, and no tools.
package frozenfs

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// image is an empty ext4 file system of 256 KiB without a journal, made by
// mkfs.ext4 -O ^has_journal,^resize_inode,^metadata_csum,^64bit -N 16 -m 0 -b 1024.
//
//go:embed ext4.img.gz
var image []byte

// FIFREEZE and FITHAW of include/uapi/linux/fs.h.
const (
	fifreeze = 0xc0045877
	fithaw   = 0xc0045878
)

// FS is a mounted file system.
type FS struct {
	Dir    string // where it is mounted
	loop   *os.File
	root   *os.File // keeps Dir at hand: opening it would not hang, but unmounting must not race
	frozen bool
}

// New mounts the file system below dir, an empty directory. Close it.
func New(dir string) (*FS, error) {
	file := filepath.Join(dir, "image")
	if err := unpack(file); err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	loop, err := attach(file)
	if err != nil {
		return nil, fmt.Errorf("attach the image to a loop device: %w", err)
	}
	f := &FS{Dir: filepath.Join(dir, "mnt"), loop: loop}
	if err := os.Mkdir(f.Dir, 0o755); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := unix.Mount(loop.Name(), f.Dir, "ext4", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount: %w", err), f.Close())
	}
	if f.root, err = os.Open(f.Dir); err != nil {
		return nil, errors.Join(err, unix.Unmount(f.Dir, 0), f.Close())
	}
	return f, nil
}

func unpack(file string) error {
	z, err := gzip.NewReader(bytes.NewReader(image))
	if err != nil {
		return err
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// attach makes a block device of a file.
func attach(file string) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	back, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	for range 16 { // another may take the free one in between
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free one: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(back.Fd()))
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, unix.EBUSY
}

// Freeze makes writers wait.
func (f *FS) Freeze() error {
	if err := unix.IoctlSetInt(int(f.root.Fd()), fifreeze, 0); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	f.frozen = true
	return nil
}

// Thaw lets writers go on; a second call does nothing.
func (f *FS) Thaw() error {
	if !f.frozen {
		return nil
	}
	if err := unix.IoctlSetInt(int(f.root.Fd()), fithaw, 0); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	f.frozen = false
	return nil
}

// Close thaws, unmounts and gives the loop device back. Nobody may use the
// file system any more.
func (f *FS) Close() error {
	var errs []error
	if f.root != nil {
		errs = append(errs, f.Thaw(), f.root.Close(), unix.Unmount(f.Dir, 0))
	}
	errs = append(errs, unix.IoctlSetInt(int(f.loop.Fd()), unix.LOOP_CLR_FD, 0), f.loop.Close())
	return errors.Join(errs...)
}
