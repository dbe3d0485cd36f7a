package image

import (
	"crypto/sha256"
	"encoding/binary"
)

// ID is a file id, which a node sees as the inode number. docs/formats/handle.md defines it.
//
// Ids of entries of versions and of node files are hashes with the top bit clear. Every server computes the same ids,
// so there is no table of them. Ids of files that were created in a layer have the top bit set.
type ID uint64

// Born is the bit that is set in the ids of files that were created in a layer.
const Born ID = 1 << 63

// RootID is the id of every root directory.
const RootID ID = 1

// DirID returns the id of the directory at path, which is slash-separated, from the root, without a leading slash; ""
// is the root. It only depends on the path. So a directory keeps its id, and mounts on it, when its content changes.
func DirID(path string) ID {
	if path == "" {
		return RootID
	}
	return id('d', path, nil)
}

// EntryID returns the id of entry e at path. Except for directories it changes with the content: the digest of a
// regular file, the target of a symlink, the numbers of a device. The names of a group of hard links have one id.
func EntryID(path string, e *Entry) ID {
	if e.Link != "" {
		path = e.Link
	}
	switch e.Type {
	case Directory:
		return DirID(path)
	case Regular:
		return id('f', path, e.Digest[:])
	case Symlink:
		return id('l', path, []byte(e.Target))
	case CharDevice, BlockDevice:
		return id('0'+byte(e.Type), path, binary.BigEndian.AppendUint64(nil, uint64(e.Major)<<32|uint64(e.Minor)))
	}
	return id('0'+byte(e.Type), path, nil)
}

// NodeFileID returns the id of the node file at path with the given content.
func NodeFileID(path string, content Digest) ID { return id('n', path, content[:]) }

func id(kind byte, path string, content []byte) ID {
	var buf [256]byte // on the stack: a version has a hundred thousand entries
	b := binary.BigEndian.AppendUint32(append(buf[:0], kind), uint32(len(content)))
	b = append(append(b, content...), path...)
	sum := sha256.Sum256(b)
	v := ID(binary.BigEndian.Uint64(sum[:])) &^ Born
	if v <= 15 { // reserved: 0 means none, 1 is the root
		v += 16
	}
	return v
}
