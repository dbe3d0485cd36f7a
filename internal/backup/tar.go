package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"dim/internal/image"
	"dim/internal/pax"
)

// socketRecord is the key of a pax record that makes an empty file a socket: tar has no type for it.
const (
	socketRecord = "DIM.type"
	linkFlag     = '1'
)

// tarFlags are the typeflags of members.
func tarFlag(k kind) byte {
	switch k {
	case symlinkKind:
		return '2'
	case charKind:
		return '3'
	case blockKind:
		return '4'
	case dirKind:
		return '5'
	case fifoKind:
		return '6'
	}
	return '0'
}

// tarSink writes entries as members of a tar archive.
type tarSink struct {
	w      *bufio.Writer
	failed func(path string, err error) // content cannot be read: the rest of the member is zeros
}

func newTarSink(w io.Writer, failed func(string, error)) *tarSink {
	return &tarSink{w: bufio.NewWriterSize(w, 1<<20), failed: failed}
}

func (s *tarSink) add(e *entry, c content) (written uint64, err error) {
	e.origin = nil // it is of use only where the next backup is made beside this one
	h := pax.Header{
		Name: e.path, Kind: tarFlag(e.kind), Link: e.target, Mode: e.mode, UID: e.uid, GID: e.gid, Mtime: e.mtime,
		Major: e.major, Minor: e.minor,
	}
	if e.hardLink != "" {
		h.Kind, h.Link = linkFlag, e.hardLink
		return 0, s.header(&h)
	}
	if e.kind == dirKind {
		h.Name += "/"
	}
	if e.kind == socketKind {
		h.AddRecord(socketRecord, string(socketKind))
	}
	for _, x := range e.xattrs {
		h.AddXattr(x.Name, x.Value)
	}
	if e.kind != fileKind {
		return 0, s.header(&h)
	}
	return s.file(e, c, &h)
}

func (s *tarSink) header(h *pax.Header) error {
	_, err := s.w.Write(h.Encode())
	return err
}

func (s *tarSink) file(e *entry, c content, h *pax.Header) (written uint64, err error) {
	data, err := c.extents()
	if err != nil {
		return 0, err
	}
	h.Size = e.size
	var sparse []byte
	total := uint64(0)
	for _, x := range data {
		total += x.Length
	}
	if total < e.size {
		sparse = h.SetSparse(data)
	}
	if err := s.header(h); err != nil {
		return 0, err
	}
	if _, err := s.w.Write(sparse); err != nil {
		return 0, err
	}
	sum := newHasher(e.size)
	put := func(b []byte, off uint64) error {
		if err := sum.write(b, off); err != nil {
			return err
		}
		written += uint64(len(b))
		_, err := s.w.Write(b)
		return err
	}
	err = (&fixedContent{c, data}).each(put)
	if r, ok := errors.AsType[*readError](err); ok {
		s.failed(e.path, r.err)
		err = fill(data, written, put)
	}
	if err == nil {
		_, err = s.w.Write(make([]byte, pax.Padding(total)))
	}
	if err == nil {
		e.digest = sum.sum()
	}
	return written, err
}

// fill writes zeros for what is missing of the data, of which written bytes are there.
func fill(data []image.Extent, written uint64, put func([]byte, uint64) error) error {
	for _, x := range data {
		done := min(written, x.Length)
		written -= done
		for off, end := x.Offset+done, x.Offset+x.Length; off < end; {
			n := min(end-off, 64<<10)
			if err := put(make([]byte, n), off); err != nil {
				return err
			}
			off += n
		}
	}
	return nil
}

// fixedContent gives exactly the data of the extents that were announced.
type fixedContent struct {
	content
	data []image.Extent
}

func (f *fixedContent) each(write func([]byte, uint64) error) error {
	named, ok := f.content.(*namedContent)
	if !ok {
		return f.content.each(write)
	}
	file, err := named.open()
	if err != nil {
		return err
	}
	return file.eachOf(f.data, write)
}

// small writes a member with content that is no entry of the backup: the manifest, and the description.
func (s *tarSink) small(name string, size uint64, from io.Reader, at image.Time) error {
	h := pax.Header{Name: name, Kind: '0', Mode: 0o600, Size: size, Mtime: at}
	if err := s.header(&h); err != nil {
		return err
	}
	n, err := io.Copy(s.w, from)
	if err == nil && uint64(n) != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = s.w.Write(make([]byte, pax.Padding(size)))
	}
	return err
}

func (s *tarSink) end() error {
	if _, err := s.w.Write(make([]byte, 2*pax.Block)); err != nil {
		return err
	}
	return s.w.Flush()
}

// member is what a tar archive has at one place: an entry, or the manifest or the description.
type member struct {
	name string
	e    *entry // nil: name tells what it is
	c    content
	from io.Reader
	size int64
}

// readTar calls each with every member, until ctx ends.
func readTar(ctx context.Context, from io.Reader, each func(m *member) error) error {
	r := tar.NewReader(bufio.NewReaderSize(from, 1<<20))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		m, err := parseMember(h, &untilEnd{ctx, r})
		if err == nil {
			err = each(m)
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
}

func parseMember(h *tar.Header, r io.Reader) (*member, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	m := &member{name: name, from: r, size: h.Size}
	if name == manifestName || name == infoName {
		return m, nil
	}
	if err := checkPath(name); err != nil {
		return nil, err
	}
	e := &entry{
		path: name, mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid),
		mtime: image.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())},
	}
	m.e = e
	switch h.Typeflag {
	case tar.TypeLink:
		*e = entry{path: name, kind: fileKind, hardLink: strings.TrimPrefix(h.Linkname, "./")}
		return m, checkPath(e.hardLink)
	case tar.TypeDir:
		e.kind = dirKind
	case tar.TypeSymlink:
		e.kind, e.target = symlinkKind, h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		e.kind = charKind
		if h.Typeflag == tar.TypeBlock {
			e.kind = blockKind
		}
		e.major, e.minor = uint32(h.Devmajor), uint32(h.Devminor)
	case tar.TypeFifo:
		e.kind = fifoKind
	case tar.TypeReg:
		e.kind, e.size = fileKind, uint64(h.Size)
		_, sparse := h.PAXRecords["GNU.sparse.major"]
		m.c = &tarContent{r: r, size: e.size, sparse: sparse}
		if h.PAXRecords[socketRecord] == string(socketKind) {
			e.kind, e.size, m.c = socketKind, 0, nil
		}
	default:
		return nil, fmt.Errorf("its type %q is not known", h.Typeflag)
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > math.MaxUint32 || h.Gid > math.MaxUint32 || h.Size < 0 {
		return nil, errors.New("a number is out of range")
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			name = strings.NewReplacer("%3D", "=", "%25", "%").Replace(name)
			e.xattrs = append(e.xattrs, image.Xattr{Name: name, Value: []byte(value)})
		}
	}
	slices.SortFunc(e.xattrs, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return m, e.check()
}

// untilEnd reads until ctx ends. A member that is one hole of a TiB takes minutes.
type untilEnd struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (u *untilEnd) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// tarContent is the content of a member, which can be read once.
type tarContent struct {
	r      io.Reader
	size   uint64
	sparse bool // blocks of zeros are holes
}

func (c *tarContent) extents() ([]image.Extent, error) {
	return []image.Extent{{Length: c.size}}, nil
}

func (c *tarContent) each(write func(b []byte, off uint64) error) error {
	buf, zero := make([]byte, 256<<10), make([]byte, block)
	for off := uint64(0); off < c.size; {
		b := buf[:min(uint64(len(buf)), c.size-off)]
		if _, err := io.ReadFull(c.r, b); err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if !c.sparse {
			if err := write(b, off); err != nil {
				return err
			}
			off += uint64(len(b))
			continue
		}
		for len(b) > 0 {
			n := min(block, len(b))
			if !bytes.Equal(b[:n], zero[:n]) {
				if err := write(b[:n], off); err != nil {
					return err
				}
			}
			b, off = b[n:], off+uint64(n)
		}
	}
	return nil
}
