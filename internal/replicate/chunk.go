package replicate

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// Content-defined chunks: a cut depends on the 64 bytes before it alone, so an insertion moves the cuts behind it along
// with the bytes. The constants are frozen, as is the table: golden vectors in the tests keep them.
const (
	minChunk  = 4 << 10
	maxChunk  = 64 << 10
	cutMask   = 0xfff8_0000_0000_0000 // 13 bits: a chunk has 12 KiB on average
	gearBytes = 256
)

// gear is the table of the rolling hash: for each value of a byte 64 bits of the SHA-256 of that byte.
type gear [gearBytes]uint64

func newGear() *gear {
	var g gear
	for i := range g {
		sum := sha256.Sum256([]byte{byte(i)})
		g[i] = binary.BigEndian.Uint64(sum[:8])
	}
	return &g
}

// cut returns the length of the first chunk of b. If b has fewer bytes than maxChunk, nothing may follow it.
func (g *gear) cut(b []byte) int {
	if len(b) <= minChunk {
		return len(b)
	}
	b = b[:min(len(b), maxChunk)]
	hash := uint64(0)
	for i, c := range b[minChunk-64:] {
		hash = hash<<1 + g[c]
		if hash&cutMask == 0 && i >= 64 {
			return minChunk - 64 + i
		}
	}
	return len(b)
}

// chunks calls yield with each chunk of r and its offset.
func (g *gear) chunks(r io.Reader, yield func(off int64, chunk []byte) error) error {
	buf := bufio.NewReaderSize(r, 4*maxChunk)
	for off := int64(0); ; {
		b, err := buf.Peek(maxChunk)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(b) == 0 {
			return nil
		}
		n := g.cut(b)
		if err := yield(off, b[:n]); err != nil {
			return err
		}
		off += int64(n)
		_, _ = buf.Discard(n) // no more than Peek returned
	}
}
