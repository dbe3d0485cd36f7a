// Package archive reads tar archives as entries of a tree. Archives are plain or compressed with gzip, zstd, xz or
// bzip2, in the formats of POSIX (ustar, pax) and of GNU tar. Xattrs, ACLs, capabilities, holes, and times to the
// nanosecond are kept if the archive has them.
//
// Archives are not trusted. A name that leads out of the archive, an unknown type of member, a number out of range, and
// an archive without its end mark are errors; nothing is guessed. Nothing is unpacked to a disk. Memory is bounded by
// the header of one member in archive/tar, a few MiB, and by the window of the decompression.
//
// The reader is archive/tar. It returns zeros for holes. That is enough, because all blocks of zeros of a file that is
// known to have holes are stored as holes.
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
	Link   string // of a hard link: the path of the member that it links to; Entry has no meaning then
	Linked bool   // it is a hard link
	Sparse bool   // it has holes

	r    *tar.Reader
	read uint64 // bytes of content that were read
	// progress, if not nil, is called with the number of bytes that were read, holes included.
	progress func(bytes uint64)
}

// Read reads the content of a regular file.
func (m *Member) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.read += uint64(n)
	if m.progress != nil {
		m.progress(uint64(n))
	}
	return n, err
}

// Reader returns the members of an archive in their order.
type Reader struct {
	src    *counter
	tar    *tar.Reader
	member *Member // the last one that Next returned
	last   string  // the name of the last member
	layer  bool    // an end mark is not necessary: the caller knows the digest of the whole

	// warn, if not nil, is called for what is not kept: the path of a member, or "" for the archive, and what it is.
	warn func(path, text string)
}

// NewReader returns a Reader of the uncompressed archive r. Reading ends with an error when ctx ends.
func NewReader(ctx context.Context, r io.Reader) *Reader {
	src := &counter{ctx: ctx, r: r}
	return &Reader{src: src, tar: tar.NewReader(src)}
}

// counter counts the bytes that are read.
type counter struct {
	ctx   context.Context
	r     io.Reader
	n     int64
	zeros int64 // at the end of what was read
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

// Next returns the next member. It skips the rest of the content of the member before. After the last member it reads
// the source to its end and returns io.EOF.
func (r *Reader) Next() (*Member, error) {
	for {
		if r.member != nil && !r.member.Sparse { // to skip the zeros of holes could take hours
			if _, err := io.Copy(io.Discard, r.tar); err != nil {
				return nil, r.failed(truncated(err))
			}
		}
		before := (r.src.n + blockSize - 1) / blockSize * blockSize
		h, err := r.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil, r.end(before)
		}
		if err != nil {
			return nil, r.failed(err)
		}
		r.last = h.Name
		m, err := r.newMember(h)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", shortened(h.Name), err)
		}
		if r.member = m; m != nil {
			return m, nil
		}
	}
}

// failed adds to an error where it was found.
func (r *Reader) failed(err error) error {
	if r.last == "" {
		return fmt.Errorf("before the first member: %w", err)
	}
	return fmt.Errorf("behind the header of member %q, before byte %d: %w", shortened(r.last), r.src.n, err)
}

// end checks that the archive ends with its end mark, blocks of zeros. archive/tar does not, so that an archive that is
// cut off between two members would look complete.
func (r *Reader) end(before int64) error {
	marked := r.src.n-before >= blockSize && r.src.zeros >= blockSize
	if !marked && !r.layer {
		return r.failed(fmt.Errorf("the archive ends without its end mark, so it may be cut off; write it again, "+
			"or append 1024 bytes of zeros if it is whole: %w", io.ErrUnexpectedEOF))
	}
	if err := r.rest(); err != nil { // a decompressor checks its sum at the end
		return err
	}
	return io.EOF
}

// rest reads the source to its end, and warns if there is a further archive.
func (r *Reader) rest() error {
	f := &furtherArchive{at: r.src.n, found: -1}
	if _, err := io.Copy(f, r.src); err != nil {
		return err
	}
	if f.found >= 0 {
		r.warning("", fmt.Sprintf("a further archive begins at byte %d; its members are not captured", f.found))
	}
	return nil
}

// furtherArchive finds the first header of an archive in what is written to it.
type furtherArchive struct {
	at    int64 // offset of what is written next
	block []byte
	found int64 // offset; -1: none
}

func (f *furtherArchive) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		n := min(len(b), blockSize-int(f.at%blockSize))
		f.block = append(f.block, b[:n]...)
		b = b[n:]
		if f.at += int64(n); f.at%blockSize == 0 {
			if f.found < 0 && len(f.block) == blockSize && string(f.block[257:262]) == "ustar" {
				f.found = f.at - blockSize
			}
			f.block = f.block[:0]
		}
	}
	return len(p), nil
}

func (r *Reader) warning(path, text string) {
	if r.warn != nil {
		r.warn(path, text)
	}
}

// newMember returns nil for a header that describes no object.
func (r *Reader) newMember(h *tar.Header) (*Member, error) {
	if err := checkHeader(h); err != nil {
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
	if m.Entry, err = entry(h); err != nil {
		return nil, err
	}
	if names := notUnderstood(h.PAXRecords); names != "" {
		r.warning(m.Path, "extended attributes of a form that is not read: "+names)
	}
	return m, nil
}

// Type flags of GNU tar that archive/tar does not name (GNU tar manual, "Basic Tar Format").
const (
	typeDumpDir = 'D'
	typeVolume  = 'V'
)

// ignorable reports whether a record of a global header has no effect on members.
func ignorable(key string) bool { return key == "comment" || strings.HasPrefix(key, "hdrcharset") }

// checkHeader returns an error for records that archive/tar ignores although they change the meaning of a member.
func checkHeader(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		for key := range h.PAXRecords {
			if !ignorable(key) {
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
