// Package image is the vocabulary of images: digests, trees and their entries, versions, references,
// path patterns, and the ids of entries. It defines the bytes of a tree (docs/formats/tree.md), and does no I/O.
//
// # Concepts
//
// A tree is one directory's listing: entries sorted by name, bytewise. A directory entry names its
// subtree by digest, a regular file its blob, so the digest of the root tree and the root's own entry
// identify a whole capture. Trees know nothing of where they stand, with one exception: the names of a
// hard-linked file carry the group's first path, because they share an identity.
//
// # Invariants
//
// Encoding is canonical: equal trees are equal bytes, and Parse refuses any other form. Names are
// arbitrary bytes but never empty, ".", "..", nor contain '/' or NUL.
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Digest is a SHA-256 over the plain bytes of a blob or an encoded tree.
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String returns d in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns enough of d for a person to tell it from others.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is unset.
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

// Type is the kind of an entry. Sockets are not captured.
type Type uint8

// The types of entries; the numbers are part of the tree format.
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

// Entry is one line of a tree: an object's name and everything a capture keeps of it.
type Entry struct {
	Name  string
	Type  Type
	Mode  uint32 // 07777
	UID   uint32
	GID   uint32
	Mtime Time
	Size  uint64 // regular: content length in bytes

	// Digest is the blob of a regular file (Sum of nothing when it is empty) or the tree of a directory.
	Digest Digest
	// Target is a symlink's target.
	Target string
	// Major and Minor are a device's numbers.
	Major, Minor uint32
	// Link is set on every name of a non-directory that has more than one name in the capture: the slash-separated
	// path (from the root, without a leading slash) of the group's first name in walk order. Nlink is then the
	// number of names; otherwise it is 1, and 0 stands for 1 in directories.
	Link  string
	Nlink uint32
	// Data lists a sparse file's non-hole ranges, in order; nil when the file has no holes.
	Data []Extent
	// Xattrs are sorted by name; POSIX ACLs and file capabilities are among them.
	Xattrs []Xattr
}

// Time is a modification time to the nanosecond; Sec counts from the Unix epoch.
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
	Root    Entry     `json:"-"`      // the root directory itself; its Name is empty
	Digest  Digest    `json:"digest"` // identifies the capture: of the tree that holds Root as its only entry
	Created time.Time `json:"created"`
	Master  string    `json:"master,omitempty"`
	Parent  int       `json:"parent,omitempty"`
	Files   uint64    `json:"files"` // names in the tree, of all types
	Bytes   uint64    `json:"bytes"` // content bytes, each hard-linked file once
	Tags    []string  `json:"tags,omitempty"`
}

// Ref returns the version's reference, "compute@12".
func (v Version) Ref() Ref { return Ref{Image: v.Image, Number: v.Number} }
