package oncrpc

import "encoding/binary"

// Decoder reads XDR from a byte slice in place. After the first error all calls return zero values, so that code that
// decodes arguments needs one check at its end.
type Decoder struct {
	b      []byte
	failed bool
}

// NewDecoder returns a Decoder of b.
func NewDecoder(b []byte) Decoder { return Decoder{b: b} }

// OK reports whether there was no error so far.
func (d *Decoder) OK() bool { return !d.failed }

// Fail sets the error of d. It is for callers that find a value that the protocol does not allow.
func (d *Decoder) Fail() {
	d.failed = true
	d.b = nil
}

// Rest returns the bytes that are not read yet.
func (d *Decoder) Rest() []byte { return d.b }

// Uint32 reads an unsigned integer.
func (d *Decoder) Uint32() uint32 {
	if len(d.b) < 4 {
		d.Fail()
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// Uint64 reads an unsigned hyper integer.
func (d *Decoder) Uint64() uint64 {
	if len(d.b) < 8 {
		d.Fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// Bool reads a boolean. A value other than 0 and 1 is an error.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.Fail()
	}
	return v == 1
}

// Fixed reads n bytes of fixed-length opaque data. The result aliases the buffer of the decoder.
func (d *Decoder) Fixed(n int) []byte {
	padded := pad(n)
	if n < 0 || padded > len(d.b) {
		d.Fail()
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[padded:]
	return p
}

// Opaque reads variable-length opaque data, or a string, of at most limit bytes. The result aliases the buffer of the
// decoder.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if uint64(n) > uint64(limit) || uint64(n) > uint64(len(d.b)) {
		d.Fail()
		return nil
	}
	return d.Fixed(int(n))
}

// String reads a string of at most limit bytes. The result is a copy.
func (d *Decoder) String(limit int) string { return string(d.Opaque(limit)) }

func pad(n int) int { return (n + 3) &^ 3 }

// Encoder appends XDR to a buffer. The buffer of the zero value is on the heap. Encoders of a Server take theirs
// from its pool.
type Encoder struct {
	b   []byte
	own *buffer // the memory of b; nil: the heap
}

// NewEncoder returns an Encoder that appends to b.
func NewEncoder(b []byte) Encoder { return Encoder{b: b} }

// Bytes returns the bytes that were appended so far.
func (e *Encoder) Bytes() []byte { return e.b }

// Len returns the number of bytes appended so far.
func (e *Encoder) Len() int { return len(e.b) }

// Truncate removes all bytes after the first n.
func (e *Encoder) Truncate(n int) { e.b = e.b[:n] }

// Uint32 appends an unsigned integer.
func (e *Encoder) Uint32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }

// Uint64 appends an unsigned hyper integer.
func (e *Encoder) Uint64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

// Opaque appends variable-length opaque data.
func (e *Encoder) Opaque(p []byte) {
	e.Uint32(uint32(len(p)))
	e.b = append(e.b, p...)
	e.Pad(len(p))
}

// String appends a string.
func (e *Encoder) String(s string) {
	e.Uint32(uint32(len(s)))
	e.b = append(e.b, s...)
	e.Pad(len(s))
}

// Pad appends the zeros that follow n bytes of opaque data.
func (e *Encoder) Pad(n int) {
	for ; n%4 != 0; n++ {
		e.b = append(e.b, 0)
	}
}

// Extend appends n bytes with undefined content, and returns them for the caller to fill.
func (e *Encoder) Extend(n int) []byte {
	have := len(e.b)
	e.Reserve(n)
	e.b = e.b[:have+n]
	return e.b[have : have+n : have+n]
}

// PutUint32 overwrites the integer at offset at.
func (e *Encoder) PutUint32(at int, v uint32) { binary.BigEndian.PutUint32(e.b[at:], v) }

// Reserve makes room for n more bytes, so that to append them does not move the buffer.
func (e *Encoder) Reserve(n int) {
	if cap(e.b)-len(e.b) >= n {
		return
	}
	if e.own == nil {
		e.b = append(make([]byte, 0, len(e.b)+max(n, len(e.b), 128)), e.b...)
		return
	}
	e.own.moveTo(e, len(e.b)+n)
}
