// Package dirfs serves a plain directory of the local disk as a vfs.FS: the ground truth that the
// battery in vfstest runs on, and something that protocols can be tried with.
//
// # Handles
//
// A handle wraps what name_to_handle_at(2) tells of the object, so it needs no table, survives a
// restart and a rename, and goes stale when the last name is gone. The file system must support
// such handles (ext4, XFS, btrfs and tmpfs do) and the process needs CAP_DAC_READ_SEARCH. A handle
// also carries a tag of the tree. The tag tells trees apart; it does not stop a client that forges
// handles from reaching other directories of the same file system. Do not export a dirfs to anyone
// who may not see that whole file system.
//
// # Permissions
//
// The process is root, so the kernel refuses nothing: this package checks every call against the
// caller's vfs.Cred first, in the order in which Linux does (fs/namei.c, fs/attr.c), so that an
// operation with several faults names the same one. What is made belongs to the caller.
//
// # Durability
//
// A call that changed names or attributes syncs the object and the directories before it returns,
// outside the lock. A new object is made first and given its owner and mode after: a crash in between can leave one
// that belongs to root, but no call that was acknowledged is ever lost.
//
// # Concurrency
//
// One lock orders all calls: shared for those that only look, exclusive for those that change.
// Nothing is held while an entry is handed to ReadDir's yield.
//
// It does not cross mount points, does not know images or protocols, and has no cache.
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

// Options change how a directory is served. The zero value serves it as the contract says.
type Options struct {
	ReadOnly bool // every change is EROFS
	NoSync   bool // acknowledge before the disk has it, for tests that make thousands of files
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

// Root names the directory itself.
func (f *FS) Root() vfs.Handle { return f.rootH }

// Verifier is made anew by each Open.
func (f *FS) Verifier() [8]byte { return f.verifier }

// A handle is: format, tag of the tree, type of the kernel's handle, the kernel's handle.
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

// object is one file of the tree, held open without access (O_PATH) for the time of one call.
type object struct {
	fd   int
	attr vfs.Attr // when it was opened
}

func (o *object) close() { unix.Close(o.fd) }

// path names the open object for calls that take no O_PATH descriptor. The link is a magic one: it
// leads to the object itself even when that is a symbolic link or has no name any more.
func (o *object) path() string { return "/proc/self/fd/" + strconv.Itoa(o.fd) }

// open resolves h. An object without a name that somebody still holds open counts as gone.
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

// child opens an entry of d, whatever it is.
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

// nameMax is what every Linux file system of note allows.
const nameMax = 255

// checkName refuses what cannot be an entry's own name.
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

// nameHash gives the 62 bits that place a name in a listing.
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

// syncOne syncs one object. What cannot be opened to be synced (a link, a device) is written with
// the whole file system.
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
