package image

import (
	"crypto/sha256"
	"encoding/binary"
)

// ID is a file id: what a node sees as the inode number. See docs/formats/handle.md.
//
// The ids of what comes from a version or a node file are hashes with the top bit clear, so every server computes the
// same ones and no table is kept. Ids of entries born in a layer have the top bit set.
type ID uint64

// Born marks the ids of entries born in a layer.
const Born ID = 1 << 63

// RootID is the id of every tree's root directory.
const RootID ID = 1

// DirID returns the id of the directory at path (slash-separated, from the root, no leading slash; "" is the
// root). It depends on nothing else, so a directory keeps its id, and mounts upon it, whatever changes in it.
func DirID(path string) ID {
	if path == "" {
		return RootID
	}
	return id('d', path, nil)
}

// EntryID returns the id of entry e at path. For a non-directory it changes with the content: the digest of a
// regular file, the target of a symlink, the numbers of a device. The names of a hard-link group share one id.
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
	var room [256]byte // of the stack: a version has a hundred thousand
	b := binary.BigEndian.AppendUint32(append(room[:0], kind), uint32(len(content)))
	b = append(append(b, content...), path...)
	sum := sha256.Sum256(b)
	v := ID(binary.BigEndian.Uint64(sum[:])) &^ Born
	if v <= 15 { // reserved: 0 is none, 1 the root
		v += 16
	}
	return v
}
