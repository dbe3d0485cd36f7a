package checkout

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"dim/internal/image"
	"dim/internal/image/treediff"
)

// Tar writes the version with the given root as a tar archive in the pax format (POSIX.1-2001). GNU tar, libarchive
// and Go can read it: xattrs are SCHILY.xattr records, sparse files have GNU's format 1.0. The same version always
// gives the same bytes. Package archive/tar is not used because it cannot write sparse files.
func Tar(ctx context.Context, from Source, root image.Entry, w io.Writer) error {
	t := tarWriter{ctx: ctx, from: from, w: bufio.NewWriterSize(w, 256<<10), links: map[string]string{}}
	err := treediff.Walk(ctx, from.Tree, &root, t.entry)
	if err == nil {
		_, err = t.w.Write(make([]byte, 2*tarBlock)) // end of the archive
	}
	if err != nil {
		return err
	}
	return t.w.Flush()
}

const tarBlock = 512

type tarWriter struct {
	ctx   context.Context
	from  Source
	w     *bufio.Writer
	links map[string]string // the name of the first member of each group of hard links
}

func (t *tarWriter) entry(path string, e *image.Entry) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	name := "./" + path
	if e.Type == image.Directory && path != "" {
		name += "/"
	}
	if err := t.member(name, e); err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	return nil
}

// tarTypes are the typeflags of members.
var tarTypes = map[image.Type]byte{
	image.Regular: '0', image.Symlink: '2', image.CharDevice: '3', image.BlockDevice: '4', image.Directory: '5',
	image.FIFO: '6',
}

const (
	tarLink     = '1'
	tarExtended = 'x'
)

func (t *tarWriter) member(name string, e *image.Entry) error {
	r := records{}
	h := tarHeader{name: name, kind: tarTypes[e.Type], entry: e, link: e.Target}
	if first, ok := t.links[e.Link]; ok && e.Link != "" {
		h.kind, h.link = tarLink, first
		return t.header(h, r)
	}
	if e.Link != "" {
		t.links[e.Link] = name
	}
	for _, x := range e.Xattrs {
		r.add("SCHILY.xattr."+escaped(x.Name), string(x.Value))
	}
	if e.Type != image.Regular {
		return t.header(h, r)
	}
	data := extents(e)
	if e.Data == nil {
		h.size = e.Size
		if err := t.header(h, r); err != nil {
			return err
		}
		return t.content(e, nil, data)
	}
	maps := sparseMap(data, e.Size)
	r.add("GNU.sparse.major", "1")
	r.add("GNU.sparse.minor", "0")
	r.add("GNU.sparse.name", name)
	r.add("GNU.sparse.realsize", strconv.FormatUint(e.Size, 10))
	h.name, h.size = "./GNUSparseFile.0/"+e.Name, uint64(len(maps))
	for _, x := range data {
		h.size += x.Length
	}
	if err := t.header(h, r); err != nil {
		return err
	}
	return t.content(e, maps, data)
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
	return append(b.Bytes(), make([]byte, padding(uint64(b.Len())))...)
}

func padding(n uint64) uint64 { return -n % tarBlock }

// content writes before, the data, and the padding.
func (t *tarWriter) content(e *image.Entry, before []byte, data []image.Extent) error {
	blob, err := t.from.OpenBlob(e.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	if _, err := t.w.Write(before); err != nil {
		return err
	}
	total := uint64(0)
	for _, x := range data {
		n, err := io.Copy(t.w, io.NewSectionReader(blob, int64(x.Offset), int64(x.Length)))
		if err != nil {
			return err
		}
		if uint64(n) != x.Length {
			return fmt.Errorf("blob %s does not have %d bytes: %w", e.Digest, e.Size, io.ErrUnexpectedEOF)
		}
		total += x.Length
	}
	_, err = t.w.Write(make([]byte, padding(total)))
	return err
}

// tarHeader has the fields of a member's header.
type tarHeader struct {
	name, link string
	kind       byte
	size       uint64
	entry      *image.Entry
}

// header writes a member's header and before it an extended header. That has the mtime, because of its nanoseconds, and
// the fields that do not fit into an ustar header.
func (t *tarWriter) header(h tarHeader, r records) error {
	e := h.entry
	r.add("mtime", mtime(e.Mtime))
	r.text("path", h.name, 100)
	r.text("linkpath", h.link, 100)
	r.number("size", h.size, 11)
	r.number("uid", uint64(e.UID), 7)
	r.number("gid", uint64(e.GID), 7)
	ext := tarHeader{
		name: "./PaxHeaders/" + ascii(e.Name), kind: tarExtended, size: uint64(len(r.b)),
		entry: &image.Entry{Mode: 0o644},
	}
	for _, b := range [][]byte{ext.encode(), r.b, make([]byte, padding(uint64(len(r.b)))), h.encode()} {
		if _, err := t.w.Write(b); err != nil {
			return err
		}
	}
	return nil
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

// encode returns a header block in the ustar format. It cuts off what does not fit: the extended header has it in full.
func (h *tarHeader) encode() []byte {
	b := make([]byte, tarBlock)
	octal := func(at, width int, v uint64) {
		if s := fmt.Sprintf("%0*o", width-1, v); len(s) < width {
			copy(b[at:], s)
		} else {
			copy(b[at:], strings.Repeat("0", width-1))
		}
	}
	e := h.entry
	copy(b[0:100], h.name)
	octal(100, 8, uint64(e.Mode))
	octal(108, 8, uint64(e.UID))
	octal(116, 8, uint64(e.GID))
	octal(124, 12, h.size)
	octal(136, 12, uint64(max(e.Mtime.Sec, 0)))
	b[156] = h.kind
	copy(b[157:257], h.link)
	copy(b[257:], "ustar\x0000")
	octal(329, 8, uint64(e.Major))
	octal(337, 8, uint64(e.Minor))
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
