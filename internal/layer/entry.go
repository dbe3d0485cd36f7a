package layer

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// The extended attributes of docs/formats/layer.md.
const (
	xattrID        = "trusted.dim.id"
	xattrVerifier  = "trusted.dim.verf"
	xattrGroup     = "trusted.dim.group"     // a hard-link group is being copied up and does not have all its names yet
	xattrAge       = "trusted.dim.age"       // of a directory of saved/ whose stamp is in the future
	xattrSaved     = "trusted.dim.saved"     // below saved/ only: what the entry stands for, if not for itself
	xattrWhy       = "trusted.dim.why"       // of saved/STAMP and snapshots/STAMP: what made it
	xattrOver      = "trusted.dim.over"      // of snapshots/STAMP: the versions that the layer was over
	xattrSize      = "trusted.dim.size"      // of snapshots/STAMP: entries, bytes, bytes that could not be shared
	xattrOrigin    = "trusted.dim.of"        // of a file in a snapshot: inode and ctime of the layer's file
	xattrMerged    = "trusted.dim.merged"    // of a file that a switch made by a merge: the stamp of the switch
	xattrConflicts = "trusted.dim.conflicts" // below saved/: of a file whose records were merged: the conflicts
	xattrOpaque    = "trusted.overlay.opaque"
	overlayXattrs  = "trusted.overlay."
)

// PathMax bounds the paths in a layer. It bounds how deep a node can nest directories, by mkdir and by rename, so that
// what is done for each level, on the stack above all, stays within reason. A path as long as the kernel takes one
// (4,095 bytes) must be possible in a directory whose own path is as long.
const PathMax = 8192

// Inode tells the files of one machine apart.
type Inode struct{ Dev, Ino uint64 }

// Attrs are the attributes that a node can give a directory.
type Attrs struct{ Mode, UID, GID uint32 }

// AttrsOf returns the attributes in st.
func AttrsOf(st *unix.Stat_t) Attrs { return Attrs{st.Mode & 0o7777, st.Uid, st.Gid} }

// IsWhiteout reports whether st is of a whiteout.
func IsWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// The quota counts blocks of this size.
const block = 4096

// inlineLink is the size from which the target of a symbolic link counts with a block: ext4 has a shorter one in the
// inode.
const inlineLink = 60

// Occupied returns how many bytes a file or a symbolic link counts with in a quota. Of a file it is the blocks that it
// has, without those that a file system allocates ahead of the end. Of a link it is the same on all disks. Everything
// else counts nothing.
func Occupied(st *unix.Stat_t) int64 {
	size := uint64(st.Size) // it may be too large to be rounded up as an int64
	switch whole := (size + block - 1) &^ (block - 1); {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK && size >= inlineLink:
		return int64(whole)
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		return int64(min(uint64(st.Blocks)*512, whole))
	}
	return 0
}

// NewID returns an id for an object that is new in a layer.
func NewID() fileid.ID {
	var b [8]byte
	rand.Read(b[:])
	return fileid.ID(binary.BigEndian.Uint64(b[:])) | fileid.InLayer
}

// reserved reports whether an extended attribute belongs to the form of layers. A version may have such
// attributes of another layer.
func reserved(name string) bool {
	return name == xattrID || name == xattrVerifier || name == xattrGroup || name == xattrOpaque ||
		strings.HasPrefix(name, overlayXattrs) && len(name) > len(overlayXattrs)
}

// Entry is an entry of an open directory, or without a name the open file itself. It is not followed if it is a
// symbolic link.
type Entry struct {
	FD   int
	Name string
}

// At returns the entry name of the open directory dir.
func At(dir int, name string) Entry { return Entry{FD: dir, Name: name} }

// path returns a path for calls that take no descriptor.
func (e Entry) path() string { return sysfile.ProcPath(e.FD, e.Name) }

// Xattr reads an extended attribute into buf.
func (e Entry) Xattr(name string, buf []byte) ([]byte, error) {
	var n int
	var err error
	if e.Name == "" {
		n, err = unix.Fgetxattr(e.FD, name, buf)
	} else {
		n, err = unix.Lgetxattr(sysfile.ProcPath(e.FD, e.Name), name, buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// setXattr sets an extended attribute.
func (e Entry) setXattr(name string, value []byte) error {
	if e.Name == "" {
		return unix.Fsetxattr(e.FD, name, value, 0)
	}
	return unix.Lsetxattr(sysfile.ProcPath(e.FD, e.Name), name, value, 0)
}

func (e Entry) has(name string) bool {
	_, err := e.Xattr(name, make([]byte, 64))
	return err == nil
}

// drop removes an extended attribute, which may be missing.
func (e Entry) drop(name string) error {
	err := unix.Lremovexattr(sysfile.ProcPath(e.FD, e.Name), name)
	if err == unix.ENODATA {
		return nil
	}
	return err
}

// ID reads trusted.dim.id into buf, which has at least 64 bytes. ok is false if the value is none that the format
// allows; the error is unix.ENODATA if the entry has no such attribute.
func (e Entry) ID(buf []byte) (id fileid.ID, origin *image.Digest, ok bool, err error) {
	v, err := e.Xattr(xattrID, buf)
	if err != nil || len(v) != 8 && len(v) != 40 {
		return 0, nil, false, err
	}
	if len(v) == 40 {
		d := image.Digest(v[8:])
		origin = &d
	}
	return fileid.ID(binary.BigEndian.Uint64(v)), origin, true, nil
}

// SetID sets trusted.dim.id.
func (e Entry) SetID(id fileid.ID, origin *image.Digest) error {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 40), uint64(id))
	if origin != nil {
		v = append(v, origin[:]...)
	}
	return e.setXattr(xattrID, v)
}

// DropID removes trusted.dim.id.
func (e Entry) DropID() error { return e.drop(xattrID) }

// Merged reports whether the directory e, at path in its layer, exists only for what is in it: it neither hides
// a version's directory nor is it new in the layer.
func (e Entry) Merged(path string) bool {
	id, _, ok, err := e.ID(make([]byte, 64))
	return (err != nil || ok && id == fileid.OfDir(path)) && !e.Opaque()
}

// Opaque reports whether the directory e hides the version's directory of its path.
func (e Entry) Opaque() bool { return e.has(xattrOpaque) }

// OpaqueValue returns the value of the mark of opaque directories; "" if there is none.
func (e Entry) OpaqueValue(buf []byte) string { return e.text(xattrOpaque, buf) }

// SetOpaque makes the directory e hide the version's.
func (e Entry) SetOpaque() error { return e.setXattr(xattrOpaque, []byte("y")) }

// DropOpaque makes the directory e merge with the version's.
func (e Entry) DropOpaque() error { return e.drop(xattrOpaque) }

// Verifier returns the verifier of the exclusive create that made e; "" if there is none.
func (e Entry) Verifier() string { return e.text(xattrVerifier, make([]byte, 16)) }

// SetVerifier stores the verifier of the exclusive create that makes e.
func (e Entry) SetVerifier(v []byte) error { return e.setXattr(xattrVerifier, v) }

// PartOfGroup reports whether names of the hard-link group of e are still missing.
func (e Entry) PartOfGroup() bool { return e.has(xattrGroup) }

// SetPartOfGroup marks e: names of its hard-link group are missing.
func (e Entry) SetPartOfGroup() error { return e.setXattr(xattrGroup, []byte("y")) }

// DropPartOfGroup removes the mark: the hard-link group of e is complete.
func (e Entry) DropPartOfGroup() error {
	if err := e.drop(xattrGroup); err != unix.EOPNOTSUPP {
		return err
	}
	return nil
}

// CountedAge returns the age of the directory e of the saved area as it was counted, and when it was counted; zero if
// it was not.
func (e Entry) CountedAge() (at time.Time, age time.Duration) {
	b, err := e.Xattr(xattrAge, make([]byte, 16))
	if err != nil || len(b) != 16 {
		return at, 0
	}
	age = time.Duration(binary.BigEndian.Uint64(b[8:]))
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))), age
}

// SetCountedAge records the age of the directory e of the saved area at a time.
func (e Entry) SetCountedAge(at time.Time, age time.Duration) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano()))
	return e.setXattr(xattrAge, binary.BigEndian.AppendUint64(b, uint64(age)))
}

// HasSavedMark reports whether the entry e of the saved area does not stand for itself.
func (e Entry) HasSavedMark() bool { return e.has(xattrSaved) }

// SetAttributes marks the directory e of the saved area as one that stands for the attributes that it has.
func (e Entry) SetAttributes() error { return e.setXattr(xattrSaved, []byte(AsideAttributes)) }

// forgotten is the saved mark of an entry that was removed and whose id must stay taken.
const forgotten = "forgotten"

// SetForgotten marks the entry e of the saved area as one that stands for its id alone.
func (e Entry) SetForgotten() error { return e.setXattr(xattrSaved, []byte(forgotten)) }

// DropSavedMark makes the entry e of the saved area stand for nothing but itself.
func (e Entry) DropSavedMark() error { return e.drop(xattrSaved) }

// BadSavedMark returns the saved mark of e, which has the given type, if it is one that the format does not allow.
func (e Entry) BadSavedMark(kind vfs.Type) (mark string, bad bool) {
	v, err := e.Xattr(xattrSaved, make([]byte, 64))
	if err != nil {
		return "", false
	}
	if kind == vfs.Directory {
		return string(v), string(v) != string(AsideAttributes)
	}
	return string(v), string(v) != forgotten
}

// why returns what made the directory e of the saved area or of the snapshots; "" if that is not known.
func (e Entry) why() string { return e.text(xattrWhy, make([]byte, 1024)) }

// SetWhy stores what made the directory e of the saved area.
func (e Entry) SetWhy(why string) error { return e.setXattr(xattrWhy, []byte(why)) }

func (e Entry) text(name string, buf []byte) string {
	v, err := e.Xattr(name, buf)
	if err != nil {
		return ""
	}
	return string(v)
}

// SetAttrs sets owner and mode of the directory e.
func (e Entry) SetAttrs(a Attrs) error {
	if err := unix.Fchownat(e.FD, e.Name, int(a.UID), int(a.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchmodat(e.FD, e.Name, a.Mode, 0)
}

// SetXattrs gives e the extended attributes of a version's entry, without reserved ones. It ignores errors for
// which tolerable returns true: the attribute is lost, as cp -a to such a file system would lose it.
func (e Entry) SetXattrs(list []image.Xattr, tolerable func(error) bool) error {
	for _, x := range list {
		if reserved(x.Name) {
			continue
		}
		if err := e.setXattr(x.Name, x.Value); err != nil && !tolerable(err) {
			return err
		}
	}
	return nil
}

// ReplaceXattrs removes the extended attributes old that a version had and sets those that it has now.
func (e Entry) ReplaceXattrs(old, now []image.Xattr) error {
	for _, x := range old {
		if !reserved(x.Name) {
			unix.Lremovexattr(sysfile.ProcPath(e.FD, e.Name), x.Name)
		}
	}
	return e.SetXattrs(now, func(err error) bool { return err == unix.EOPNOTSUPP })
}

// isNote reports whether an extended attribute describes a copy in the saved area or in a snapshot, not the entry
// itself.
func isNote(name string) bool {
	switch name {
	case xattrWhy, xattrSaved, xattrOver, xattrSize, xattrOrigin, xattrMerged, xattrConflicts:
		return true
	}
	return false
}

// copyXattrs gives to the extended attributes of e, except those for which without returns true.
func (e Entry) copyXattrs(to Entry, without func(name string) bool) error {
	names, err := e.xattrs()
	if err != nil {
		return err
	}
	for _, name := range names {
		if without(name) {
			continue
		}
		value, err := e.value(name)
		if err == nil {
			err = to.setXattr(name, value)
		}
		if err != nil && err != unix.ENODATA {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// xattrs returns the names of the extended attributes of e, sorted. A file system without extended attributes has none.
func (e Entry) xattrs() ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := unix.Llistxattr(e.path(), buf)
		if err == unix.ERANGE {
			buf = make([]byte, 64<<10)
			continue
		}
		if err == unix.EOPNOTSUPP || err == nil && n == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
		slices.Sort(names)
		return names, nil
	}
}

func (e Entry) value(name string) ([]byte, error) {
	v, err := e.Xattr(name, make([]byte, 256))
	if err == unix.ERANGE {
		v, err = e.Xattr(name, make([]byte, 64<<10))
	}
	return v, err
}

// SameXattrs reports whether two entries have the same extended attributes. Those that tell objects apart do not count.
func (e Entry) SameXattrs(other Entry) (bool, error) {
	var all [2][]string
	for i, one := range []Entry{e, other} {
		names, err := one.xattrs()
		if err != nil {
			return false, err
		}
		all[i] = slices.DeleteFunc(names, func(n string) bool {
			return isNote(n) || n == xattrID || n == xattrVerifier || n == xattrGroup
		})
	}
	if !slices.Equal(all[0], all[1]) {
		return false, nil
	}
	for _, name := range all[0] {
		mine, err := e.value(name)
		if err != nil {
			return false, err
		}
		theirs, err := other.value(name)
		if err != nil || !bytes.Equal(mine, theirs) {
			return false, err
		}
	}
	return true, nil
}

// HasXattrs reports whether the extended attributes of e are those of a version's entry. Reserved ones do not count,
// nor does the label that SELinux of this machine gives to every file.
func (e Entry) HasXattrs(list []image.Xattr) (bool, error) {
	names, err := e.xattrs()
	if err != nil {
		return false, err
	}
	own := 0
	for _, name := range names {
		if !uncounted(name) {
			own++
		}
	}
	for _, x := range list {
		if uncounted(x.Name) {
			continue
		}
		own--
		if value, err := e.value(x.Name); err == unix.ENODATA || err == nil && !bytes.Equal(value, x.Value) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return own == 0, nil
}

func uncounted(name string) bool { return reserved(name) || name == "security.selinux" }

// Sum returns the digest of a regular file's bytes.
func (e Entry) Sum() (image.Digest, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	fd, err := unix.Openat(e.FD, e.Name, flags, 0)
	if err != nil {
		return image.Digest{}, err
	}
	f := os.NewFile(uintptr(fd), e.Name)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return image.Digest(h.Sum(nil)), err
}

// Target returns where a symbolic link leads.
func (e Entry) Target() (string, error) { return os.Readlink(e.path()) }

// SameContent compares regular files by their bytes and symbolic links by their targets. Everything else has no
// content.
func (e Entry) SameContent(other Entry) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(e.FD, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	switch vfs.TypeOf(st.Mode) {
	case vfs.Symlink:
		mine, err := e.Target()
		if err != nil {
			return false, err
		}
		theirs, err := other.Target()
		return mine == theirs, err
	case vfs.Regular:
		return e.sameBytes(other)
	}
	return true, nil
}

func (e Entry) sameBytes(other Entry) (bool, error) {
	var files [2]*os.File
	for i, one := range []Entry{e, other} {
		const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
		fd, err := unix.Openat(one.FD, one.Name, flags, 0)
		if err != nil {
			return false, err
		}
		files[i] = os.NewFile(uintptr(fd), one.Name)
		defer files[i].Close()
	}
	bufs := [2][]byte{make([]byte, 64<<10), make([]byte, 64<<10)}
	for {
		n, errA := io.ReadFull(files[0], bufs[0])
		m, errB := io.ReadFull(files[1], bufs[1])
		if !bytes.Equal(bufs[0][:n], bufs[1][:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return true, nil
			}
			if err != nil {
				return false, err
			}
		}
	}
}
