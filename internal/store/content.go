package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
)

// Content describes a blob that was stored.
type Content struct {
	Digest image.Digest
	Size   uint64
	Data   []image.Extent // as in image.Entry
}

// PutBlob stores all that r returns as a blob. After an error of r the batch is as it was before.
func (b *Batch) PutBlob(ctx context.Context, r io.Reader) (Content, error) {
	return b.putStream(ctx, r, false)
}

// PutSparse is PutBlob for a file that is known to have holes: all blocks of zeros become holes. If r has
// the method SkipZeros(unit int64) (int64, error), which skips zeros that come next, as many whole units of bytes as
// there are, and returns their number, these are not read.
func (b *Batch) PutSparse(ctx context.Context, r io.Reader) (Content, error) {
	return b.putStream(ctx, r, true)
}

// PutExpected stores all that r returns as the blob want, of which Data only tells whether the file is known to have
// holes. If r returns something else, the error is ErrMismatch, and nothing is stored. After an error of r the batch is
// as it was before.
func (b *Batch) PutExpected(ctx context.Context, want Content, r io.Reader) error {
	_, err := b.putChecked(ctx, r, want.Data != nil, func(c Content) error {
		if c.Digest != want.Digest || c.Size != want.Size {
			return fmt.Errorf("put blob %s: %w: its digest is %s", want.Digest, ErrMismatch, c.Digest)
		}
		return nil
	})
	return err
}

func (b *Batch) putStream(ctx context.Context, r io.Reader, sparse bool) (Content, error) {
	return b.putChecked(ctx, r, sparse, func(Content) error { return nil })
}

// putChecked stores all that r returns as a blob, unless check refuses it.
func (b *Batch) putChecked(
	ctx context.Context, r io.Reader, sparse bool, check func(Content) error,
) (Content, error) {
	fd, name, err := b.createTemp()
	if err != nil {
		return Content{}, b.fail(err)
	}
	defer unix.Close(fd)
	w := b.newHashWriter(ctx, fd)
	w.sparse = sparse
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	for {
		n, rerr := w.next(r)
		ended := errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF)
		if rerr != nil && !ended {
			return Content{}, errors.Join(rerr, b.unlink(name))
		}
		if err := w.add(w.buf[:n]); err != nil {
			return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
		}
		if ended {
			break
		}
	}
	if err := w.end(); err != nil {
		return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
	}
	c := w.content()
	if err := check(c); err != nil {
		return Content{}, errors.Join(err, b.unlink(name))
	}
	b.written(c.Size)
	return c, b.adopt(ctx, name, c)
}

// PutFile stores the content of src, a descriptor of a regular file, as a blob. Holes stay holes. If the file system
// supports it, the blob shares the blocks of the file. PutFile reads up to the size that the file has at the beginning.
// It does not find out whether the file changes meanwhile; the digest is that of the stored bytes in any case.
//
// PutFile moves the file position of src. It returns read errors as *fs.PathError with Op "read" and the given path;
// the batch can be used after them.
func (b *Batch) PutFile(ctx context.Context, src int, path string) (Content, error) {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return Content{}, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	if st.Size <= chunk && st.Blocks*512 >= st.Size {
		return b.putWhole(src, &st, path)
	}
	fd, name, err := b.createTemp()
	if err != nil {
		return Content{}, b.fail(err)
	}
	defer unix.Close(fd)
	c, err := b.copyFile(ctx, fd, src)
	if _, read := errors.AsType[*readError](err); read || err != nil && ctx.Err() != nil {
		return Content{}, errors.Join(&fs.PathError{Op: "read", Path: path, Err: err}, b.unlink(name))
	}
	if err != nil {
		return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
	}
	return c, b.adopt(ctx, name, c)
}

// putWhole stores a file that fits into a buffer. Its digest is known before the blob is made, so that the blob needs
// no temporary name.
func (b *Batch) putWhole(src int, st *unix.Stat_t, path string) (Content, error) {
	w := b.newBuffer()
	defer b.buffers.Put(w)
	share := b.sharable(src, st)
	n, err := readAll(src, w[:st.Size])
	if err != nil {
		return Content{}, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	b.hashed(uint64(n))
	c := Content{Digest: image.Sum(w[:n]), Size: uint64(n)}
	return c, b.putWith(object{blobsDir, c.Digest}, uint64(n), func(fd int) error {
		if share {
			if same, err := b.shareUnchanged(fd, src, st); err != nil || same {
				return err
			}
		}
		b.written(c.Size)
		return sysfile.WriteAt(fd, w[:n], 0)
	})
}

// cloneFrom is the size from which sharing blocks costs less than writing (measured on XFS).
const cloneFrom = 16 << 10

// sharable reports whether the bytes that are read from src from now on are those that a later clone has, if the times
// of src are then as in st. A page that is dirty because of a mapping can be written to again without a change of the
// times, so src must have no dirty pages.
func (b *Batch) sharable(src int, st *unix.Stat_t) bool {
	const writeAndWait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return st.Size >= cloneFrom && !b.noClone.Load() && b.s.settled(st) &&
		unix.SyncFileRange(src, 0, 0, writeAndWait) == nil
}

// shareUnchanged makes the empty file dst share the blocks of src. If that is not possible, or src has changed since
// st, it returns false and dst is empty.
func (b *Batch) shareUnchanged(dst, src int, st *unix.Stat_t) (bool, error) {
	if cloned, err := b.clone(dst, src); err != nil || !cloned {
		return false, err
	}
	same, err := unchangedSince(src, st)
	if err != nil || !same {
		return false, errors.Join(err, unix.Ftruncate(dst, 0))
	}
	return true, nil
}

// unchangedSince reports whether src still has the size and the times in st.
func unchangedSince(src int, st *unix.Stat_t) (bool, error) {
	var now unix.Stat_t
	err := unix.Fstat(src, &now)
	return now.Ctim == st.Ctim && now.Mtim == st.Mtim && now.Size == st.Size, err
}

func readAll(fd int, p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// copyFile makes the temporary file dst a copy of src.
func (b *Batch) copyFile(ctx context.Context, dst, src int) (Content, error) {
	var before unix.Stat_t
	if err := unix.Fstat(src, &before); err != nil {
		return Content{}, &readError{err}
	}
	cloned, err := b.clone(dst, src)
	if err != nil {
		return Content{}, err
	}
	if !cloned {
		c, err := b.copyAndHash(ctx, src, dst)
		b.written(c.Size)
		return c, err
	}
	// The digest must be that of the clone. But the pages of src may be in memory and those of the clone are not. If
	// src has not changed since before, the two are equal. Its ctime shows a change, unless it is so recent that a
	// change now would leave it the same.
	if !b.s.settled(&before) {
		return b.copyAndHash(ctx, dst, -1)
	}
	c, err := b.copyAndHash(ctx, src, -1)
	if err != nil {
		return c, err
	}
	same, err := unchangedSince(src, &before)
	if err != nil {
		return Content{}, &readError{err}
	}
	if !same || c.Size != uint64(before.Size) {
		return b.copyAndHash(ctx, dst, -1)
	}
	return c, nil
}

// clockGrain is longer than two changes with the same ctime can be apart.
const clockGrain = 2 * time.Second

// settled reports whether any change from now on changes the ctime.
func (s *Store) settled(st *unix.Stat_t) bool {
	return time.Unix(st.Ctim.Unix()).Before(s.o.Now().Add(-clockGrain))
}

// copyAndHash copies src to dst; if dst is negative, it only hashes.
func (b *Batch) copyAndHash(ctx context.Context, src, dst int) (Content, error) {
	w := b.newHashWriter(ctx, dst)
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	err := w.file(src)
	return w.content(), err
}

// clone makes dst share the blocks of src. It returns false if the file system cannot do that.
func (b *Batch) clone(dst, src int) (bool, error) {
	if b.noClone.Load() {
		return false, nil
	}
	err := unix.IoctlFileClone(dst, src)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO):
		return false, os.NewSyscallError("clone", err)
	}
	b.noClone.Store(true)
	return false, nil
}

// adopt gives a temporary file the name of its blob, or removes it if the store or the batch has the blob.
func (b *Batch) adopt(ctx context.Context, name string, c Content) error {
	o := object{blobsDir, c.Digest}
	fresh, err := b.claim(ctx, o, c.Size)
	if err != nil || !fresh {
		return errors.Join(err, b.unlink(name))
	}
	if err := b.s.step("put"); err != nil {
		return b.fail(err)
	}
	if err := b.makeFanout(o); err != nil {
		return b.fail(err)
	}
	dir := int(b.dir.Fd())
	if err := unix.Renameat(dir, name, dir, objectPath(blobsDir, c.Digest)); err != nil {
		return b.fail(&fs.PathError{Op: "rename", Path: name, Err: err})
	}
	b.count(c.Size)
	return nil
}

func (b *Batch) unlink(name string) error {
	if err := unix.Unlinkat(int(b.dir.Fd()), name, 0); err != nil {
		return b.fail(&fs.PathError{Op: "unlink", Path: name, Err: err})
	}
	return nil
}

const (
	chunk = 256 << 10 // stays in the cache of a processor between being read and being hashed
	block = 4096      // size of the smallest hole
)

// hashWriter hashes what it writes: streams, and files that do not fit into a buffer. If dst is negative, it only
// hashes.
type hashWriter struct {
	ctx    context.Context
	room   func() error // whether the disk has room for more; nil: nothing is written
	dst    int
	buf    []byte
	hash   hash.Hash
	zeros  *zeros
	hashed func(bytes uint64)
	off    int64
	zero   int64 // bytes before off that are zeros, and are hashed when something else follows
	sparse bool  // blocks of zeros become holes
	holes  bool
	data   []image.Extent
}

func (b *Batch) newHashWriter(ctx context.Context, dst int) *hashWriter {
	return &hashWriter{
		ctx: ctx, room: b.room, dst: dst, buf: b.newBuffer()[:], hash: newHash(), zeros: &b.s.zeros, hashed: b.hashed,
	}
}

func (b *Batch) newBuffer() *[chunk]byte {
	if buf, ok := b.buffers.Get().(*[chunk]byte); ok {
		return buf
	}
	return new([chunk]byte)
}

func newHash() hash.Hash { return sha256.New() }

type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// file adds the content of the regular file src.
func (w *hashWriter) file(src int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return &readError{err}
	}
	// SEEK_HOLE is used only for files with fewer blocks than bytes: preallocated files and files with a few clean
	// pages may report holes that are gone at the next call.
	w.sparse = st.Blocks*512 < st.Size
	if !w.sparse {
		return w.span(src, st.Size)
	}
	for w.off < st.Size {
		start, err := unix.Seek(src, w.off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			start, err = st.Size, nil
		}
		if err != nil { // the file system does not report holes
			start = w.off
		}
		if w.hole(min(start, st.Size)); w.off >= st.Size {
			break
		}
		before, end := w.off, st.Size
		if err == nil {
			if hole, err := unix.Seek(src, w.off, unix.SEEK_HOLE); err == nil {
				end = hole
			}
		}
		if err := w.span(src, min(end, st.Size)); err != nil {
			return err
		}
		if w.off == before { // the file became shorter
			break
		}
	}
	return w.end()
}

// end hashes a hole at the end, and sets the size of dst, which the hole has not extended.
func (w *hashWriter) end() error {
	if err := w.hashZeros(); err != nil || w.dst < 0 {
		return err
	}
	return unix.Ftruncate(w.dst, w.off)
}

// span adds the bytes of src from the current offset to end, or to the end of the file.
func (w *hashWriter) span(src int, end int64) error {
	for w.off < end {
		n, err := unix.Pread(src, w.buf[:min(int64(len(w.buf)), end-w.off)], w.off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &readError{err}
		}
		if n == 0 {
			return nil
		}
		if err := w.add(w.buf[:n]); err != nil {
			return err
		}
		w.hashed(uint64(n))
	}
	return nil
}

// add adds p at the current offset.
func (w *hashWriter) add(p []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.room != nil {
		if err := w.room(); err != nil {
			return err
		}
	}
	if w.sparse && len(p) == chunk && isZero(p) {
		w.hole(w.off + chunk)
		return nil
	}
	if err := w.hashZeros(); err != nil {
		return err
	}
	w.hash.Write(p)
	if w.sparse {
		return w.addSparse(p)
	}
	if w.dst >= 0 {
		if err := sysfile.WriteAt(w.dst, p, w.off); err != nil {
			return err
		}
	}
	w.off += int64(len(p))
	return nil
}

// addSparse adds p and makes its blocks of zeros holes. So the position of holes depends on the content alone, not on
// the layout in a file system.
func (w *hashWriter) addSparse(p []byte) error {
	for len(p) > 0 {
		n := min(int64(len(p)), block-w.off%block)
		if isZero(p[:n]) {
			w.holes = true
		} else {
			if w.dst >= 0 {
				if err := sysfile.WriteAt(w.dst, p[:n], w.off); err != nil {
					return err
				}
			}
			w.extent(uint64(w.off), uint64(n))
		}
		w.off += n
		p = p[n:]
	}
	return nil
}

func (w *hashWriter) extent(off, n uint64) {
	if last := len(w.data) - 1; last >= 0 && w.data[last].Offset+w.data[last].Length == off {
		w.data[last].Length += n
		return
	}
	w.data = append(w.data, image.Extent{Offset: off, Length: n})
}

// isZero compares p with itself moved by one byte: memcmp finds out fast whether all bytes are the same.
func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }

func (w *hashWriter) content() Content {
	c := Content{Size: uint64(w.off)}
	w.hash.Sum(c.Digest[:0])
	if !w.holes || w.off == 0 {
		return c
	}
	c.Data = w.data
	if c.Data == nil {
		c.Data = []image.Extent{}
	}
	return c
}
