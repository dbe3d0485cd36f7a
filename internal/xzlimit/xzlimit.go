// Package xzlimit bounds the memory that decompressing an xz file may take. The header of an xz block gives the size of
// its dictionary, up to 4 GiB, which decoders allocate: without a bound, a file of a few bytes could exhaust a server's
// memory.
//
// The package follows the structure of a file and decompresses nothing. See The .xz File Format 1.2.1 and, for LZMA2
// chunks, xz_dec_lzma2.c in XZ Embedded.
package xzlimit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	errTooLarge  = errors.New("the file was compressed with too large a dictionary")
	errStructure = errors.New("xz: the structure is damaged")
)

// Reader passes an xz file through unless one of its dictionaries is too large.
type Reader struct {
	in        *bufio.Reader
	max       uint64
	pass      int64        // bytes that may be passed on before next is called
	next      func() error // parses the next part of the structure
	checkSize int64        // size of the check after each block of the stream
	blockSize int64        // bytes of the block's chunks so far
	numbers   uint64       // remaining in the index
	indexSize int64        // bytes of the index so far
}

// New returns a reader of r, an xz file. It fails before it passes on the header of a block whose dictionary has more
// than max bytes.
func New(r io.Reader, max uint64) *Reader {
	x := &Reader{in: bufio.NewReaderSize(r, 64<<10), max: max}
	x.next = x.stream
	return x
}

// Read implements io.Reader.
func (x *Reader) Read(p []byte) (int, error) {
	for x.pass == 0 {
		if err := x.next(); err != nil {
			return 0, err
		}
	}
	n, err := x.in.Read(p[:min(int64(len(p)), x.pass)])
	x.pass -= int64(n)
	return n, err
}

// peek returns the next n bytes. If the file is shorter, it returns those that there are and an error.
func (x *Reader) peek(n int) ([]byte, error) {
	b, err := x.in.Peek(n)
	if err != nil && len(b) > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// stream parses the header of a stream, or the padding before it.
func (x *Reader) stream() error {
	b, err := x.peek(4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b) == 0 {
		x.pass = 4
		return nil
	}
	if b, err = x.peek(12); err != nil {
		return err
	}
	if string(b[:6]) != "\xfd7zXZ\x00" || b[6] != 0 || b[7] > 15 {
		return errStructure
	}
	x.checkSize = 0
	if kind := int(b[7]); kind > 0 {
		x.checkSize = 4 << ((kind - 1) / 3)
	}
	x.pass, x.next = 12, x.block
	return nil
}

// block parses the header of a block, or the beginning of the index.
func (x *Reader) block() error {
	b, err := x.peek(1)
	if err != nil {
		return err
	}
	if b[0] == 0 {
		x.pass, x.indexSize, x.next = 1, 1, x.count
		return nil
	}
	size := 4 * (int(b[0]) + 1)
	if b, err = x.peek(size); err != nil {
		return err
	}
	if err := x.filters(b[1 : size-4]); err != nil {
		return err
	}
	x.pass, x.blockSize, x.next = int64(size), 0, x.lzma2
	return nil
}

// filters parses the rest of a block's header.
func (x *Reader) filters(b []byte) error {
	flags := b[0]
	b = b[1:]
	for _, present := range []byte{flags & 0x40, flags & 0x80} { // compressed, uncompressed size
		if present != 0 {
			if _, ok := number(&b); !ok {
				return errStructure
			}
		}
	}
	for range flags&3 + 1 {
		id, ok := number(&b)
		size, ok2 := number(&b)
		if !ok || !ok2 || size > uint64(len(b)) {
			return errStructure
		}
		if id == 0x21 && size == 1 {
			if err := x.dictionary(b[0]); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

// dictionary checks the size of a dictionary.
func (x *Reader) dictionary(bits byte) error {
	if bits > 40 {
		return errStructure
	}
	size := uint64(2|bits&1) << (bits/2 + 11)
	if size > x.max {
		return fmt.Errorf("%w: decompressing it takes %d MiB of memory, the limit is %d MiB (xz -9 takes 64)",
			errTooLarge, size>>20, x.max>>20)
	}
	return nil
}

// lzma2 parses the header of a chunk, or the end of a block.
func (x *Reader) lzma2() error {
	b, err := x.peek(1)
	if err != nil {
		return err
	}
	control, head := b[0], 0
	switch {
	case control == 0:
		x.blockSize++
		x.pass, x.next = 1+-x.blockSize&3+x.checkSize, x.block
		return nil
	case control <= 2:
		head = 3
	case control < 0x80:
		return errStructure
	case control < 0xc0:
		head = 5
	default:
		head = 6
	}
	if b, err = x.peek(max(head, 5)); err != nil && len(b) < head {
		return err
	}
	size := binary.BigEndian.Uint16(b[1:])
	if control >= 0x80 {
		size = binary.BigEndian.Uint16(b[3:])
	}
	x.pass = int64(head) + int64(size) + 1
	x.blockSize += x.pass
	return nil
}

// count parses the number of records in the index.
func (x *Reader) count() error {
	n, err := x.indexNumber()
	if err != nil {
		return err
	}
	if n > 1<<32 {
		return errStructure
	}
	x.numbers, x.next = 2*n, x.record
	return nil
}

// record parses a number in the index, or the end of the index.
func (x *Reader) record() error {
	if x.numbers == 0 {
		x.pass, x.next = -x.indexSize&3+4+12, x.stream
		return nil
	}
	x.numbers--
	_, err := x.indexNumber()
	return err
}

func (x *Reader) indexNumber() (uint64, error) {
	b, err := x.in.Peek(9)
	if len(b) == 0 {
		return 0, err
	}
	rest := b
	n, ok := number(&rest)
	switch {
	case !ok && len(b) < 9:
		return 0, io.ErrUnexpectedEOF
	case !ok:
		return 0, errStructure
	}
	x.pass = int64(len(b) - len(rest))
	x.indexSize += x.pass
	return n, nil
}

// number removes a variable-length number from the beginning of b.
func number(b *[]byte) (n uint64, ok bool) {
	for i, c := range *b {
		if i == 9 {
			break
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			*b = (*b)[i+1:]
			return n, true
		}
	}
	return 0, false
}
