package checkout

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/pax"
)

// Tar writes the version with the given root as a tar archive in the pax format (POSIX.1-2001). GNU tar, libarchive
// and Go can read it: xattrs are SCHILY.xattr records, sparse files have GNU's format 1.0. The same version always
// gives the same bytes.
func Tar(ctx context.Context, from Source, root image.Entry, w io.Writer) error {
	t := tarWriter{ctx: ctx, from: from, w: bufio.NewWriterSize(w, 256<<10), links: map[string]string{}}
	err := treediff.Walk(ctx, from.Tree, &root, t.entry)
	if err == nil {
		_, err = t.w.Write(make([]byte, 2*pax.Block)) // end of the archive
	}
	if err != nil {
		return err
	}
	return t.w.Flush()
}

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

const tarLink = '1'

func (t *tarWriter) member(name string, e *image.Entry) error {
	h := pax.Header{
		Name: name, Kind: tarTypes[e.Type], Link: e.Target, Mode: e.Mode, UID: e.UID, GID: e.GID,
		Mtime: e.Mtime, Major: e.Major, Minor: e.Minor,
	}
	if first, ok := t.links[e.Link]; ok && e.Link != "" {
		h.Kind, h.Link = tarLink, first
		return t.header(&h)
	}
	if e.Link != "" {
		t.links[e.Link] = name
	}
	for _, x := range e.Xattrs {
		h.AddXattr(x.Name, x.Value)
	}
	if e.Type != image.Regular {
		return t.header(&h)
	}
	data := extents(e)
	h.Size = e.Size
	var maps []byte
	if e.Data != nil {
		maps = h.SetSparse(data)
	}
	if err := t.header(&h); err != nil {
		return err
	}
	return t.content(e, maps, data)
}

func (t *tarWriter) header(h *pax.Header) error {
	_, err := t.w.Write(h.Encode())
	return err
}

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
	_, err = t.w.Write(make([]byte, pax.Padding(total)))
	return err
}
