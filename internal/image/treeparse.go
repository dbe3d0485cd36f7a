package image

import (
	"errors"
	"fmt"
	"math"
)

// ParseTree parses the canonical encoding of a tree and refuses all others. It keeps no reference to b. The memory that
// it allocates is proportional to the length of b. If the capacity of room is sufficient, the tree is written to room;
// room may be nil.
func ParseTree(b []byte, room Tree) (Tree, error) {
	t, err := parseEntries(room, b)
	if err != nil {
		return nil, fmt.Errorf("parse tree: %w", err)
	}
	for i := range t {
		if !ValidEntryName(t[i].Name) {
			return nil, fmt.Errorf("parse tree: %q is not a name", t[i].Name)
		}
		if i > 0 && t[i-1].Name >= t[i].Name {
			return nil, fmt.Errorf("parse tree: %q is after %q", t[i].Name, t[i-1].Name)
		}
	}
	return t, nil
}

// ParseRoot parses what Entry.EncodeRoot returns.
func ParseRoot(b []byte) (Entry, error) {
	t, err := parseEntries(nil, b)
	if err != nil {
		return Entry{}, fmt.Errorf("parse root: %w", err)
	}
	if len(t) != 1 || t[0].Name != "" || t[0].Type != Directory {
		return Entry{}, errors.New("parse root: want one directory without a name")
	}
	return t[0], nil
}

var (
	errShort = errors.New("cut short")
	errForm  = errors.New("number too large or not in its shortest form")
)

// parser reads an encoded tree. After an error its methods return zero values. It keeps the encoding as one string, and
// names are substrings of it: one allocation for a whole directory.
type parser struct {
	s   string
	off int
	err error
}

func parseEntries(room Tree, b []byte) (Tree, error) {
	p := &parser{s: string(b)}
	format := p.byte()
	if p.err == nil && format != treeFormat {
		return nil, fmt.Errorf("format %d is not supported, only %d", format, treeFormat)
	}
	n := p.uvarint(math.MaxUint64)
	if p.err != nil {
		return nil, p.err
	}
	if n > uint64(len(p.s)-p.off)/minEntry {
		return nil, errShort
	}
	if room == nil || n > uint64(cap(room)) {
		room = make(Tree, n)
	}
	t := room[:n]
	clear(t)
	for i := range t {
		p.entry(&t[i])
		if p.err == nil {
			p.err = t[i].check()
		}
		if p.err != nil {
			return nil, fmt.Errorf("entry %d (%q): %w", i, t[i].Name, p.err)
		}
	}
	if p.off != len(p.s) {
		return nil, fmt.Errorf("%d bytes after the last entry", len(p.s)-p.off)
	}
	return t, nil
}

func (p *parser) entry(e *Entry) {
	kind := p.byte()
	e.Type = Type(kind & kindType)
	e.Nlink = 1
	e.Name = p.string(maxName)
	e.Mode = uint32(p.uvarint(0o7777))
	e.UID = uint32(p.uvarint(math.MaxUint32))
	e.GID = uint32(p.uvarint(math.MaxUint32))
	sec := p.uvarint(math.MaxUint64)
	e.Mtime.Sec = int64(sec>>1) ^ -int64(sec&1)
	e.Mtime.Nsec = uint32(p.uvarint(1e9 - 1))
	switch e.Type {
	case Regular:
		e.Size = p.uvarint(math.MaxInt64)
		p.digest(&e.Digest)
	case Directory:
		p.digest(&e.Digest)
	case Symlink:
		e.Target = p.string(maxTarget)
	case CharDevice, BlockDevice:
		e.Major = uint32(p.uvarint(math.MaxUint32))
		e.Minor = uint32(p.uvarint(math.MaxUint32))
	}
	if kind&^(kindType|kindLink|kindData|kindXattrs) != 0 {
		p.fail(fmt.Errorf("unknown kind %#x", kind))
	}
	if kind&kindLink != 0 {
		e.Link = p.string(math.MaxUint32)
		e.Nlink = uint32(p.uvarint(math.MaxUint32))
		if e.Link == "" {
			p.fail(errors.New("empty hard-link group"))
		}
	}
	if kind&kindData != 0 {
		e.Data = p.extents()
	}
	if kind&kindXattrs != 0 {
		e.Xattrs = p.xattrs()
	}
}

func (p *parser) extents() []Extent {
	n := p.uvarint(math.MaxUint64)
	if n > uint64(len(p.s)-p.off)/2 {
		p.fail(errShort)
		return nil
	}
	list := make([]Extent, n)
	end := uint64(0)
	for i := range list {
		gap := p.uvarint(math.MaxInt64)
		length := p.uvarint(math.MaxInt64)
		if gap > math.MaxInt64-end || length > math.MaxInt64-end-gap {
			p.fail(errForm)
			return nil
		}
		list[i] = Extent{Offset: end + gap, Length: length}
		end += gap + length
	}
	return list
}

func (p *parser) xattrs() []Xattr {
	n := p.uvarint(math.MaxUint64)
	if n == 0 || n > uint64(len(p.s)-p.off)/2 {
		p.fail(errShort)
		return nil
	}
	list := make([]Xattr, n)
	for i := range list {
		list[i] = Xattr{Name: p.string(maxName), Value: []byte(p.string(maxXattr))}
	}
	return list
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *parser) byte() byte {
	if p.err != nil || p.off >= len(p.s) {
		p.fail(errShort)
		return 0
	}
	p.off++
	return p.s[p.off-1]
}

// uvarint reads a number up to max. It refuses forms that are not the shortest.
func (p *parser) uvarint(max uint64) uint64 {
	if p.err != nil {
		return 0
	}
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if p.off >= len(p.s) {
			p.err = errShort
			return 0
		}
		c := p.s[p.off]
		p.off++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > max || c == 0 && shift > 0 || shift == 63 && c > 1 {
				p.err = errForm
				return 0
			}
			return v
		}
	}
	p.err = errForm
	return 0
}

func (p *parser) string(max uint64) string {
	n := p.uvarint(max)
	if p.err != nil || n > uint64(len(p.s)-p.off) {
		p.fail(errShort)
		return ""
	}
	p.off += int(n)
	return p.s[p.off-int(n) : p.off]
}

func (p *parser) digest(d *Digest) {
	if p.err != nil || len(p.s)-p.off < len(d) {
		p.fail(errShort)
		return
	}
	p.off += copy(d[:], p.s[p.off:])
}
