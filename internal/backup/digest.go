package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"dim/internal/image"
)

// block is the unit of holes.
const block = 4096

// hasher computes the digest of a file from its data, in order of their offsets. What is not written is zeros.
type hasher struct {
	h    hash.Hash
	size uint64
	at   uint64 // up to here all is hashed, but what is in part
	part []byte // of a block, only when blocks of zeros are left out
	zero []byte // made when it is needed
}

func newHasher(size uint64) *hasher {
	return &hasher{h: sha256.New(), size: size}
}

var errGrown = errors.New("it has other bytes than its size says")

// write takes the bytes from offset off on.
func (w *hasher) write(b []byte, off uint64) error {
	if off < w.at || off+uint64(len(b)) > w.size {
		return errGrown
	}
	if w.size <= wholeMax {
		w.zeros(off - w.at)
		w.h.Write(b)
		w.at = off + uint64(len(b))
		return nil
	}
	w.skip(off - w.at)
	for len(b) > 0 {
		n := min(len(b), int(block-w.at%block))
		w.part = append(w.part, b[:n]...)
		b, w.at = b[n:], w.at+uint64(n)
		if w.at%block == 0 {
			w.flush()
		}
	}
	return nil
}

// zeros hashes n zeros.
func (w *hasher) zeros(n uint64) {
	if n > 0 && w.zero == nil {
		w.zero = make([]byte, 64<<10)
	}
	for n > 0 {
		part := min(n, uint64(len(w.zero)))
		w.h.Write(w.zero[:part])
		n -= part
	}
}

// skip goes on by n zeros, which are hashed only in blocks that have something else.
func (w *hasher) skip(n uint64) {
	if head := min(n, -w.at%block); head > 0 {
		w.part = append(w.part, make([]byte, head)...)
		w.at, n = w.at+head, n-head
		if w.at%block == 0 {
			w.flush()
		}
	}
	if tail := n % block; n > 0 {
		w.at += n - tail
		w.part = append(w.part, make([]byte, tail)...)
		w.at += tail
	}
}

// flush hashes the block that ends at w.at, with its offset, unless it is zeros.
func (w *hasher) flush() {
	if bytes.ContainsFunc(w.part, func(r rune) bool { return r != 0 }) {
		var off [8]byte
		binary.BigEndian.PutUint64(off[:], w.at-uint64(len(w.part)))
		w.h.Write(off[:])
		w.h.Write(w.part)
	}
	w.part = w.part[:0]
}

// sum returns the digest of all of the file.
func (w *hasher) sum() image.Digest {
	if w.size <= wholeMax {
		w.zeros(w.size - w.at)
	} else {
		w.skip(w.size - w.at)
		w.flush()
	}
	w.at = w.size
	return image.Digest(w.h.Sum(nil))
}
