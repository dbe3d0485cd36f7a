package replicate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"dim/internal/image"
)

// request is the body of a request.
type request struct {
	of   image.Digest   // the root or the file
	from uint64         // of the answer, what the asker has already: records of trees, or bytes of the file
	list []image.Digest // bases, or blobs
}

func (r *request) encode() []byte {
	b := append([]byte(nil), r.of[:]...)
	b = binary.AppendUvarint(b, r.from)
	b = binary.AppendUvarint(b, uint64(len(r.list)))
	for i := range r.list {
		b = append(b, r.list[i][:]...)
	}
	return b
}

var errRequest = errors.New("malformed request")

// parseRequest parses the body of a request with at most maxList digests.
func parseRequest(b []byte, maxList int) (r request, err error) {
	if len(b) < len(r.of) {
		return r, errRequest
	}
	b = b[copy(r.of[:], b):]
	from, n := binary.Uvarint(b)
	if n <= 0 {
		return r, errRequest
	}
	count, m := binary.Uvarint(b[n:])
	if m <= 0 || count > uint64(maxList) || uint64(len(b)-n-m) != count*uint64(len(r.of)) {
		return r, errRequest
	}
	r.from, b = from, b[n+m:]
	r.list = make([]image.Digest, count)
	for i := range r.list {
		b = b[copy(r.list[i][:], b):]
	}
	return r, nil
}

// The kinds of records in an answer.
const (
	kindBase    = 'b' // the digest of the base that differences are to; zero: none
	kindWhole   = 'w' // a tree or blob
	kindDelta   = 'd' // a tree, as its difference to another one
	kindCopy    = 'c' // bytes of the base
	kindLiteral = 'l' // bytes that follow
	kindZeros   = 'z' // zeros
	kindAbsent  = 'a' // the source does not have what was asked for
	kindPending = 'p' // the source is getting what was asked for; how many bytes of the version it has got
	kindEnd     = 'e' // the answer is complete
)

// writer encodes the records of an answer. After an error its methods do nothing.
type writer struct {
	w      *bufio.Writer
	err    error
	absent bool // a record says that something is absent
}

func (w *writer) kind(k byte, numbers ...uint64) {
	w.absent = w.absent || k == kindAbsent
	var room [1 + 2*binary.MaxVarintLen64]byte
	b := append(room[:0], k)
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	w.bytes(b)
}

func (w *writer) number(n uint64) { w.bytes(binary.AppendUvarint(nil, n)) }

func (w *writer) bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
}

// whole writes a tree or blob.
func (w *writer) whole(content []byte) {
	w.kind(kindWhole, uint64(len(content)))
	w.bytes(content)
}

// copyFrom writes n bytes of r.
func (w *writer) copyFrom(r io.Reader, n uint64) {
	if w.err != nil {
		return
	}
	got, err := io.CopyN(w.w, r, int64(n))
	if err != nil || uint64(got) != n {
		w.err = fmt.Errorf("read %d bytes: %w", n, err)
	}
}

// reader decodes the records of an answer. It refuses an answer that is longer than what it unpacks to.
type reader struct {
	raw countingReader
	z   *zstd.Decoder
	b   *bufio.Reader
	out uint64 // bytes unpacked

	waits waiter // nil: the source has no reason to let this server wait
}

// waiter is told of the records that let this server wait.
type waiter interface {
	// noteProgress is called for each of them. Its error ends the answer.
	noteProgress(progress uint64) error
	// resumed is called when another record follows.
	resumed()
}

// packing bounds the bytes that an answer may have more than what it unpacks to. An honest encoder adds a header, and
// three bytes to a block that it cannot compress. It is also ahead of the decoder by what the decoder reads at once.
const packing = 4 << 20

type countingReader struct {
	r   io.Reader
	n   uint64
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += uint64(n)
	c.err = err
	return n, err
}

func newReader(r io.Reader) (*reader, error) {
	d := &reader{raw: countingReader{r: r}}
	var err error
	d.z, err = zstd.NewReader(readerFunc(d.readRaw), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	d.b = bufio.NewReaderSize(readerFunc(d.readUnpacked), 64<<10)
	return d, nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (d *reader) readRaw(p []byte) (int, error) {
	if d.raw.n > d.out+d.out/64+packing {
		return 0, refusef("%d bytes that unpack to %d", d.raw.n, d.out)
	}
	return d.raw.Read(p)
}

func (d *reader) readUnpacked(p []byte) (int, error) {
	n, err := d.z.Read(p)
	d.out += uint64(n)
	if err != nil && d.raw.err == nil && !errors.Is(err, errRefused) && !errors.Is(err, io.EOF) {
		err = refusef("%v", err) // no connection has failed, so the bytes are at fault
	}
	return n, err
}

func (d *reader) close() { d.z.Close() }

// kind reads the kind of the next record. The end of the answer comes as io.ErrUnexpectedEOF: a complete answer has a
// last record. It skips the records that let this server wait.
func (d *reader) kind() (byte, error) {
	for waited := false; ; waited = true {
		k, err := d.b.ReadByte()
		if err != nil || k != kindPending || d.waits == nil {
			if waited && err == nil {
				d.waits.resumed()
			}
			return k, early(err)
		}
		n, err := d.number(math.MaxInt64)
		if err == nil {
			err = d.waits.noteProgress(n)
		}
		if err != nil {
			return 0, err
		}
	}
}

func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// number reads a number up to most.
func (d *reader) number(most uint64) (n uint64, err error) {
	for shift := uint(0); shift < 64; shift += 7 {
		c, err := d.b.ReadByte()
		if err != nil {
			return 0, early(err)
		}
		n |= uint64(c&0x7f) << shift
		switch {
		case c >= 0x80:
			continue
		case shift == 63 && c > 1 || n > most:
			return 0, refusef("number %d, at most %d can be", n, most)
		}
		return n, nil
	}
	return 0, refusef("a number of more than 64 bits")
}

func (d *reader) digest() (of image.Digest, err error) {
	_, err = io.ReadFull(d.b, of[:])
	return of, early(err)
}

// appendBytes reads n bytes and appends them to dst, whose memory grows with what arrives.
func (d *reader) appendBytes(dst []byte, n uint64) ([]byte, error) {
	for n > 0 {
		part := min(n, 64<<10)
		start := len(dst)
		if cap(dst)-start < int(part) {
			dst = append(dst, make([]byte, part)...)
		} else {
			dst = dst[:start+int(part)]
		}
		if _, err := io.ReadFull(d.b, dst[start:]); err != nil {
			return nil, early(err)
		}
		n -= part
	}
	return dst, nil
}

// base reads the record about the base.
func (d *reader) base() (image.Digest, error) {
	k, err := d.kind()
	switch {
	case err != nil:
		return image.Digest{}, err
	case k == kindAbsent:
		return image.Digest{}, errAbsent
	case k != kindBase:
		return image.Digest{}, refusef("a record of kind %q where the base belongs", k)
	}
	return d.digest()
}

// end reads the last record.
func (d *reader) end() error {
	k, err := d.kind()
	if err == nil && k != kindEnd {
		err = refusef("a record of kind %q where the end belongs", k)
	}
	return err
}
