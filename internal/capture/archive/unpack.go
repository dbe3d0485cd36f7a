package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"dim/internal/capture/draft"
	"dim/internal/image"
	"dim/internal/store"
)

// Batch stores content; it is a *store.Batch.
type Batch interface {
	PutBytes([]byte) (image.Digest, error)
	PutBlob(ctx context.Context, r io.Reader) (store.Content, error)
	PutSparse(ctx context.Context, r io.Reader) (store.Content, error)
}

// small is the size up to which content is read into memory and stored with one call.
const small = 64 << 10

// Store stores the content of m, a regular file, in b. It sets the digest and the holes of m.Entry.
func (m *Member) Store(ctx context.Context, b Batch) error {
	e := &m.Entry
	if e.Size <= small && !m.Sparse {
		content := make([]byte, e.Size)
		if _, err := io.ReadFull(m, content); err != nil {
			return truncated(err)
		}
		var err error
		e.Digest, err = b.PutBytes(content)
		return err
	}
	put := b.PutBlob
	if m.Sparse {
		put = b.PutSparse
	}
	c, err := put(ctx, m)
	if err != nil {
		return err
	}
	if c.Size != e.Size {
		return truncated(io.ErrUnexpectedEOF)
	}
	e.Digest, e.Data = c.Digest, c.Data
	return nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is shorter than it says: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// Unpacker adds the members of archives to a tree, and their content to a batch.
type Unpacker struct {
	Batch    Batch
	Tree     *draft.Tree
	Layer    bool                      // the archive is a layer of an image; its digest is checked elsewhere
	Warn     func(path, text string)   // if not nil, called for what is odd or not kept; path "": the archive
	Progress func(files, bytes uint64) // if not nil, called for each member, and while content is read
	Note     func(path string)         // if not nil, called with the path of each member before it is added

	Files, Bytes uint64 // regular files that were read
}

// Unpack adds an uncompressed archive. A layer obeys names that hide others (OCI image-spec, layer.md), and needs no
// end mark, which some tools do not write.
func (u *Unpacker) Unpack(ctx context.Context, r io.Reader) error {
	in := NewReader(ctx, r)
	in.layer, in.warn = u.Layer, u.Warn
	for {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.add(ctx, m); err != nil {
			return fmt.Errorf("member %q: %w", shortened(m.Path), err)
		}
	}
}

// The names that hide others (OCI image-spec, layer.md, "Whiteouts"). Further names that begin with metadata belong to
// aufs.
const (
	whiteout   = ".wh."
	metadata   = ".wh..wh."
	opaqueName = ".wh..wh..opq"
)

func (u *Unpacker) add(ctx context.Context, m *Member) error {
	if u.Note != nil {
		u.Note(m.Path)
	}
	last := path.Base(m.Path)
	if u.Layer && strings.HasPrefix(last, whiteout) {
		if m.Entry.Size > 0 {
			return errors.New("it hides another and has content")
		}
		dir := strings.TrimSuffix(strings.TrimSuffix(m.Path, last), "/")
		switch {
		case last == opaqueName:
			return u.Tree.Clear(dir)
		case strings.HasPrefix(last, metadata):
			return nil
		}
		hidden := strings.TrimPrefix(last, whiteout)
		if !image.ValidEntryName(hidden) {
			return errors.New("it hides nothing that could be there")
		}
		return u.Tree.Remove(image.JoinPath(dir, hidden))
	}
	if m.Linked {
		u.progress(1, 0)
		return u.Tree.Link(m.Path, m.Link)
	}
	m.progress = func(bytes uint64) { u.progress(0, bytes) }
	if m.Entry.Type == image.Regular && u.Tree.Wanted(m.Path) {
		if err := m.Store(ctx, u.Batch); err != nil {
			return err
		}
		u.Files++
		u.Bytes += m.Entry.Size
	}
	u.progress(1, m.Entry.Size-m.read)
	return u.Tree.Put(m.Path, m.Entry)
}

func (u *Unpacker) progress(files, bytes uint64) {
	if u.Progress != nil {
		u.Progress(files, bytes)
	}
}
