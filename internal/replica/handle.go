package replica

import (
	"crypto/sha256"
	"encoding/binary"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/vfs"
)

// The form of a handle is in docs/formats/handle.md.
const (
	handleFormat = 1
	handleShort  = 18
	handleLong   = handleShort + sha256.Size
)

// Tree is the part of a handle that identifies a replica, or a version served read-only.
type Tree [8]byte

// TreeOf returns the tree that a handle belongs to; ok is false if h is no handle of format 1.
func TreeOf(h vfs.Handle) (t Tree, ok bool) {
	b := h.Bytes()
	if len(b) != handleShort && len(b) != handleLong || b[0] != handleFormat || b[1] != 0 {
		return t, false
	}
	return Tree(b[2:10]), true
}

// ReplicaTree returns the tree of node's replica of image.
func ReplicaTree(node, image string) Tree {
	return Tree(sum("replica", node, image))
}

// VersionTree returns the tree of a version that is served read-only.
func VersionTree(image string, d image.Digest) Tree { return Tree(sum("version", image, string(d[:]))) }

func sum(kind, a, b string) []byte {
	s := sha256.Sum256([]byte(kind + "\x00" + a + "\x00" + b))
	return s[:8]
}

func makeHandle(t Tree, id fileid.ID, origin *image.Digest) vfs.Handle {
	var b [handleLong]byte
	b[0] = handleFormat
	copy(b[2:], t[:])
	binary.BigEndian.PutUint64(b[10:], uint64(id))
	n := handleShort
	if origin != nil {
		n += copy(b[handleShort:], origin[:])
	}
	h, _ := vfs.MakeHandle(b[:n])
	return h
}

// parseHandle returns the id in h, and the digest; origin is empty if it has none.
func parseHandle(h *vfs.Handle) (id fileid.ID, origin []byte) {
	b := h.Bytes()
	return fileid.ID(binary.BigEndian.Uint64(b[10:])), b[handleShort:]
}
