// Package slowdisk makes block devices that are slow, hang or fail on demand:
// a FUSE file whose every read and write takes as long as it is told to, with a
// loop device on it. It needs root, /dev/fuse and /dev/loop-control, and
// nothing else of the kernel.
package slowdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// FileName is the name of the file in the mounted directory.
const FileName = "disk"

// Disk is one such file, mounted.
type Disk struct {
	Path string // of the file

	dir    string
	server *fuse.Server

	mu      sync.Mutex
	data    []byte
	delay   time.Duration
	failure syscall.Errno
	held    chan struct{} // closed by Release
}

// Mount serves a file of size bytes in dir, an empty directory, until Close.
func Mount(dir string, size int) (*Disk, error) {
	d := &Disk{Path: filepath.Join(dir, FileName), dir: dir, data: make([]byte, size)}
	opts := &fs.Options{MountOptions: fuse.MountOptions{FsName: "slowdisk", Name: "slowdisk", DirectMountStrict: true, MaxWrite: 128 << 10}}
	server, err := fs.Mount(dir, &root{disk: d}, opts)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	d.server = server
	return d, nil
}

// SetDelay makes each read and write that comes from now on take that long.
func (d *Disk) SetDelay(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = t
}

// SetError makes each read and write that comes from now on fail; 0 ends that.
func (d *Disk) SetError(e syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failure = e
}

// Hold makes reads and writes hang until Release.
func (d *Disk) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		d.held = make(chan struct{})
	}
}

// Release lets everything go on that hangs.
func (d *Disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held != nil {
		close(d.held)
		d.held = nil
	}
}

// Close releases what hangs and unmounts. Detach loop devices before.
func (d *Disk) Close() error {
	d.Release()
	d.SetDelay(0)
	var err error
	for range 50 { // a detached loop device lets go of the file a moment later
		if err = d.server.Unmount(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: %w", d.dir, err)
}

// wait is what each access does first.
func (d *Disk) wait() syscall.Errno {
	d.mu.Lock()
	delay, held, failure := d.delay, d.held, d.failure
	d.mu.Unlock()
	time.Sleep(delay)
	if held != nil {
		<-held
	}
	return failure
}

// root is the directory that holds the one file.
type root struct {
	fs.Inode
	disk *Disk
}

func (r *root) OnAdd(ctx context.Context) {
	r.AddChild(FileName, r.NewPersistentInode(ctx, &file{disk: r.disk}, fs.StableAttr{Mode: fuse.S_IFREG, Ino: 2}), false)
}

type file struct {
	fs.Inode
	disk *Disk
}

var (
	_ fs.NodeOnAdder   = (*root)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
)

// Open turns the page cache off: each access has to come here.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(len(f.disk.data))
	return 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := f.disk.wait(); e != 0 {
		return nil, e
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := 0
	if off < int64(len(f.disk.data)) {
		n = copy(dest, f.disk.data[off:])
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if e := f.disk.wait(); e != 0 {
		return 0, e
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if off+int64(len(data)) > int64(len(f.disk.data)) {
		return 0, syscall.ENOSPC
	}
	return uint32(copy(f.disk.data[off:], data)), 0
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return f.disk.wait() }

// Loop is a loop device on a file.
type Loop struct {
	Dev  string // /dev/loopN
	Name string // loopN
	f    *os.File
}

// Attach makes a loop device on path. It is gone with Detach, or when this
// process ends.
func Attach(path string) (*Loop, error) {
	back, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	for range 10 { // somebody may take the free one before us
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		l := &Loop{Name: fmt.Sprintf("loop%d", n)}
		l.Dev = "/dev/" + l.Name
		if l.f, err = os.OpenFile(l.Dev, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		c := &unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(l.f.Fd()), c); err == nil {
			return l, nil
		}
		l.f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", l.Dev, path, err)
		}
	}
	return nil, fmt.Errorf("attach a loop device to %s: %w", path, unix.EBUSY)
}

// Detach ends the device: the flag AUTOCLEAR makes the last close do it.
func (l *Loop) Detach() error { return l.f.Close() }
