// Package pax encodes the headers of tar archives in the pax format (POSIX.1-2001), as GNU tar, libarchive and Go read
// them: xattrs are SCHILY.xattr records, sparse files have GNU's format 1.0. Package archive/tar is not used because it
// cannot write sparse files.
//
// It must not know where members come from.
package pax

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"dim/internal/image"
)

// Block is the size of a block. Headers and contents are padded to it. Two blocks of zeros end an archive.
const Block = 512

const extended = 'x'

// Header has the fields of a member's header.
type Header struct {
	Name, Link   string
	Kind         byte   // the typeflag
	Size         uint64 // of the content; after SetSparse, of what the archive has of it
	Mode         uint32
	UID, GID     uint32
	Mtime        image.Time
	Major, Minor uint32

	records records
}

// Padding returns how many bytes follow n bytes of content.
func Padding(n uint64) uint64 { return -n % Block }

// AddXattr adds an extended attribute. An ACL is added as text too: GNU tar takes it only so.
func (h *Header) AddXattr(name string, value []byte) {
	h.records.add("SCHILY.xattr."+escaped(name), string(value))
	if kind, ok := strings.CutPrefix(name, "system.posix_acl_"); ok {
		if text := aclText(value); text != "" {
			h.records.add("SCHILY.acl."+kind, text)
		}
	}
}

// aclText returns an ACL in the form of acl_from_text(3), with numbers for users and groups; "" if value is no ACL. The
// binary form is that of linux/posix_acl_xattr.h: a version, and for each entry a tag, permissions and an id.
func aclText(value []byte) string {
	const header, entry, version = 4, 8, 2
	if len(value) < header || len(value)%entry != header || binary.LittleEndian.Uint32(value) != version {
		return ""
	}
	tags := map[uint16]string{1: "user:", 2: "user:", 4: "group:", 8: "group:", 16: "mask:", 32: "other:"}
	var list []string
	for b := value[header:]; len(b) > 0; b = b[entry:] {
		tag, perm := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
		text, ok := tags[tag]
		if !ok {
			return ""
		}
		if tag == 2 || tag == 8 {
			text += strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[4:])), 10)
		}
		text += ":"
		for i, c := range "rwx" {
			if perm&(4>>i) == 0 {
				c = '-'
			}
			text += string(c)
		}
		list = append(list, text)
	}
	return strings.Join(list, ",")
}

// AddRecord adds a record with a key of our own. Readers that do not know it ignore it.
func (h *Header) AddRecord(key, value string) { h.records.add(key, value) }

// SetSparse makes h the header of a file with holes, whose size is h.Size. It returns the map that comes before the
// data.
func (h *Header) SetSparse(data []image.Extent) (sparse []byte) {
	sparse = sparseMap(data, h.Size)
	h.records.add("GNU.sparse.major", "1")
	h.records.add("GNU.sparse.minor", "0")
	h.records.add("GNU.sparse.name", h.Name)
	h.records.add("GNU.sparse.realsize", strconv.FormatUint(h.Size, 10))
	h.Name, h.Size = "./GNUSparseFile.0/"+path.Base(h.Name), uint64(len(sparse))
	for _, x := range data {
		h.Size += x.Length
	}
	return sparse
}

// sparseMap returns the map of GNU's sparse format 1.0: the number of extents, then the offset and length of each, one
// number a line, padded to a block. Like GNU tar, it adds an empty extent at the end of a file that ends with a hole.
func sparseMap(data []image.Extent, size uint64) []byte {
	var b bytes.Buffer
	if n := len(data); n == 0 || data[n-1].Offset+data[n-1].Length < size {
		data = append(slices.Clone(data), image.Extent{Offset: size})
	}
	fmt.Fprintf(&b, "%d\n", len(data))
	for _, x := range data {
		fmt.Fprintf(&b, "%d\n%d\n", x.Offset, x.Length)
	}
	return append(b.Bytes(), make([]byte, Padding(uint64(b.Len())))...)
}

// Encode returns the header block of the member and, before it, an extended header. That has the mtime, because of its
// nanoseconds, and the fields that do not fit into the block. It may be called once.
func (h *Header) Encode() []byte {
	r := &h.records
	r.add("mtime", mtime(h.Mtime))
	r.text("path", h.Name, 100)
	r.text("linkpath", h.Link, 100)
	r.number("size", h.Size, 11)
	r.number("uid", uint64(h.UID), 7)
	r.number("gid", uint64(h.GID), 7)
	ext := Header{
		Name: "./PaxHeaders/" + ascii(path.Base(h.Name)), Kind: extended, Size: uint64(len(r.b)), Mode: 0o644,
	}
	return slices.Concat(ext.block(), r.b, make([]byte, Padding(uint64(len(r.b)))), h.block())
}

// mtime returns a time in the form of pax: seconds and a fraction, negative before 1970.
func mtime(at image.Time) string {
	sec, nsec, sign := at.Sec, int64(at.Nsec), ""
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			sign = "-"
		}
	}
	if nsec == 0 {
		return strconv.FormatInt(sec, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, sec, nsec), "0")
}

// ascii replaces characters that are not printable ASCII.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}

// block returns a header block in the ustar format. It cuts off what does not fit: the extended header has it in full.
func (h *Header) block() []byte {
	b := make([]byte, Block)
	octal := func(at, width int, v uint64) {
		if s := fmt.Sprintf("%0*o", width-1, v); len(s) < width {
			copy(b[at:], s)
		} else {
			copy(b[at:], strings.Repeat("0", width-1))
		}
	}
	copy(b[0:100], h.Name)
	octal(100, 8, uint64(h.Mode))
	octal(108, 8, uint64(h.UID))
	octal(116, 8, uint64(h.GID))
	octal(124, 12, h.Size)
	octal(136, 12, uint64(max(h.Mtime.Sec, 0)))
	b[156] = h.Kind
	copy(b[157:257], h.Link)
	copy(b[257:], "ustar\x0000")
	octal(329, 8, uint64(h.Major))
	octal(337, 8, uint64(h.Minor))
	sum := uint64(8 * ' ')
	for _, c := range b {
		sum += uint64(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// escaped escapes "=" in a name, as GNU tar does.
func escaped(name string) string { return strings.NewReplacer("%", "%25", "=", "%3D").Replace(name) }

// records is the content of an extended header: lines "LENGTH KEY=VALUE" whose length includes its own digits.
type records struct{ b []byte }

func (r *records) add(key, value string) {
	rest := len(key) + len(value) + 3
	n := rest + len(strconv.Itoa(rest))
	if d := rest + len(strconv.Itoa(n)); d != n {
		n = d
	}
	r.b = fmt.Appendf(r.b, "%d %s=%s\n", n, key, value)
}

// text adds a text that is longer than most bytes or is not printable ASCII.
func (r *records) text(key, value string, most int) {
	if len(value) > most || strings.IndexFunc(value, func(c rune) bool { return c > '~' || c < ' ' }) >= 0 {
		r.add(key, value)
	}
}

// number adds a number that does not fit into the given number of octal digits.
func (r *records) number(key string, v uint64, digits int) {
	if v >= 1<<(3*digits) {
		r.add(key, strconv.FormatUint(v, 10))
	}
}
