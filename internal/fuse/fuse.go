// Package fuse mounts a vfs.FS as a local directory, for `dim mount` and so that tests can run ordinary programs
// (tar, rsync, git, a compiler) on a tree through the real kernel.
//
// # Nodes
//
// The kernel names files by node id, the tree by vfs.Handle. A table maps one to the other. A handle has one node
// as long as the kernel refers to it (until FORGET) or has it open. Ids are never used twice. The table is the only
// state. Attributes and entries are requested from the tree each time unless Options.Caching is set, because a tree
// may change by itself (another version, another client).
//
// # Permissions
//
// Both the kernel and the tree check permissions.
//
//   - The kernel does (mount option default_permissions), because only it knows what POSIX requires at open: the
//     contract lets owners read and write whatever the mode.
//   - The tree does too, with the Cred of the caller, because its rules hold over NFS and are under test.
//   - A FUSE request does not have the supplementary groups of the caller. They are read from /proc/PID/status.
//     That takes about 20 µs, so it happens only if the caller is not root, and the call changes something or was
//     refused without groups.
//   - Calls on an open file are made as root if they read, or if they write and the Cred no longer permits it,
//     because open checked the permission.
//
// # Files that are removed while in use
//
// The contract has no open files: a handle becomes stale with its last name. The last name of an open file is
// therefore not removed. It is moved to a hidden name in the root directory (".fuse_hidden" and a number), where it
// does not prevent an rmdir, and is removed when the kernel forgets the file. A file that another one replaces gets
// such a name too. Hidden names are not listed. After a crash they remain.
//
// # Concurrency
//
// Methods of adapter run in goroutines of go-fuse. adapter.names is held shared to open a file, and exclusively to
// remove a name, so that no file is opened between the check and the removal.
//
// Lock order:
//
//  1. adapter.names
//  2. table.mu, which is never held during a call of the tree
//
// The package must not know what is behind the vfs.FS. There is no writeback cache: when write(2) returns, the tree has
// the data.
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

// Options say how to mount. The zero value mounts for the user who mounts, writable, without caching.
type Options struct {
	ReadOnly   bool
	AllowOther bool   // users other than the one who mounts may use it
	Name       string // shown by df and mount as the device; "": "dim"
	Caching    bool   // the kernel may cache names and attributes for a second, and pages until the mtime changes
}

// Server is one mount.
type Server struct {
	srv *gofuse.Server
}

// Mount mounts fs on the directory dir, and serves it until Unmount or umount(8).
func Mount(dir string, fs vfs.FS, opt Options) (*Server, error) {
	s, err := start(dir, fs, opt, true)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return s, nil
}

// Serve serves fs on fd, an open /dev/fuse that another process has mounted, possibly in another mount namespace,
// until it is unmounted. If it succeeds, it owns fd. It ignores ReadOnly and AllowOther of opt, which the mounter
// chooses.
//
// The mounter must be trusted like root. It must have used the option default_permissions, on which Open relies,
// and the user ids in requests are those of its user namespace.
func Serve(fd int, fs vfs.FS, opt Options) (*Server, error) {
	s, err := start(fmt.Sprintf("/dev/fd/%d", fd), fs, opt, false)
	if err != nil {
		return nil, fmt.Errorf("serve a mount: %w", err)
	}
	return s, nil
}

// start starts to serve a mount. If direct is set, it mounts on dir. Otherwise dir names an open device.
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
		// The tree clears setuid and setgid itself. Without this the kernel would do so with a chmod by the writer,
		// which may not be the owner.
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

// Wait returns when the file system is unmounted.
func (s *Server) Wait() { s.srv.Wait() }

// Unmount ends the mount. It returns after the last request was answered. The error is EBUSY if files are open in it.
func (s *Server) Unmount() error {
	if err := s.srv.Unmount(); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

// adapter answers the requests of the kernel with a vfs.FS.
type adapter struct {
	gofuse.RawFileSystem // returns ENOSYS for all other requests

	fs    vfs.FS
	opt   Options
	table *table
	xattr vfs.XattrReader // fs, if it is one

	names sync.RWMutex
}

func newAdapter(fs vfs.FS, opt Options) *adapter {
	a := &adapter{RawFileSystem: gofuse.NewDefaultRawFileSystem(), fs: fs, opt: opt, table: newTable(fs.Root())}
	a.xattr, _ = fs.(vfs.XattrReader)
	return a
}

func (a *adapter) String() string { return a.opt.Name }

// validFor returns for how long the kernel may cache names and attributes.
func (a *adapter) validFor() time.Duration {
	if a.opt.Caching {
		return time.Second
	}
	return 0
}

// status translates an error of the tree. Its numbers are those of the kernel.
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

// fillEntry fills out for the object h, and counts a lookup of it.
func (a *adapter) fillEntry(h vfs.Handle, at *vfs.Attr, out *gofuse.EntryOut) *node {
	n := a.table.addLookup(h)
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
		out.Nlink-- // the hidden name is not counted
	}
}

// kernelDev is new_encode_dev of include/linux/kdev_t.h in Linux.
func kernelDev(major, minor uint32) uint32 { return minor&0xff | major<<8 | minor&^0xff<<12 }

func splitDev(dev uint32) (major, minor uint32) { return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00 }
