// Package image is the vocabulary of images: digests, trees and their entries, versions, and references. It defines the
// encoding of trees (docs/formats/tree.md), and does no I/O.
//
// # Concepts
//
// A tree is the listing of one directory: entries sorted by name, bytewise. The entry of a directory has the digest of
// its tree, the entry of a regular file the digest of its blob. So the root's entry identifies a whole capture. A tree
// does not depend on its path, with one exception: each name of a hard-linked file has the path of the first name,
// because the names are one file.
//
// # Invariants
//
// The encoding is canonical: equal trees have equal bytes, and ParseTree refuses all others. Names are arbitrary bytes
// without '/' and NUL. They are not empty, "." or "..".
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Digest is the SHA-256 of a blob or of an encoded tree.
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String returns d in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first twelve digits of d, for display.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is the zero Digest, which stands for none.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error {
	p, err := ParseDigest(string(b))
	*d = p
	return err
}

// ParseDigest parses the form that String returns.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("parse digest %q: want %d hex digits", s, 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("parse digest %q: %v", s, err)
	}
	return d, nil
}

// Type is the type of an entry. Sockets are not captured.
type Type uint8

// The types of entries. The numbers are part of the tree format.
const (
	Regular     Type = 1
	Directory   Type = 2
	Symlink     Type = 3
	CharDevice  Type = 4
	BlockDevice Type = 5
	FIFO        Type = 6
)

// String returns the type's English name.
func (t Type) String() string {
	switch t {
	case Regular:
		return "file"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	case CharDevice:
		return "character device"
	case BlockDevice:
		return "block device"
	case FIFO:
		return "fifo"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Entry is an entry of a tree: the name of a file of any type, and what a capture keeps of it.
type Entry struct {
	Name  string
	Type  Type
	Mode  uint32 // 07777
	UID   uint32
	GID   uint32
	Mtime Time
	Size  uint64 // of a regular file, in bytes

	// Digest is that of the blob of a regular file (Sum(nil) if it is empty), or of the tree of a directory.
	Digest Digest
	// Target is a symlink's target.
	Target string
	// Major and Minor are a device's numbers.
	Major, Minor uint32
	// Link is set if the file has several names in the capture, which are a group of hard links. It is the path of the
	// group's first name in walk order: slash-separated, from the root, without a leading slash. Nlink is the number of
	// names. Without a group it is 1, or 0 for a directory.
	Link  string
	Nlink uint32
	// Data are the ranges of a sparse file that are not holes, in order. It is nil if the file has no holes.
	Data []Extent
	// Xattrs are sorted by name. They include POSIX ACLs and file capabilities.
	Xattrs []Xattr
}

// SameAttributes reports whether e and o are equal, apart from their names and the content of directories.
func (e *Entry) SameAttributes(o *Entry) bool {
	return e.Type == o.Type && e.Mode == o.Mode && e.UID == o.UID && e.GID == o.GID && e.Mtime == o.Mtime &&
		e.Size == o.Size && (e.Type == Directory || e.Digest == o.Digest) && e.Target == o.Target &&
		e.Major == o.Major && e.Minor == o.Minor && e.Link == o.Link && max(e.Nlink, 1) == max(o.Nlink, 1) &&
		slices.Equal(e.Data, o.Data) && (e.Data == nil) == (o.Data == nil) &&
		slices.EqualFunc(e.Xattrs, o.Xattrs, func(a, b Xattr) bool {
			return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
		})
}

// Time is a modification time: seconds since the Unix epoch, and nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Extent is a range of bytes in a file.
type Extent struct{ Offset, Length uint64 }

// Xattr is one extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Version is one immutable capture of an image.
type Version struct {
	Image   string    `json:"image"`
	Number  int       `json:"version"`
	Root    Entry     `json:"-"`      // of the root directory; its Name is empty
	Digest  Digest    `json:"digest"` // of Root.EncodeRoot(): it identifies the capture
	Created time.Time `json:"created"`
	Master  string    `json:"master,omitempty"`
	Parent  int       `json:"parent,omitempty"`
	Files   uint64    `json:"files"` // names of files of all types
	Bytes   uint64    `json:"bytes"` // of content, a hard-linked file counts once
	Tags    []string  `json:"tags,omitempty"`
}

// Ref returns the version's reference, "compute@12".
func (v Version) Ref() Ref { return Ref{Image: v.Image, Number: v.Number} }
