package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// Content is what PutFile found in a file.
type Content struct {
	Digest image.Digest
	Size   uint64
	Data   []image.Extent // as in image.Entry
}

// PutBlob stores all that r yields as a blob. An error of r leaves the batch as it was.
func (b *Batch) PutBlob(ctx context.Context, r io.Reader) (Content, error) {
	return b.putStream(ctx, r, false)
}

// PutSparse is PutBlob for a file that is known to have holes: all its blocks of zeros are.
func (b *Batch) PutSparse(ctx context.Context, r io.Reader) (Content, error) {
	return b.putStream(ctx, r, true)
}

func (b *Batch) putStream(ctx context.Context, r io.Reader, sparse bool) (Content, error) {
	fd, name, err := b.createTemp()
	if err != nil {
		return Content{}, b.fail(err)
	}
	defer unix.Close(fd)
	w := b.newIntake(ctx, fd)
	w.sparse = sparse
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	for {
		n, rerr := io.ReadFull(r, w.buf)
		if err := w.add(w.buf[:n]); err != nil {
			return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			return Content{}, errors.Join(rerr, b.unlink(name))
		}
	}
	if err := w.end(); err != nil {
		return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
	}
	c := w.content()
	b.written(c.Size)
	return c, b.adopt(name, c)
}

// PutFile stores what is in the regular file that is open at src as a blob; holes stay holes. Where the file system can, the blob shares
// the file's blocks. It reads up to the size that the file has at the beginning: whether it changed meanwhile is for the caller to
// find out. The blob is what the digest says in any case.
//
// It uses src's position, and returns its read errors as *fs.PathError with Op "read" and the path given, after which the batch may go on.
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
	c, err := b.takeIn(ctx, fd, src)
	if re := new(readError); errors.As(err, &re) || err != nil && ctx.Err() != nil {
		return Content{}, errors.Join(&fs.PathError{Op: "read", Path: path, Err: err}, b.unlink(name))
	}
	if err != nil {
		return Content{}, b.fail(&fs.PathError{Op: "write", Path: name, Err: err})
	}
	return c, b.adopt(name, c)
}

// putWhole stores a file that fits into a buffer: its digest is known before the blob is made, which so needs no temporary name.
func (b *Batch) putWhole(src int, st *unix.Stat_t, path string) (Content, error) {
	w := b.newBuffer()
	defer b.buffers.Put(w)
	share := b.sharable(src, st)
	n, err := readAll(src, w[:st.Size])
	if err != nil {
		return Content{}, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	c := Content{Digest: image.Sum(w[:n]), Size: uint64(n)}
	return c, b.putWith(object{blobsDir, c.Digest}, uint64(n), func(fd int) error {
		if share {
			if same, err := b.shareUnchanged(fd, src, st); err != nil || same {
				return err
			}
		}
		b.written(c.Size)
		return writeAll(fd, w[:n], 0)
	})
}

// cloneFrom is the size from which sharing blocks costs less than writing (measured on XFS).
const cloneFrom = 16 << 10

// sharable reports whether what is read from src from now on is the same as what is cloned from it later, provided that its times are then as in st. A page
// that was written through a mapping and is dirty still can be written again without a trace in the times, so none may be dirty.
func (b *Batch) sharable(src int, st *unix.Stat_t) bool {
	const writeAndWait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return st.Size >= cloneFrom && !b.noClone.Load() && b.s.settled(st) && unix.SyncFileRange(src, 0, 0, writeAndWait) == nil
}

// shareUnchanged makes the empty file dst share src's blocks. It reports false, and dst is empty, when that cannot be or src is
// not as in st any more.
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

// unchangedSince reports whether src has the size and the times that it had when it was asked for st.
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

// takeIn makes the temporary file dst a copy of src.
func (b *Batch) takeIn(ctx context.Context, dst, src int) (Content, error) {
	var before unix.Stat_t
	if err := unix.Fstat(src, &before); err != nil {
		return Content{}, &readError{err}
	}
	cloned, err := b.clone(dst, src)
	if err != nil {
		return Content{}, err
	}
	if !cloned {
		c, err := b.intake(ctx, src, dst)
		b.written(c.Size)
		return c, err
	}
	// The clone is what must be hashed. But its pages are not in memory while those of src may be, and the two are equal if src did not
	// change since. Its ctime tells, unless it is so young that a change now could leave it as it is.
	if !b.s.settled(&before) {
		return b.intake(ctx, dst, -1)
	}
	c, err := b.intake(ctx, src, -1)
	if err != nil {
		return c, err
	}
	same, err := unchangedSince(src, &before)
	if err != nil {
		return Content{}, &readError{err}
	}
	if !same || c.Size != uint64(before.Size) {
		return b.intake(ctx, dst, -1)
	}
	return c, nil
}

// clockGrain is more than how far apart two changes must be to have different ctimes.
const clockGrain = 2 * time.Second

func (s *Store) settled(st *unix.Stat_t) bool {
	return time.Unix(st.Ctim.Unix()).Before(s.o.Now().Add(-clockGrain))
}

func (b *Batch) intake(ctx context.Context, src, dst int) (Content, error) {
	w := b.newIntake(ctx, dst)
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	err := w.file(src)
	return w.content(), err
}

// clone makes dst share src's blocks, if it can.
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

// adopt gives the temporary file its name.
func (b *Batch) adopt(name string, c Content) error {
	o := object{blobsDir, c.Digest}
	fresh, err := b.claim(o)
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
	chunk = 256 << 10 // stays in a processor's cache between being read and being hashed
	block = 4096      // the grain of holes
)

// intake is the one door: it hashes what it writes. With dst negative it only hashes.
type intake struct {
	ctx    context.Context
	dst    int
	buf    []byte
	hash   hash.Hash
	off    int64
	sparse bool // holes are looked for, at the grain of block
	holes  bool
	data   []image.Extent
}

func (b *Batch) newIntake(ctx context.Context, dst int) *intake {
	return &intake{ctx: ctx, dst: dst, buf: b.newBuffer()[:], hash: newHash()}
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

// file takes in the regular file src.
func (w *intake) file(src int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return &readError{err}
	}
	// Blocks first: files that were preallocated and files with a few clean pages may report holes that come and go.
	w.sparse = st.Blocks*512 < st.Size
	if !w.sparse {
		return w.span(src, st.Size)
	}
	for w.off < st.Size {
		start, err := unix.Seek(src, w.off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			start, err = st.Size, nil
		}
		if err != nil { // a file system without holes
			return w.span(src, st.Size)
		}
		if err := w.hole(min(start, st.Size)); err != nil || w.off >= st.Size {
			return errors.Join(err, w.end())
		}
		end, err := unix.Seek(src, w.off, unix.SEEK_HOLE)
		if err != nil {
			end = st.Size
		}
		was := w.off
		if err := w.span(src, min(end, st.Size)); err != nil {
			return err
		}
		if w.off == was { // the file became shorter
			break
		}
	}
	return w.end()
}

// end gives a file that ends in a hole its size.
func (w *intake) end() error {
	if w.dst < 0 {
		return nil
	}
	return unix.Ftruncate(w.dst, w.off)
}

// span takes in src from the current position to end, or to the file's end.
func (w *intake) span(src int, end int64) error {
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
	}
	return nil
}

// add takes in p at the current position.
func (w *intake) add(p []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.hash.Write(p)
	if w.sparse {
		return w.addSparse(p)
	}
	if w.dst >= 0 {
		if err := writeAll(w.dst, p, w.off); err != nil {
			return err
		}
	}
	w.off += int64(len(p))
	return nil
}

// addSparse takes in p but for its blocks of zeros, so that where the holes are depends on the content alone and not on
// how a file system has laid it out.
func (w *intake) addSparse(p []byte) error {
	for len(p) > 0 {
		n := min(int64(len(p)), block-w.off%block)
		if isZero(p[:n]) {
			w.holes = true
		} else {
			if w.dst >= 0 {
				if err := writeAll(w.dst, p[:n], w.off); err != nil {
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

func (w *intake) extent(off, n uint64) {
	if last := len(w.data) - 1; last >= 0 && w.data[last].Offset+w.data[last].Length == off {
		w.data[last].Length += n
		return
	}
	w.data = append(w.data, image.Extent{Offset: off, Length: n})
}

// hole takes in zeros up to end.
func (w *intake) hole(end int64) error {
	if end > w.off {
		w.holes = true
	}
	for w.off < end {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n := min(end-w.off, chunk)
		clear(w.buf[:n])
		w.hash.Write(w.buf[:n])
		w.off += n
	}
	return nil
}

// isZero compares p with itself moved by one byte, which is how memcmp finds out fast that all bytes are the same.
func isZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }

func (w *intake) content() Content {
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
