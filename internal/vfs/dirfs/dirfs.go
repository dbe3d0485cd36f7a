// Package dirfs serves a plain directory of the local disk as a vfs.FS. It is the reference for the battery in
// vfstest, and a tree with which protocols are tested.
//
// # Handles
//
// A handle has the result of name_to_handle_at(2), so it needs no table, survives a restart and a rename, and
// becomes stale with the last name of the object. The file system must support such handles (ext4, XFS, btrfs and
// tmpfs do), and the process needs CAP_DAC_READ_SEARCH.
//
// A handle also has a tag of the tree. The tag distinguishes trees. It does not prevent a client that forges
// handles from reaching other directories of the same file system: a dirfs must not be exported to a client that
// may not read that whole file system.
//
// # Permissions
//
// The process is root, so the kernel refuses no call. This package therefore checks every call against the vfs.Cred
// of the caller first, in the order in which Linux does (fs/namei.c, fs/attr.c), so that a call with several errors
// returns the same one. New objects belong to the caller.
//
// # Durability
//
// A call that changed names or attributes syncs the object and the directories before it returns, outside the lock.
// A new object is made first, and gets its owner and mode afterwards. A crash in between can leave an object that
// belongs to root, but loses no call that returned.
//
// # Concurrency
//
// One lock orders all calls. It is held shared by calls that change nothing, and exclusively by the others. It is
// not held while ReadDir calls yield.
//
// It does not cross mount points, must not know images or protocols, and has no cache.
package dirfs

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// Options change how a directory is served. The zero value follows the contract.
type Options struct {
	ReadOnly bool // every change is EROFS
	NoSync   bool // changes are not synced, for tests that make thousands of files
}

// FS is a directory served as a vfs.FS. Close releases it.
type FS struct {
	opt      Options
	root     int // open for reading: open_by_handle_at refuses an O_PATH descriptor
	rootAttr vfs.Attr
	rootH    vfs.Handle
	tag      [tagLen]byte
	verifier [8]byte
	hash     func(name string) uint64

	mu sync.RWMutex
}

var (
	_ vfs.FS          = (*FS)(nil)
	_ vfs.XattrReader = (*FS)(nil)
)

// Open serves the directory dir.
func Open(dir string, opt Options) (*FS, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	f := &FS{opt: opt, root: fd, hash: nameHash}
	rand.Read(f.verifier[:])
	if err := f.openRoot(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	return f, nil
}

func (f *FS) openRoot() error {
	fh, _, err := unix.NameToHandleAt(f.root, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("get its handle: %w", err)
	}
	sum := sha256.Sum256(fh.Bytes())
	copy(f.tag[:], sum[:])
	if f.rootH, err = f.handleOf(f.root); err != nil {
		return fmt.Errorf("get its handle: %w", err)
	}
	o, err := f.open(f.rootH)
	if err != nil {
		return fmt.Errorf("open by handle: %w", err)
	}
	defer o.close()
	f.rootAttr = o.attr
	return nil
}

// Close releases the directory. No call may be running or follow.
func (f *FS) Close() error { return unix.Close(f.root) }

// Root returns the handle of the directory itself.
func (f *FS) Root() vfs.Handle { return f.rootH }

// Verifier returns the verifier, which is another one after each Open.
func (f *FS) Verifier() [8]byte { return f.verifier }

// A handle has the format, the tag of the tree, the type of the kernel's handle, and the kernel's handle.
const (
	handleFormat = 1
	tagLen       = 8
	handleHeader = 1 + tagLen + 4
)

func (f *FS) handleOf(fd int) (vfs.Handle, error) {
	fh, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return vfs.Handle{}, vfs.ErrnoOf(err)
	}
	b := append(make([]byte, 0, vfs.HandleMax), handleFormat)
	b = append(b, f.tag[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(fh.Type()))
	h, ok := vfs.MakeHandle(append(b, fh.Bytes()...))
	if !ok {
		return h, vfs.EIO
	}
	return h, nil
}

// object is one object of the tree, opened with O_PATH for the time of one call.
type object struct {
	fd   int
	attr vfs.Attr // when it was opened
}

func (o *object) close() { unix.Close(o.fd) }

// path returns a path of the open object for system calls that take no O_PATH descriptor. The kernel resolves it to the
// object itself, even if that is a symbolic link or has no name (proc_pid_fd(5)).
func (o *object) path() string { return "/proc/self/fd/" + strconv.Itoa(o.fd) }

// open opens the object of h. An object that is open elsewhere but has no name is stale.
func (f *FS) open(h vfs.Handle) (*object, error) {
	b := h.Bytes()
	if len(b) < handleHeader || b[0] != handleFormat || string(b[1:1+tagLen]) != string(f.tag[:]) {
		return nil, vfs.EBADHANDLE
	}
	typ := int32(binary.BigEndian.Uint32(b[1+tagLen:]))
	fd, err := unix.OpenByHandleAt(f.root, unix.NewFileHandle(typ, b[handleHeader:]), unix.O_PATH|unix.O_CLOEXEC)
	switch err {
	case nil:
	case unix.EINVAL:
		return nil, vfs.EBADHANDLE
	case unix.ENOMEM:
		// ext4 returns it while another file with its inode number is being created (fs/ext4/inode.c, iget_locked).
		return nil, vfs.ESTALE
	default:
		return nil, vfs.ErrnoOf(err)
	}
	o, err := newObject(fd)
	if err == nil && o.attr.Nlink == 0 {
		o.close()
		return nil, vfs.ESTALE
	}
	return o, err
}

func (f *FS) openDir(h vfs.Handle) (*object, error) {
	o, err := f.open(h)
	if err == nil && o.attr.Type != vfs.Directory {
		o.close()
		return nil, vfs.ENOTDIR
	}
	return o, err
}

// child opens an entry of d, of any type.
func (f *FS) child(d *object, name string) (*object, error) {
	if name == ".." {
		return f.parent(d)
	}
	fd, err := unix.Openat2(d.fd, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, vfs.ErrnoOf(err)
	}
	return newObject(fd)
}

func (f *FS) parent(d *object) (*object, error) {
	name := ".."
	if d.attr.ID == f.rootAttr.ID {
		name = "."
	}
	fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, vfs.ErrnoOf(err)
	}
	return newObject(fd)
}

func newObject(fd int) (*object, error) {
	o := &object{fd: fd}
	if err := statFD(fd, &o.attr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return o, nil
}

// nameMax is the limit of the usual Linux file systems.
const nameMax = 255

// checkName returns an error if name cannot be the name of an entry.
func checkName(name string) error {
	switch {
	case len(name) > nameMax:
		return vfs.ENAMETOOLONG
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return vfs.EINVAL
	}
	return nil
}

func isDot(name string) bool { return name == "." || name == ".." }

// nameHash returns the 62 bits that give the position of a name in a listing.
func nameHash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	sum := h.Sum64()
	sum ^= sum >> 32 // FNV mixes its last byte only into the low bits
	sum *= 0x9e3779b97f4a7c15
	return sum >> 2
}

// sync makes objects durable, in this order.
func (f *FS) sync(objects ...*object) error {
	if f.opt.NoSync {
		return nil
	}
	for _, o := range objects {
		if err := f.syncOne(o); err != nil {
			return vfs.ErrnoOf(err)
		}
	}
	return nil
}

// syncOne syncs one object. For an object that cannot be opened to be synced (a link, a device) it syncs the whole file
// system.
func (f *FS) syncOne(o *object) error {
	if o.attr.Type != vfs.Regular && o.attr.Type != vfs.Directory {
		return unix.Syncfs(f.root)
	}
	fd, err := unix.Open(o.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}
