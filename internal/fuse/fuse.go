// Package fuse mounts a vfs.FS as a local directory, for `dim mount` and so that tests can run ordinary programs
// (tar, rsync, git, a compiler) on a tree through the real kernel.
//
// # Nodes
//
// The kernel names files by node id, the tree by vfs.Handle. A table maps one to the other: a handle has one node for
// as long as the kernel knows it (until FORGET) or holds it open. Ids are never used twice. Nothing but
// the table is state; attributes and entries are asked for anew each time unless Options.Caching is set, for a tree
// may change on its own (another version, another client).
//
// # Permissions
//
// Both sides check. The kernel does (mount option default_permissions), because only it knows what POSIX asks for at
// open: the contract lets owners read and write whatever the mode. The tree does too, from the caller's
// Cred, because its rules are what matters over NFS and what tests want to see at work. The caller's
// supplementary groups are not in a FUSE request; they are read from /proc/PID/status, which costs some 20 µs, and so
// only when they can matter: for a caller other than root, before a call that changes something, or when a call was
// refused without them. Reads, and writes that the Cred no longer permits, through a file that is open are made as root:
// the right to them was won at open.
//
// # Files that are removed while in use
//
// The contract knows no open files: a handle dies with its last name. So the last name of an open file is not removed
// but moved to a hidden one in the root directory (".fuse_hidden" and a number), where it cannot stand in
// the way of an rmdir, and removed when the kernel forgets the file. A file that another replaces gets such a name too. Hidden
// names are not shown. A crash leaves them behind.
//
// # Concurrency
//
// Methods of adapter run in goroutines of go-fuse. adapter.names is held to open a file (shared) and to remove a name
// (exclusive), so that a file is not opened between the check and the removal; table.mu is below it and never held
// across a call to the tree.
//
// The package must not know what is behind the vfs.FS. There is no writeback cache: a write is in the tree when
// write(2) returns.
package fuse

import (
	"fmt"
	"io"
	"log"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// Options say how to mount. The zero value mounts for root alone, writable, without caching.
type Options struct {
	ReadOnly   bool
	AllowOther bool   // users other than the one who mounts may enter
	Name       string // what df and mount show as the device; "dim" when empty
	Caching    bool   // the kernel may trust names and attributes for a second, and pages as long as the mtime stays
}

// Server is one mount.
type Server struct {
	srv *gofuse.Server
}

// Mount mounts fs on the directory dir and serves it until Unmount, or until somebody else unmounts it.
func Mount(dir string, fs vfs.FS, opt Options) (*Server, error) {
	s, err := start(dir, fs, opt, true)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return s, nil
}

// Serve serves fs on fd, an open /dev/fuse that somebody else has mounted (perhaps in a mount namespace that this process
// cannot see), until it is unmounted. It takes over fd when it succeeds. Of opt, ReadOnly and AllowOther are the mounter's affair. The
// mounter must be trusted like root: it must have given the option default_permissions, on which Open relies, and the kernel's word
// for who calls is as good as the user namespace it was mounted in.
func Serve(fd int, fs vfs.FS, opt Options) (*Server, error) {
	s, err := start(fmt.Sprintf("/dev/fd/%d", fd), fs, opt, false)
	if err != nil {
		return nil, fmt.Errorf("serve a mount: %w", err)
	}
	return s, nil
}

// start begins to serve a mount at dir, which it makes itself (direct) or which go-fuse takes as the name of an open device.
func start(dir string, fs vfs.FS, opt Options, direct bool) (*Server, error) {
	if opt.Name == "" {
		opt.Name = "dim"
	}
	var flags uintptr = syscall.MS_NOSUID | syscall.MS_NODEV
	if opt.ReadOnly {
		flags |= syscall.MS_RDONLY
	}
	srv, err := gofuse.NewServer(newAdapter(fs, opt), dir, &gofuse.MountOptions{
		AllowOther:       opt.AllowOther,
		Options:          []string{"default_permissions"},
		FsName:           opt.Name,
		Name:             "dim",
		MaxWrite:         1 << 20,
		MaxBackground:    64,
		DirectMount:      direct,
		DirectMountFlags: flags,
		// The tree clears setuid and setgid itself. Without this the kernel would do so with a chmod in the name
		// of the writer, who may not be the owner.
		ExtraCapabilities: gofuse.CAP_HANDLE_KILLPRIV,
		Logger:            log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, err
	}
	s := &Server{srv: srv}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		return nil, err
	}
	return s, nil
}

// Wait returns when the directory is no longer mounted.
func (s *Server) Wait() { s.srv.Wait() }

// Unmount ends the mount; EBUSY when files are open in it. It returns after the last request has been answered.
func (s *Server) Unmount() error {
	if err := s.srv.Unmount(); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

// adapter answers the kernel's requests from a vfs.FS.
type adapter struct {
	gofuse.RawFileSystem // what it does not know is ENOSYS

	fs    vfs.FS
	opt   Options
	table *table
	xattr vfs.XattrReader // nil when fs is none

	names sync.RWMutex
}

func newAdapter(fs vfs.FS, opt Options) *adapter {
	a := &adapter{RawFileSystem: gofuse.NewDefaultRawFileSystem(), fs: fs, opt: opt, table: newTable(fs.Root())}
	a.xattr, _ = fs.(vfs.XattrReader)
	return a
}

func (a *adapter) String() string { return a.opt.Name }

// validFor is how long the kernel may trust what it was told.
func (a *adapter) validFor() time.Duration {
	if a.opt.Caching {
		return time.Second
	}
	return 0
}

// status translates the tree's errors, whose numbers are the kernel's.
func status(err error) gofuse.Status {
	switch e := vfs.ErrnoOf(err).(type) {
	case nil:
		return gofuse.OK
	case vfs.Errno:
		if e == vfs.EBADHANDLE {
			return gofuse.Status(syscall.ESTALE)
		}
		return gofuse.Status(e)
	}
	return gofuse.EIO
}

// fillEntry tells the kernel of the object h and counts that it knows it.
func (a *adapter) fillEntry(h vfs.Handle, at *vfs.Attr, out *gofuse.EntryOut) *node {
	n := a.table.know(h)
	out.NodeId, out.Generation = n.id, 1
	a.fillAttr(n, at, &out.Attr)
	out.SetEntryTimeout(a.validFor())
	out.SetAttrTimeout(a.validFor())
	return n
}

const blockSize = 4096

func (a *adapter) fillAttr(n *node, at *vfs.Attr, out *gofuse.Attr) {
	*out = gofuse.Attr{
		Ino: at.ID, Size: at.Size, Blocks: (at.Used + 511) / 512, Mode: at.Mode | at.Type.Bits(), Nlink: at.Nlink,
		Atime: uint64(at.Atime.Sec), Atimensec: at.Atime.Nsec,
		Mtime: uint64(at.Mtime.Sec), Mtimensec: at.Mtime.Nsec,
		Ctime: uint64(at.Ctime.Sec), Ctimensec: at.Ctime.Nsec,
		Owner:   gofuse.Owner{Uid: at.UID, Gid: at.GID},
		Rdev:    kernelDev(at.Major, at.Minor),
		Blksize: blockSize,
	}
	if n != nil && a.table.hiddenName(n) != "" && out.Nlink > 0 {
		out.Nlink-- // its hidden name does not count
	}
}

// kernelDev is new_encode_dev of Linux's include/linux/kdev_t.h.
func kernelDev(major, minor uint32) uint32 { return minor&0xff | major<<8 | minor&^0xff<<12 }

func splitDev(dev uint32) (major, minor uint32) { return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00 }
