package replica

import (
	"encoding/binary"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/fds"
	"dim/internal/vfs"
)

// The extended attributes of docs/formats/layer.md.
const (
	xattrID       = "trusted.dim.id"
	xattrVerifier = "trusted.dim.verf"
	xattrGroup    = "trusted.dim.group" // a hard-link group is being copied up and does not have all its names yet
	xattrSaved    = "trusted.dim.saved" // below saved/ only: these are attributes of a directory
	xattrWhy      = "trusted.dim.why"   // of saved/STAMP: what made it
	xattrOver     = "trusted.dim.over"  // of snapshots/STAMP: the versions that the layer was over
	xattrWeight   = "trusted.dim.size"  // of snapshots/STAMP: entries, bytes, bytes that could not be shared
	xattrOf       = "trusted.dim.of"    // of a file in a snapshot: inode and ctime of the layer's file
	xattrOpaque   = "trusted.overlay.opaque"
	xattrHidden   = "trusted." // what starts so is never shown to a node
)

const nameMax = 255

// checkName refuses what cannot be an entry's name.
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
	keyBlob   = 'b' // a blob, by digest
	keyFile   = 'f' // a layer's file for reading and writing, by tree and id
	keyFrozen = 'r' // the same, opened while the disk was read-only
	keyDir    = 'd' // a layer's directory, by tree and id
	keyWork   = 'w' // a replica's work directory, by tree
	keyAside  = 'a' // a directory below saved/, by tree and hash of the path
)

func (r *Replica) key(kind byte, id uint64) fds.Key {
	k := fds.Key{Kind: kind}
	copy(k.ID[:], r.tree[:])
	binary.BigEndian.PutUint64(k.ID[8:], id)
	k.ID[16] = k.ID[15] // the cache spreads keys by some of the bytes
	return k
}

// openBeneath opens path, which starts at the set's directory, and follows no link on the way. A path that is too long for the
// kernel is opened in parts.
func (s *Set) openBeneath(path string, flags int) (int, error) {
	dir := s.dir
	for len(path) >= unix.PathMax {
		at := max(strings.LastIndexByte(path[:unix.PathMax-1], '/'), 0) // "" is ENOENT
		next, err := openBelow(dir, path[:at], unix.O_PATH|unix.O_DIRECTORY)
		if dir != s.dir {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir, path = next, path[at+1:]
	}
	fd, err := openBelow(dir, path, flags)
	if dir != s.dir {
		unix.Close(dir)
	}
	return fd, err
}

func openBelow(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if err == nil || err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME

// layerDir returns the open directory of the layer at p, which must be there.
func (r *Replica) layerDir(p *place) (*fds.File, error) {
	return r.set.files.Get(r.key(keyDir, uint64(p.obj.id)), func() (int, error) {
		return r.set.openBeneath(r.dir+"/upper/"+p.path(), openDir)
	})
}

// workDir returns the directory for what is not yet, or no longer, in the layer.
func (r *Replica) workDir() (*fds.File, error) {
	return r.set.files.Get(r.key(keyWork, 0), func() (int, error) {
		return r.set.openBeneath(r.dir+"/work", openDir)
	})
}

// where returns the open directory in which o stands and its name there; "." for the root.
func (r *Replica) where(o *object) (*fds.File, string, error) {
	if o.removed {
		return nil, "", vfs.ESTALE
	}
	if o.aside != "" {
		dir, name := o.aside[:strings.LastIndexByte(o.aside, '/')], o.aside[strings.LastIndexByte(o.aside, '/')+1:]
		d, err := r.set.files.Get(r.asideKey(dir), func() (int, error) {
			return r.set.openBeneath(r.dir+"/"+dir, openDir)
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

// readable is content for those who only read: it serves on while the disk is read-only. What is opened then has a key of its own, so
// that the file is open for writing as soon as the disk takes writes again.
func (r *Replica) readable(o *object) (*fds.File, error) {
	f, err := r.content(o)
	if err != unix.EROFS {
		return f, err
	}
	return r.set.files.Get(r.key(keyFrozen, uint64(o.id)), func() (int, error) { return r.openFile(o, unix.O_RDONLY) })
}

func (r *Replica) openFile(o *object, how int) (int, error) {
	d, name, err := r.where(o)
	if err != nil {
		return -1, err
	}
	defer d.Release()
	return unix.Openat(d.FD, name, how|unix.O_NOATIME|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// blob returns the open blob d.
func (s *Set) blob(d *image.Digest) (*fds.File, error) {
	return s.files.Get(fds.Key{Kind: keyBlob, ID: *d}, func() (int, error) {
		f, err := s.source.OpenBlob(*d)
		if err != nil {
			return -1, err
		}
		defer f.Close()
		return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	})
}

// stat asks the disk for o.
func (r *Replica) stat(o *object, st *unix.Stat_t) error {
	if o.removed {
		f, err := r.readable(o)
		if err != nil {
			return err
		}
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

// procPath names an entry for the calls that take no directory. name is not followed when it is a link.
func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

func getXattr(dir int, name, attr string, buf []byte) ([]byte, error) {
	n, err := unix.Lgetxattr(procPath(dir, name), attr, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// idValue returns the value of trusted.dim.id.
func idValue(id image.ID, origin *image.Digest) []byte {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 40), uint64(id))
	if origin != nil {
		v = append(v, origin[:]...)
	}
	return v
}

func parseIDValue(v []byte) (id image.ID, origin *image.Digest, ok bool) {
	if len(v) != 8 && len(v) != 40 {
		return 0, nil, false
	}
	if len(v) == 40 {
		d := image.Digest(v[8:])
		origin = &d
	}
	return image.ID(binary.BigEndian.Uint64(v)), origin, true
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// listDir returns the names in the open directory fd.
func listDir(fd int) ([]string, error) {
	own, err := unix.Openat(fd, ".", openDir|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

// removeAll removes name and what is in it from the open directory. It follows no links.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := unix.Openat(dir, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := listDir(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
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
