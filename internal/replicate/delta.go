package replicate

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// op makes the next n bytes of a file.
type op struct {
	kind byte  // kindCopy, kindLiteral or kindZeros
	off  int64 // of a copy: where in the base
	n    int64
}

const (
	// piece is the number of bytes that are compared or copied at once.
	piece = 256 << 10
	// grain is the smallest part of a file, in bytes, that is looked for at its own offset in the base.
	grain = 1 << 10
	// searched is the size, in bytes, from which a part that is not at its own offset is looked for elsewhere.
	searched = 32 << 10
)

// differ finds how a file is made of another one.
type differ struct {
	ctx      context.Context
	gear     *gear
	of       *os.File
	base     *os.File // nil: none
	size     int64
	baseSize int64

	a, b []byte // of piece bytes
}

// difference returns the operations that make of: zeros where it has holes, copies of base (nil: none) where base has
// the same bytes, and literals.
func difference(ctx context.Context, g *gear, base, of *os.File) ([]op, error) {
	d := differ{ctx: ctx, gear: g, of: of, base: base, a: make([]byte, piece), b: make([]byte, piece)}
	var err error
	if d.size, err = size(of); err != nil {
		return nil, err
	}
	ops, err := d.holes()
	if err != nil || base == nil {
		return ops, err
	}
	if d.baseSize, err = size(base); err != nil {
		return nil, err
	}
	if ops, err = d.each(ops, 0, d.inPlace); err != nil {
		return nil, err
	}
	left := int64(0)
	for _, o := range ops {
		if o.kind == kindLiteral && o.n >= searched {
			left += o.n
		}
	}
	if left == 0 {
		return ops, nil
	}
	index, err := d.index()
	if err != nil {
		return nil, err
	}
	return d.each(ops, searched, func(from, to int64, add func(op)) error { return d.elsewhere(index, from, to, add) })
}

func size(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// holes returns the operations that make a file without a base.
func (d *differ) holes() ([]op, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.of.Fd()), &st); err != nil {
		return nil, err
	}
	var list ops
	if st.Blocks*512 >= d.size { // SEEK_HOLE may report holes that are gone at the next call
		list.add(op{kind: kindLiteral, n: d.size})
		return list, nil
	}
	for off := int64(0); off < d.size; {
		start, err := unix.Seek(int(d.of.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			start, err = d.size, nil
		}
		if err != nil {
			start = off // the file system does not report holes
		}
		list.add(op{kind: kindZeros, n: min(start, d.size) - off})
		end, err := unix.Seek(int(d.of.Fd()), start, unix.SEEK_HOLE)
		if err != nil || end > d.size {
			end = d.size
		}
		list.add(op{kind: kindLiteral, n: end - start})
		off = max(end, start)
	}
	return list, nil
}

// ops is a list of operations that grows at its end.
type ops []op

// add appends o, or makes the last operation longer.
func (l *ops) add(o op) {
	if o.n <= 0 {
		return
	}
	if i := len(*l) - 1; i >= 0 {
		last := &(*l)[i]
		if last.kind == o.kind && (o.kind != kindCopy || last.off+last.n == o.off) {
			last.n += o.n
			return
		}
	}
	*l = append(*l, o)
}

// each replaces the literals of at least least bytes by what replace adds for the range of the file.
func (d *differ) each(
	list []op, least int64, replace func(from, to int64, add func(op)) error,
) (out ops, err error) {
	off := int64(0)
	for _, o := range list {
		if o.kind != kindLiteral || o.n < least {
			out.add(o)
		} else if err := replace(off, off+o.n, out.add); err != nil {
			return nil, err
		}
		off += o.n
	}
	return out, nil
}

// inPlace finds what the base has at the same offset.
func (d *differ) inPlace(from, to int64, add func(op)) error {
	for from < min(to, d.baseSize) {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		n := int(min(piece, to-from, d.baseSize-from))
		if err := d.read(from, from, n); err != nil {
			return err
		}
		if bytes.Equal(d.a[:n], d.b[:n]) {
			add(op{kind: kindCopy, off: from, n: int64(n)})
			from += int64(n)
			continue
		}
		for i := 0; i < n; i += grain {
			end := min(i+grain, n)
			o := op{kind: kindLiteral, n: int64(end - i)}
			if bytes.Equal(d.a[i:end], d.b[i:end]) {
				o.kind, o.off = kindCopy, from+int64(i)
			}
			add(o)
		}
		from += int64(n)
	}
	add(op{kind: kindLiteral, n: to - from})
	return nil
}

// read reads n bytes of the file into a, and of the base into b.
func (d *differ) read(off, baseOff int64, n int) error {
	if _, err := d.of.ReadAt(d.a[:n], off); err != nil {
		return err
	}
	_, err := d.base.ReadAt(d.b[:n], baseOff)
	return err
}

// index has the offsets of the base's chunks, by a hash of their bytes.
type index struct {
	seed maphash.Seed
	at   map[uint64]int64
}

func (d *differ) index() (*index, error) {
	x := &index{seed: maphash.MakeSeed(), at: make(map[uint64]int64, d.baseSize/(8<<10))}
	r := io.NewSectionReader(d.base, 0, d.baseSize)
	return x, d.gear.chunks(r, func(off int64, chunk []byte) error {
		if hash := maphash.Bytes(x.seed, chunk); !x.has(hash) {
			x.at[hash] = off
		}
		return d.ctx.Err()
	})
}

func (x *index) has(hash uint64) bool { _, ok := x.at[hash]; return ok }

// elsewhere finds what the base has at other offsets.
func (d *differ) elsewhere(x *index, from, to int64, add func(op)) error {
	chunk := make([]byte, maxChunk)
	for from < to {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		n := int(min(maxChunk, to-from))
		if _, err := d.of.ReadAt(chunk[:n], from); err != nil {
			return err
		}
		n = d.gear.cut(chunk[:n])
		at, ok := x.at[maphash.Bytes(x.seed, chunk[:n])]
		if !ok {
			add(op{kind: kindLiteral, n: int64(n)})
			from += int64(n)
			continue
		}
		same, err := d.same(from, at, to)
		if err != nil {
			return err
		}
		add(op{kind: kindCopy, off: at, n: same})
		if same < int64(n) { // two chunks with one hash
			add(op{kind: kindLiteral, n: int64(n) - same})
			same = int64(n)
		}
		from += same
	}
	return nil
}

// same returns how many bytes of the file from off on, up to the offset to, are those of the base from baseOff on.
func (d *differ) same(off, baseOff, to int64) (n int64, err error) {
	for {
		part := int(min(piece, to-off-n, d.baseSize-baseOff-n))
		if part == 0 || d.ctx.Err() != nil {
			return n, d.ctx.Err()
		}
		if err := d.read(off+n, baseOff+n, part); err != nil {
			return n, err
		}
		if !bytes.Equal(d.a[:part], d.b[:part]) {
			for i := range part {
				if d.a[i] != d.b[i] {
					return n + int64(i), nil
				}
			}
		}
		n += int64(part)
	}
}
