package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
)

const (
	// partsDir has the parts: the beginnings of large blobs that have not all arrived, in files DIGEST.BYTES. The first
	// BYTES bytes of a file are on the disk; what follows them may be anything after a crash.
	partsDir = stagingDir + "/parts"
	// partFrom is the size, in bytes, of the smallest blob of which a part is kept.
	partFrom = 16 << 20
	// partSync is after how many bytes a part is synced.
	partSync = 32 << 20
)

// PutPart is PutExpected for content that may end early. Of a large blob it keeps what has arrived, also if the process
// is killed, and the next PutPart of the same blob goes on there: content is called with the number of bytes that are
// here, and returns the rest. If all together is not the blob, the error is ErrMismatch, and the part is dropped. Sweep
// drops parts that nobody went on with.
func (b *Batch) PutPart(ctx context.Context, want Content, content func(from uint64) io.Reader) error {
	p, err := b.s.openPart(want)
	if err != nil {
		return b.fail(err)
	}
	if p == nil {
		return b.PutExpected(ctx, want, content(0))
	}
	defer p.file.Close()
	w := b.newHashWriter(ctx, int(p.file.Fd()))
	w.sparse = want.Data != nil
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	if err := p.resume(w); err != nil {
		if ctx.Err() != nil {
			return err // nothing is wrong with the part
		}
		return errors.Join(err, p.remove())
	}
	if err := p.fill(w, content(uint64(w.off))); err != nil {
		return err
	}
	if c := w.content(); c.Digest != want.Digest || c.Size != want.Size {
		err := fmt.Errorf("put blob %s: %w: its digest is %s", want.Digest, ErrMismatch, c.Digest)
		return errors.Join(err, p.remove())
	}
	b.written(want.Size)
	if err := p.file.Chmod(0o400); err != nil {
		return b.fail(err)
	}
	return b.adopt(ctx, p.path, Content{Digest: want.Digest, Size: want.Size})
}

// part is a part that this process has locked.
type part struct {
	path   string
	digest image.Digest
	file   *os.File
	synced int64 // its bytes that are on the disk
}

// openPart opens and locks the part of a blob, a new one if there is none. It returns nil if the blob is small, or if
// somebody else goes on with the part.
func (s *Store) openPart(want Content) (*part, error) {
	if want.Size < partFrom {
		return nil, nil
	}
	if err := os.Mkdir(s.path(partsDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	p := &part{digest: want.Digest, path: s.path(partsDir, want.Digest.String()+".0")}
	found, err := filepath.Glob(s.path(partsDir, want.Digest.String()+".*"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		n, err := strconv.ParseInt(path[strings.LastIndexByte(path, '.')+1:], 10, 64)
		if err == nil && n >= p.synced && uint64(n) <= want.Size {
			p.path, p.synced = path, n
		}
	}
	flags := os.O_RDWR | unix.O_NOFOLLOW
	if p.synced == 0 {
		flags |= os.O_CREATE
	}
	if p.file, err = os.OpenFile(p.path, flags, 0o600); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // somebody else has renamed it just now
	} else if err != nil {
		return nil, err
	}
	if err := flock(p.file, unix.LOCK_EX|unix.LOCK_NB); err != nil || !p.isThere() {
		return nil, p.file.Close() // somebody else has it, or has finished it just now
	}
	return p, nil
}

// isThere reports whether the path of p still names its file.
func (p *part) isThere() bool {
	named, err := os.Lstat(p.path)
	if err != nil {
		return false
	}
	open, err := p.file.Stat()
	return err == nil && os.SameFile(named, open)
}

// resume lets w go on behind what is on the disk.
func (p *part) resume(w *hashWriter) error {
	if err := p.file.Truncate(p.synced); err != nil {
		return err
	}
	for w.off < p.synced {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n, err := p.file.ReadAt(w.buf[:min(int64(len(w.buf)), p.synced-w.off)], w.off)
		if n == 0 {
			return fmt.Errorf("read %s: %w", p.path, err)
		}
		if w.sparse && n == chunk && isZero(w.buf) {
			w.hole(w.off + chunk)
			continue
		}
		if err := w.hashZeros(); err != nil {
			return err
		}
		w.hash.Write(w.buf[:n])
		w.off += int64(n)
	}
	return nil
}

// fill writes what r returns. If r fails, what it has returned before stays in the part.
func (p *part) fill(w *hashWriter, r io.Reader) error {
	for {
		n, rerr := io.ReadFull(r, w.buf)
		if err := w.add(w.buf[:n]); err != nil {
			return errors.Join(err, p.keep(w.off))
		}
		switch {
		case errors.Is(rerr, io.EOF), errors.Is(rerr, io.ErrUnexpectedEOF):
			return w.end()
		case rerr != nil:
			return errors.Join(rerr, p.keep(w.off))
		case w.off-p.synced >= partSync:
			if err := p.keep(w.off); err != nil {
				return err
			}
		}
	}
}

// keep syncs the first size bytes, and then gives the file a name that says so.
func (p *part) keep(size int64) error {
	if size <= p.synced {
		return nil
	}
	if err := p.file.Truncate(size); err != nil { // a hole at the end has not made it longer
		return err
	}
	if err := sysfile.Retry(func() error { return unix.Fdatasync(int(p.file.Fd())) }); err != nil {
		return &fs.PathError{Op: "sync", Path: p.path, Err: err}
	}
	path := filepath.Join(filepath.Dir(p.path), fmt.Sprintf("%s.%d", p.digest, size))
	if err := os.Rename(p.path, path); err != nil {
		return err
	}
	p.path, p.synced = path, size
	return nil
}

func (p *part) remove() error { return os.Remove(p.path) }
