package replicate

import (
	"bytes"
	"encoding/binary"

	"dim/internal/image"
)

// treeDelta encodes the tree t as its difference to old: kindCopy and kindLiteral records that together have the bytes
// of t. An entry that is the same in both is copied.
func treeDelta(old, t image.Tree) ([]byte, error) {
	w := deltaWriter{}
	w.literal = appendHeader(nil, len(t))
	type place struct {
		off   int
		bytes []byte
	}
	at := make(map[string]place, len(old)) // the entries of old
	off := len(appendHeader(nil, len(old)))
	for i := range old {
		b, err := encodeEntry(old[i : i+1])
		if err != nil {
			return nil, err
		}
		at[old[i].Name] = place{off, b}
		off += len(b)
	}
	for i := range t {
		b, err := encodeEntry(t[i : i+1])
		if err != nil {
			return nil, err
		}
		if p, ok := at[t[i].Name]; ok && bytes.Equal(p.bytes, b) {
			w.copy(p.off, len(b))
			continue
		}
		w.flushCopy()
		w.literal = append(w.literal, b...)
	}
	w.flushCopy()
	w.flushLiteral()
	return w.out, nil
}

// appendHeader appends what the encoding of a tree has before its entries.
func appendHeader(b []byte, entries int) []byte {
	return binary.AppendUvarint(append(b, 1), uint64(entries))
}

// encodeEntry returns the bytes that the entry of t has in any tree.
func encodeEntry(t image.Tree) ([]byte, error) {
	b, err := t.Encode()
	if err != nil {
		return nil, err
	}
	return b[2:], nil // one byte is the format, one the number 1
}

// deltaWriter joins operations that follow each other.
type deltaWriter struct {
	out     []byte
	literal []byte // not written yet; at most one of this and copied is
	off     int
	copied  int
}

func (w *deltaWriter) copy(off, n int) {
	if w.copied > 0 && w.off+w.copied == off {
		w.copied += n
		return
	}
	w.flushCopy()
	w.flushLiteral()
	w.off, w.copied = off, n
}

func (w *deltaWriter) flushCopy() {
	if w.copied > 0 {
		w.out = binary.AppendUvarint(append(w.out, kindCopy), uint64(w.off))
		w.out = binary.AppendUvarint(w.out, uint64(w.copied))
		w.copied = 0
	}
}

func (w *deltaWriter) flushLiteral() {
	if len(w.literal) > 0 {
		w.out = binary.AppendUvarint(append(w.out, kindLiteral), uint64(len(w.literal)))
		w.out = append(w.out, w.literal...)
		w.literal = w.literal[:0]
	}
}

// delta reads a tree of n bytes that was encoded as its difference to base.
func (d *reader) delta(base []byte, n uint64) (b []byte, err error) {
	for left := n; left > 0; left = n - uint64(len(b)) {
		k, err := d.kind()
		if err != nil {
			return nil, err
		}
		off := uint64(0)
		switch k {
		case kindLiteral:
		case kindCopy:
			if off, err = d.number(uint64(len(base))); err != nil {
				return nil, err
			}
		default:
			return nil, refusef("a record of kind %q in a difference", k)
		}
		part, err := d.number(left)
		switch {
		case err != nil:
			return nil, err
		case part == 0:
			return nil, refusef("an empty record in a difference")
		case k == kindLiteral:
			b, err = d.appendBytes(b, part)
		case part > uint64(len(base))-off:
			return nil, refusef("a copy that ends after the %d bytes of its base", len(base))
		default:
			b = append(b, base[off:off+part]...)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}
