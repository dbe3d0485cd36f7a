// Package archive reads tar archives as entries of a tree: plain or compressed with gzip, zstd, xz or bzip2, in the forms of POSIX (ustar, pax) and of
// GNU tar, with xattrs, ACLs, capabilities, holes, and times to the nanosecond where the archive has them.
//
// Every byte of an archive is taken for hostile. A name that leads out of it, an unknown kind of member, numbers out of range, an archive
// without its end: each is an error, and nothing is guessed. Nothing is unpacked to a disk. Memory is bounded by what archive/tar takes for
// one member's header, which is a few MiB, and by the window of the decompression.
//
// archive/tar does the reading. It fills holes with zeros; that is enough, because the holes of a stored file are its blocks of zeros, once it is
// known to have holes.
package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"dim/internal/capture/draft"
	"dim/internal/image"
)

// Member is one member of an archive.
type Member struct {
	Path   string // as draft.Clean gives it
	Entry  image.Entry
	Link   string // for a hard link: the path of what has this name, too; Entry means nothing then
	Linked bool
	Sparse bool // it has holes

	r *tar.Reader
}

// Read reads the content of a regular file.
func (m *Member) Read(p []byte) (int, error) { return m.r.Read(p) }

// Reader yields the members of an archive in their order.
type Reader struct {
	src *counter
	tar *tar.Reader
	now *Member
}

// NewReader reads the uncompressed archive r. An error of ctx ends it.
func NewReader(ctx context.Context, r io.Reader) *Reader {
	src := &counter{ctx: ctx, r: r}
	return &Reader{src: src, tar: tar.NewReader(src)}
}

// counter counts what is read.
type counter struct {
	ctx   context.Context
	r     io.Reader
	n     int64
	zeros int64 // that the last bytes were
}

func (c *counter) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	zeros := n - len(bytes.TrimRight(p[:n], "\x00"))
	if zeros < n {
		c.zeros = 0
	}
	c.zeros += int64(zeros)
	return n, err
}

const blockSize = 512

// Next returns the next member, and io.EOF when all of the archive was read, up to the end of the file that it is in. What the member before
// has left of its content is passed over.
func (r *Reader) Next() (*Member, error) {
	for {
		if r.now != nil && !r.now.Sparse { // the zeros of holes could go on for hours
			if _, err := io.Copy(io.Discard, r.tar); err != nil {
				return nil, err
			}
		}
		before := (r.src.n + blockSize - 1) / blockSize * blockSize
		h, err := r.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil, r.end(before)
		}
		if err != nil {
			return nil, err
		}
		m, err := r.member(h)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", shortened(h.Name), err)
		}
		if r.now = m; m != nil {
			return m, nil
		}
	}
}

// end wants to see the blocks of zeros that end an archive: archive/tar does without, but then one that was cut off between two members looks
// whole.
func (r *Reader) end(before int64) error {
	if r.src.n-before < blockSize || r.src.zeros < blockSize {
		return fmt.Errorf("the archive ends without its end mark: %w", io.ErrUnexpectedEOF)
	}
	if _, err := io.Copy(io.Discard, r.src); err != nil { // so that a decompressor checks its sum
		return err
	}
	return io.EOF
}

// member returns nil for what is no object.
func (r *Reader) member(h *tar.Header) (*Member, error) {
	if err := refuse(h); err != nil {
		return nil, err
	}
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeVolume {
		return nil, nil
	}
	m := &Member{r: r.tar, Sparse: sparse(h)}
	var err error
	if m.Path, err = draft.Clean(h.Name); err != nil {
		return nil, err
	}
	if h.Typeflag == tar.TypeLink {
		m.Linked = true
		m.Link, err = draft.Clean(h.Linkname)
		return m, err
	}
	m.Entry, err = entry(h)
	return m, err
}

// Type flags of GNU tar that archive/tar has no names for (GNU tar manual, "Basic Tar Format").
const (
	typeDumpDir = 'D'
	typeVolume  = 'V'
)

// harmless are the records that a global header may have: they say nothing of a member.
func harmless(key string) bool { return key == "comment" || strings.HasPrefix(key, "hdrcharset") }

// refuse tells what archive/tar would pass over and this package must not.
func refuse(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		for key := range h.PAXRecords {
			if !harmless(key) {
				return fmt.Errorf("global header with %q is not understood", shortened(key))
			}
		}
	}
	version := h.PAXRecords["GNU.sparse.major"] + "." + h.PAXRecords["GNU.sparse.minor"]
	switch version {
	case ".", "0.0", "0.1", "1.0":
		return nil
	}
	return fmt.Errorf("holes in form %q are not understood", shortened(version))
}

func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" {
		return true
	}
	_, ok := h.PAXRecords["GNU.sparse.map"]
	return ok
}

func shortened(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
