package stress

import (
	"context"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// faultFS shows a directory, and makes every change to it fail on demand: what
// a file system does when it goes read-only or its device breaks under files
// that are open for writing.
type faultFS struct {
	dir     string // where it is mounted
	failure atomic.Int32
}

// fail makes changes fail with that errno; 0 ends it.
func (f *faultFS) fail(e syscall.Errno) { f.failure.Store(int32(e)) }

func (f *faultFS) err() syscall.Errno { return syscall.Errno(f.failure.Load()) }

// mountFaultFS mounts one over a new directory until the test's end.
func mountFaultFS(t testing.TB) *faultFS {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	f := &faultFS{dir: t.TempDir()}
	root := &fs.LoopbackRoot{Path: t.TempDir()}
	//lint:ignore SA1019 its successor, WrapChild, is a method of each node and would be written out for all of them
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &faultNode{LoopbackNode: fs.LoopbackNode{RootData: r}, fault: f}
	}
	//lint:ignore SA1019 as above
	node := root.NewNode(root, nil, "", nil)
	root.RootNode = node
	server, err := fs.Mount(f.dir, node, &fs.Options{MountOptions: fuse.MountOptions{FsName: "faultfs", Name: "faultfs", DirectMountStrict: true}})
	if err != nil {
		t.Fatalf("mount faultfs: %v", err)
	}
	t.Cleanup(func() {
		f.fail(0)
		for range 100 {
			if err = server.Unmount(); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("unmount faultfs: %v", err)
	})
	return f
}

// faultNode is a file or directory.
type faultNode struct {
	fs.LoopbackNode
	fault *faultFS
}

// The methods below are those that change something.

func (n *faultNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if e := n.fault.err(); e != 0 && flags&(syscall.O_WRONLY|syscall.O_RDWR|syscall.O_TRUNC) != 0 {
		return nil, 0, e
	}
	h, fl, e := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(h), fl, e
}

func (n *faultNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if e := n.fault.err(); e != 0 {
		return nil, nil, 0, e
	}
	in, h, fl, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, n.wrap(h), fl, e
}

func (n *faultNode) wrap(h fs.FileHandle) fs.FileHandle {
	l, ok := h.(*fs.LoopbackFile)
	if !ok {
		return h
	}
	return &faultFile{LoopbackFile: l, fault: n.fault}
}

func (n *faultNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := n.fault.err(); e != 0 {
		return e
	}
	if f, ok := h.(*faultFile); ok {
		h = f.LoopbackFile
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

func (n *faultNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if e := n.fault.err(); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *faultNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if e := n.fault.err(); e != 0 {
		return e
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *faultNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	if e := n.fault.err(); e != 0 {
		return e
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *faultNode) Rename(ctx context.Context, name string, to fs.InodeEmbedder, toName string, flags uint32) syscall.Errno {
	if e := n.fault.err(); e != 0 {
		return e
	}
	return n.LoopbackNode.Rename(ctx, name, to, toName, flags)
}

// faultFile is an open file.
type faultFile struct {
	*fs.LoopbackFile
	fault *faultFS
}

// PassthroughFd keeps the kernel from writing to the file below behind our back.
func (f *faultFile) PassthroughFd() (int, bool) { return 0, false }

func (f *faultFile) Write(ctx context.Context, b []byte, off int64) (uint32, syscall.Errno) {
	if e := f.fault.err(); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Write(ctx, b, off)
}

func (f *faultFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if e := f.fault.err(); e != 0 {
		return e
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}
