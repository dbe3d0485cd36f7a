package image

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Tree is the listing of a directory: entries with different names, sorted bytewise.
type Tree []Entry

// Lookup returns the entry with a name.
func (t Tree) Lookup(name string) (*Entry, bool) {
	i, ok := slices.BinarySearchFunc(t, name, func(e Entry, name string) int {
		return strings.Compare(e.Name, name)
	})
	if !ok {
		return nil, false
	}
	return &t[i], true
}

// The limits of the tree format, in bytes. They are those of Linux.
const (
	maxName   = 255
	maxTarget = 4095
	maxXattr  = 64 << 10
)

const (
	treeFormat = 1

	// The bits of an entry's kind byte: the type, and the optional parts that follow.
	kindType   = 0x0f
	kindLink   = 0x10
	kindData   = 0x20
	kindXattrs = 0x40

	minEntry = 8 // bytes of the smallest entry: a FIFO with a name of one byte
)

// Encode returns the canonical encoding of t. It refuses a tree that ParseTree would refuse.
func (t Tree) Encode() ([]byte, error) {
	for i := range t {
		if !ValidEntryName(t[i].Name) {
			return nil, fmt.Errorf("encode tree: %q is not a name", t[i].Name)
		}
		if i > 0 && t[i-1].Name >= t[i].Name {
			return nil, fmt.Errorf("encode tree: %q is after %q", t[i].Name, t[i-1].Name)
		}
	}
	return appendEntries(make([]byte, 0, 8+96*len(t)), t)
}

// EncodeRoot returns the encoding of a tree with e as its only entry. e is a directory without a name. The digest of
// the encoding is Version.Digest.
func (e *Entry) EncodeRoot() ([]byte, error) {
	if e.Name != "" || e.Type != Directory {
		return nil, fmt.Errorf("encode root: want a directory without a name, not %s %q", e.Type, e.Name)
	}
	return appendEntries(nil, Tree{*e})
}

func appendEntries(dst []byte, t Tree) ([]byte, error) {
	dst = append(dst, treeFormat)
	dst = binary.AppendUvarint(dst, uint64(len(t)))
	for i := range t {
		e := &t[i]
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("encode tree: %q: %w", e.Name, err)
		}
		dst = e.append(dst)
	}
	return dst, nil
}

func (e *Entry) append(b []byte) []byte {
	kind := byte(e.Type)
	if e.Link != "" {
		kind |= kindLink
	}
	if e.Data != nil {
		kind |= kindData
	}
	if len(e.Xattrs) > 0 {
		kind |= kindXattrs
	}
	b = append(b, kind)
	b = appendString(b, e.Name)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.UID))
	b = binary.AppendUvarint(b, uint64(e.GID))
	b = binary.AppendVarint(b, e.Mtime.Sec)
	b = binary.AppendUvarint(b, uint64(e.Mtime.Nsec))
	switch e.Type {
	case Regular:
		b = binary.AppendUvarint(b, e.Size)
		b = append(b, e.Digest[:]...)
	case Directory:
		b = append(b, e.Digest[:]...)
	case Symlink:
		b = appendString(b, e.Target)
	case CharDevice, BlockDevice:
		b = binary.AppendUvarint(b, uint64(e.Major))
		b = binary.AppendUvarint(b, uint64(e.Minor))
	}
	return e.appendOptional(b)
}

func (e *Entry) appendOptional(b []byte) []byte {
	if e.Link != "" {
		b = appendString(b, e.Link)
		b = binary.AppendUvarint(b, uint64(e.Nlink))
	}
	if e.Data != nil {
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		end := uint64(0)
		for _, x := range e.Data {
			b = binary.AppendUvarint(b, x.Offset-end)
			b = binary.AppendUvarint(b, x.Length)
			end = x.Offset + x.Length
		}
	}
	if len(e.Xattrs) > 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
		for _, x := range e.Xattrs {
			b = appendString(b, x.Name)
			b = binary.AppendUvarint(b, uint64(len(x.Value)))
			b = append(b, x.Value...)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ValidEntryName reports whether s can be the name of an entry: 1 to 255 bytes, not "." or "..", without '/' and NUL.
func ValidEntryName(s string) bool {
	return s != "" && len(s) <= maxName && s != "." && s != ".." &&
		strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// ValidTarget reports whether e's target can be that of a symlink: 1 to 4095 bytes without NUL.
func (e *Entry) ValidTarget() bool {
	return e.Target != "" && len(e.Target) <= maxTarget && strings.IndexByte(e.Target, 0) < 0
}

// Valid reports whether an entry can have x: a name of 1 to 255 bytes without NUL, and a value of at most 64 KiB.
func (x *Xattr) Valid() bool {
	return x.Name != "" && len(x.Name) <= maxName && strings.IndexByte(x.Name, 0) < 0 && len(x.Value) <= maxXattr
}

func validPath(p string) bool {
	for name := range strings.SplitSeq(p, "/") {
		if !ValidEntryName(name) {
			return false
		}
	}
	return true
}

// check reports an entry that the format cannot represent, or could represent in two ways. It does not check the name.
func (e *Entry) check() error {
	switch {
	case e.Type < Regular || e.Type > FIFO:
		return fmt.Errorf("unknown type %d", e.Type)
	case e.Mode > 0o7777:
		return fmt.Errorf("mode %#o is out of range", e.Mode)
	case e.Mtime.Nsec >= 1e9:
		return fmt.Errorf("%d nanoseconds are out of range", e.Mtime.Nsec)
	}
	if err := e.checkFields(); err != nil {
		return err
	}
	if err := e.checkLink(); err != nil {
		return err
	}
	if err := e.checkData(); err != nil {
		return err
	}
	return e.checkXattrs()
}

func (e *Entry) checkFields() error {
	if e.Type != Regular && (e.Size != 0 || e.Data != nil) {
		return fmt.Errorf("%s with a size", e.Type)
	}
	if e.Type != Regular && e.Type != Directory && !e.Digest.IsZero() {
		return fmt.Errorf("%s with a digest", e.Type)
	}
	if e.Type != CharDevice && e.Type != BlockDevice && (e.Major != 0 || e.Minor != 0) {
		return fmt.Errorf("%s with device numbers", e.Type)
	}
	if e.Type == Symlink {
		if !e.ValidTarget() {
			return fmt.Errorf("target of %d bytes is empty, too long or has a NUL", len(e.Target))
		}
	} else if e.Target != "" {
		return fmt.Errorf("%s with a target", e.Type)
	}
	if e.Size > math.MaxInt64 {
		return fmt.Errorf("size %d is out of range", e.Size)
	}
	if e.Type == Regular && e.Size == 0 && e.Digest != Sum(nil) {
		return fmt.Errorf("empty file with the digest of another")
	}
	return nil
}

func (e *Entry) checkLink() error {
	switch {
	case e.Link == "" && e.Nlink > 1:
		return fmt.Errorf("%d names but no group", e.Nlink)
	case e.Link == "":
		return nil
	case e.Type == Directory:
		return fmt.Errorf("directory in a hard-link group")
	case e.Nlink < 2:
		return fmt.Errorf("hard-link group of %d", e.Nlink)
	case !validPath(e.Link):
		return fmt.Errorf("hard-link group %q is not a path", e.Link)
	}
	return nil
}

func (e *Entry) checkData() error {
	if e.Data == nil {
		return nil
	}
	end := uint64(0)
	for i, x := range e.Data {
		unordered := x.Offset < end || i > 0 && x.Offset == end
		if x.Length == 0 || unordered || x.Length > e.Size || x.Offset > e.Size-x.Length {
			return fmt.Errorf("extent %d+%d is out of order or range", x.Offset, x.Length)
		}
		end = x.Offset + x.Length
	}
	if e.Size == 0 || len(e.Data) == 1 && e.Data[0].Length == e.Size {
		return fmt.Errorf("extents of a file without holes")
	}
	return nil
}

func (e *Entry) checkXattrs() error {
	for i := range e.Xattrs {
		x := &e.Xattrs[i]
		if !x.Valid() {
			return fmt.Errorf("xattr %q of %d bytes is out of range", x.Name, len(x.Value))
		}
		if i > 0 && e.Xattrs[i-1].Name >= x.Name {
			return fmt.Errorf("xattr %q is out of order", x.Name)
		}
	}
	return nil
}
