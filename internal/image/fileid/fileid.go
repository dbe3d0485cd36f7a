// Package fileid computes file ids, which nodes see as inode numbers. docs/formats/handle.md defines them.
//
// Ids of entries of versions and of node files are hashes with the top bit clear. Every server computes the same ids,
// so there is no table of them. Ids of files that were created in a layer have the top bit set.
package fileid

import (
	"crypto/sha256"
	"encoding/binary"

	"dim/internal/image"
)

// ID is a file id.
type ID uint64

// InLayer is the bit that is set in the ids of files that were created in a layer.
const InLayer ID = 1 << 63

// Root is the id of every root directory.
const Root ID = 1

// OfDir returns the id of the directory at path, which is slash-separated, from the root, without a leading slash; ""
// is the root. It only depends on the path. So a directory keeps its id, and mounts on it, when its content changes.
func OfDir(path string) ID {
	if path == "" {
		return Root
	}
	return hash('d', path, nil)
}

// OfEntry returns the id of entry e at path. Except for directories it changes with the content: the digest of a
// regular file, the target of a symlink, the numbers of a device. The names of a group of hard links have one id.
func OfEntry(path string, e *image.Entry) ID {
	if e.Link != "" {
		path = e.Link
	}
	switch e.Type {
	case image.Directory:
		return OfDir(path)
	case image.Regular:
		return hash('f', path, e.Digest[:])
	case image.Symlink:
		return hash('l', path, []byte(e.Target))
	case image.CharDevice, image.BlockDevice:
		numbers := uint64(e.Major)<<32 | uint64(e.Minor)
		return hash('0'+byte(e.Type), path, binary.BigEndian.AppendUint64(nil, numbers))
	}
	return hash('0'+byte(e.Type), path, nil)
}

// OfNodeFile returns the id of the node file at path with the given content.
func OfNodeFile(path string, content image.Digest) ID { return hash('n', path, content[:]) }

func hash(kind byte, path string, content []byte) ID {
	var buf [256]byte // on the stack: a version has a hundred thousand entries
	b := binary.BigEndian.AppendUint32(append(buf[:0], kind), uint32(len(content)))
	b = append(append(b, content...), path...)
	sum := sha256.Sum256(b)
	id := ID(binary.BigEndian.Uint64(sum[:])) &^ InLayer
	if id <= 15 { // reserved: 0 means none, 1 is the root
		id += 16
	}
	return id
}
