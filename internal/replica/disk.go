package replica

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/fds"
	"dim/internal/vfs"
)

const nameMax = 255

// hiddenXattrs begins the names of extended attributes that are never shown to a node.
const hiddenXattrs = "trusted."

// checkName refuses names that no entry can have.
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

// The kinds of keys in the cache of open files.
const (
	keyBlob     = 'b' // a blob, by digest
	keyFile     = 'f' // a layer's file for reading and writing, by tree and id
	keyReadOnly = 'r' // the same, for reading alone
	keyDir      = 'd' // a layer's directory, by tree and id
	keyWork     = 'w' // a replica's work directory, by tree
	keyAside    = 'a' // a directory of the saved area, by tree and hash of the path
)

func (r *Replica) key(kind byte, id uint64) fds.Key {
	k := fds.Key{Kind: kind}
	copy(k.ID[:], r.tree[:])
	binary.BigEndian.PutUint64(k.ID[8:], id)
	k.ID[16] = k.ID[15] // the cache spreads keys by some of the bytes
	return k
}

// layerDir returns the open directory of the layer at p. The layer must have one there.
func (r *Replica) layerDir(p *dentry) (*fds.File, error) {
	return r.set.files.Get(r.key(keyDir, uint64(p.obj.id)), func() (int, error) {
		return r.set.root.OpenDir(r.dir.Upper(p.path()))
	})
}

// workDir returns the open directory for what is being made or removed.
func (r *Replica) workDir() (*fds.File, error) {
	return r.set.files.Get(r.key(keyWork, 0), func() (int, error) {
		return r.set.root.OpenDir(r.dir.Work())
	})
}

// where returns the open directory that o is in, and its name there; "." for the root.
func (r *Replica) where(o *object) (*fds.File, string, error) {
	if o.removed {
		return nil, "", vfs.ESTALE
	}
	if o.aside != "" {
		dir, name := o.aside[:strings.LastIndexByte(o.aside, '/')], o.aside[strings.LastIndexByte(o.aside, '/')+1:]
		d, err := r.set.files.Get(r.asideKey(dir), func() (int, error) {
			return r.set.root.OpenDir(r.dir.Join(dir))
		})
		return d, name, err
	}
	p := o.names[0]
	if p.up == nil {
		d, err := r.layerDir(p)
		return d, ".", err
	}
	d, err := r.layerDir(p.up)
	return d, p.name, err
}

func (r *Replica) asideKey(dir string) fds.Key {
	sum := image.Sum([]byte(dir))
	return r.key(keyAside, binary.BigEndian.Uint64(sum[:]))
}

// content returns o's file, open for reading and writing.
func (r *Replica) content(o *object) (*fds.File, error) {
	if o.removed {
		return r.set.lingering.file(r.tree, o)
	}
	return r.set.files.Get(r.key(keyFile, uint64(o.id)), func() (int, error) { return r.openFile(o, unix.O_RDWR) })
}

// readable returns o's file, open for reading at least. On ext4 a file that was open for writing costs twice as much to
// open and close, and while the disk is read-only it cannot be opened so.
func (r *Replica) readable(o *object) (*fds.File, error) {
	if f, ok := r.openFor(o); ok {
		return f, nil
	}
	return r.set.files.Get(r.key(keyReadOnly, uint64(o.id)), func() (int, error) {
		return r.openFile(o, unix.O_RDONLY)
	})
}

// openFile opens o's file: in the directory that it is in if that is open, and else by its path, which costs half of
// opening both.
func (r *Replica) openFile(o *object, how int) (int, error) {
	how |= unix.O_NOATIME | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if !o.removed && o.aside == "" && o.names[0].up != nil {
		p := o.names[0]
		d, ok := r.set.files.Lookup(r.key(keyDir, uint64(p.up.obj.id)))
		if !ok {
			return r.set.root.Open(r.dir.Upper(p.path()), how)
		}
		defer d.Release()
		return unix.Openat(d.FD, p.name, how, 0)
	}
	d, name, err := r.where(o)
	if err != nil {
		return -1, err
	}
	defer d.Release()
	return unix.Openat(d.FD, name, how, 0)
}

// blob returns the open blob d.
func (s *Set) blob(d *image.Digest) (*fds.File, error) { return s.blobFrom(d, s.source.OpenBlob) }

// awaitBlob is blob for a reader that holds no lock: it waits for a blob that is on its way.
func (s *Set) awaitBlob(d *image.Digest) (*fds.File, error) {
	f, err := s.blob(d)
	if s.await == nil || !errors.Is(err, vfs.ELATER) {
		return f, err
	}
	return s.blobFrom(d, s.await)
}

func (s *Set) blobFrom(d *image.Digest, open func(image.Digest) (*os.File, error)) (*fds.File, error) {
	return s.files.Get(fds.Key{Kind: keyBlob, ID: *d}, func() (int, error) {
		f, err := open(*d)
		if err != nil {
			return -1, err
		}
		defer f.Close()
		return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	})
}

// stat reads the status of o from the disk.
func (r *Replica) stat(o *object, st *unix.Stat_t) error {
	if f, ok := r.openFor(o); ok {
		defer f.Release()
		return unix.Fstat(f.FD, st)
	}
	d, name, err := r.where(o)
	if err != nil {
		return err
	}
	defer d.Release()
	return unix.Fstatat(d.FD, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// openFor returns o's file if it is open already.
func (r *Replica) openFor(o *object) (*fds.File, bool) {
	if o.removed {
		f, err := r.content(o)
		return f, err == nil
	}
	if o.kind != vfs.Regular {
		return nil, false
	}
	for _, kind := range []byte{keyFile, keyReadOnly} {
		if f, ok := r.set.files.Lookup(r.key(kind, uint64(o.id))); ok {
			return f, true
		}
	}
	return nil, false
}

func nanos(t unix.Timespec) int64 { return int64(t.Sec)*1e9 + int64(t.Nsec) }

func timeOf(ns int64) vfs.Time {
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	return vfs.Time{Sec: sec, Nsec: uint32(nsec)}
}

func timespecOf(t vfs.Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }
