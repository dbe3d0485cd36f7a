// Package unpack stores a master that consists of archives: a tar file, or the layers of a container image.
//
// # How
//
// A child process (package confine) decompresses and parses the archives and builds the draft of the tree, because the
// bytes of a master may break a parser. Its parent only hashes and stores what the child sends, in this order: the
// content of each file, and at the end the trees from the leaves up.
//
// The child does not know digests. It numbers what it sends, contents and trees together, and in its trees it writes
// these numbers in the place of digests. The parent puts in the digests, the holes and nothing else. So nothing is
// hashed twice, and nobody waits for an answer. Only a layer is asked for: the parent sends its bytes.
//
// # Concurrency
//
// Run may be called from any number of goroutines, each with its own batch.
package unpack

import (
	"encoding/binary"
	"io"
	"os"
	"time"

	"dim/internal/capture/archive"
	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
)

// TaskName is the name of Task for package confine.
const TaskName = "unpack"

// Source is what Run reads: a file or layers.
type Source struct {
	File    *os.File // a tar file, which may be compressed
	Layers  []Layer  // from the lowest to the highest
	Exclude pathmatch.List
}

// Layer is one archive of a container image, which may be compressed.
type Layer struct {
	DiffID string // the digest of the decompressed archive, in hexadecimal
	// Open returns the archive. Reading it to its end returns an error if it is not what it should be.
	Open func() (io.ReadCloser, error)
}

// Store is where the content goes; it is a *store.Batch.
type Store interface {
	archive.Batch
	PutTree(image.Tree) (image.Digest, error)
}

// Result is what was stored.
type Result struct {
	Root                 image.Entry
	Files, Bytes         uint64            // names without the root, and bytes of content
	FilesRead, BytesRead uint64            // contents that were read
	Odd                  []Oddity          // what is odd in the archives; each text once
	Replaced             map[string]string // the directories that replaced a link, and its target
}

// Oddity is something odd in an archive.
type Oddity struct {
	Path string // "": the archive
	Text string
	More int // how many other members have the same
}

// request is what the parent wants of the child.
type request struct {
	DiffIDs []string `json:"diff_ids,omitempty"` // of the layers; none: the file is read
	Exclude []string `json:"exclude,omitempty"`
}

// The frames of the child. What is numbered is marked with *.
const (
	kindProgress confine.Kind = confine.Own + iota // names and bytes so far, 8 bytes each
	kindSmall                                      // * a whole content
	kindBegin                                      // a content in parts follows; payload: 1 if its zeros become holes
	kindData                                       // a part of a content
	kindZeros                                      // 8 bytes: how many zeros are the next part
	kindContent                                    // * the content has ended
	kindTreePart                                   // the beginning of a large tree
	kindTree                                       // * a tree, or the rest of one
	kindLayer                                      // 4 bytes: the layer that is to be sent
	kindSummary                                    // a summary as JSON
)

// The frames of the parent.
const (
	kindLayerData confine.Kind = confine.Own + iota
	kindLayerEnd
)

// summary is the last that the child sends.
type summary struct {
	Root      []byte            `json:"root"` // as image.Entry.EncodeRoot returns it
	Files     uint64            `json:"files"`
	Bytes     uint64            `json:"bytes"`
	FilesRead uint64            `json:"files_read"`
	BytesRead uint64            `json:"bytes_read"`
	Odd       []Oddity          `json:"odd,omitempty"`
	Replaced  map[string]string `json:"replaced,omitempty"`
}

const (
	// maxObjects bounds contents and trees: two passes over the largest draft.
	maxObjects = 8 << 20
	// maxTree bounds the encoding of one directory, in bytes.
	maxTree = 128 << 20
	// maxTold bounds the oddities and the replaced links that are told.
	maxTold = 100
)

// limits are those of the child. The largest windows of decompressors and the largest draft fit into its memory.
func limits() confine.Limits { return confine.Limits{Memory: 2 << 30, Silence: 2 * time.Minute} }

// placeholder returns what stands in trees for the object with a number.
func placeholder(number int) (d image.Digest) {
	binary.BigEndian.PutUint64(d[:], uint64(number)+1)
	return d
}

// number returns the number that a placeholder stands for.
func number(d image.Digest) (uint64, bool) {
	n := binary.BigEndian.Uint64(d[:])
	var rest image.Digest
	copy(rest[:8], d[:8])
	return n - 1, n > 0 && d == rest
}
