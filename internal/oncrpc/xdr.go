package oncrpc

import "encoding/binary"

// Decoder reads XDR from a byte slice in place. The first violation makes it fail for good: all later
// calls return zero values, so that a decoder of arguments is straight code with one check at its end.
type Decoder struct {
	b      []byte
	failed bool
}

// NewDecoder returns a Decoder of b.
func NewDecoder(b []byte) Decoder { return Decoder{b: b} }

// OK reports whether nothing failed so far.
func (d *Decoder) OK() bool { return !d.failed }

// Fail makes d fail: the caller found a value that the protocol forbids.
func (d *Decoder) Fail() {
	d.failed = true
	d.b = nil
}

// Rest returns what was not read yet.
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

// Bool reads a boolean; anything but 0 and 1 fails.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.Fail()
	}
	return v == 1
}

// Fixed reads n bytes of fixed-length opaque data. They alias the decoder's buffer.
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

// Opaque reads variable-length opaque data or a string of at most limit bytes. It aliases the decoder's buffer.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if uint64(n) > uint64(limit) || uint64(n) > uint64(len(d.b)) {
		d.Fail()
		return nil
	}
	return d.Fixed(int(n))
}

// String reads a string of at most limit bytes into memory of its own.
func (d *Decoder) String(limit int) string { return string(d.Opaque(limit)) }

func pad(n int) int { return (n + 3) &^ 3 }

// Encoder appends XDR to a buffer. The zero value works and lets its buffer grow on the heap; the encoders
// of a Server take their buffers from its pool.
type Encoder struct {
	b   []byte
	own *buffer // where b began, nil when on the heap
}

// NewEncoder returns an Encoder that appends to b.
func NewEncoder(b []byte) Encoder { return Encoder{b: b} }

// Bytes returns what was appended so far.
func (e *Encoder) Bytes() []byte { return e.b }

// Len returns the number of bytes appended so far.
func (e *Encoder) Len() int { return len(e.b) }

// Truncate takes back all that was appended after the encoder's length was n.
func (e *Encoder) Truncate(n int) { e.b = e.b[:n] }

// Uint32 appends an unsigned integer.
func (e *Encoder) Uint32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }

// Uint64 appends an unsigned hyper integer.
func (e *Encoder) Uint64(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

// Bool appends a boolean.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint32(1)
		return
	}
	e.Uint32(0)
}

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

// Extend appends n bytes and returns them for the caller to fill; they hold anything.
func (e *Encoder) Extend(n int) []byte {
	have := len(e.b)
	e.Reserve(n)
	e.b = e.b[:have+n]
	return e.b[have : have+n : have+n]
}

// PutUint32 overwrites the integer at offset at.
func (e *Encoder) PutUint32(at int, v uint32) { binary.BigEndian.PutUint32(e.b[at:], v) }

// Reserve makes room for n more bytes, so that the next n appended ones do not move the buffer. Large
// data is read from a file straight to where Extend points, without another copy.
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
