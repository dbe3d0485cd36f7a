package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// resumable begins the names of staging directories whose blobs another batch may take over.
const resumable = "resume-"

// BeginResumable starts a batch whose blobs are not lost if the process is killed: Resume stores them.
func (s *Store) BeginResumable() (*Batch, error) { return s.begin(resumable) }

// Resume stores the blobs of resumable batches whose processes have ended before they committed. It reads each blob,
// and takes it only if it has the digest of its name: a process may have been killed in the middle of a file, and a
// power cut may have taken any bytes. It returns how many it stored and their bytes.
func (s *Store) Resume(ctx context.Context) (blobs int, bytes uint64, err error) {
	dirs, err := fs.Glob(os.DirFS(s.path(stagingDir)), resumable+"*")
	if err != nil || len(dirs) == 0 {
		return 0, 0, err
	}
	b, err := s.Begin()
	if err != nil {
		return 0, 0, err
	}
	for _, dir := range dirs {
		if err := b.resume(ctx, s.path(stagingDir, dir)); err != nil {
			return 0, 0, errors.Join(fmt.Errorf("resume batch %s: %w", dir, err), b.Abort())
		}
	}
	blobs, bytes = b.Staged()
	return blobs, bytes, b.Commit(ctx)
}

// resume takes over a staging directory, unless a batch has locked it.
func (b *Batch) resume(ctx context.Context, dir string) error {
	f, err := openUnlocked(dir)
	if f == nil {
		return err
	}
	defer f.Close()
	if err := b.takeOver(ctx, dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// takeOver moves the whole blobs of a staging directory into b.
func (b *Batch) takeOver(ctx context.Context, dir string) error {
	paths, err := fs.Glob(os.DirFS(dir), blobsDir+"/??/*")
	if err != nil {
		return err
	}
	for _, path := range paths {
		path = filepath.Join(dir, path)
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := image.ParseDigest(filepath.Base(path))
		if err != nil {
			continue
		}
		if size, whole := b.isWhole(path, d); whole {
			if err := b.move(ctx, path, object{blobsDir, d}, size); err != nil {
				return err
			}
		}
	}
	return nil
}

// isWhole reads a file and reports whether it has the digest d. What cannot be read has not.
func (b *Batch) isWhole(path string, d image.Digest) (size uint64, whole bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	got, size, err := b.s.hash(context.Background(), f)
	return size, err == nil && got == d
}

// move moves a file into the batch as the object o, unless the store or the batch has that.
func (b *Batch) move(ctx context.Context, path string, o object, size uint64) error {
	fresh, err := b.claim(ctx, o, size)
	if err != nil || !fresh {
		return err
	}
	if err := b.makeFanout(o); err != nil {
		return b.fail(err)
	}
	if err := os.Rename(path, b.stagedPath(o)); err != nil {
		return b.fail(err)
	}
	b.count(size)
	return nil
}

func (b *Batch) stagedPath(o object) string { return b.dir.Name() + "/" + objectPath(o.kind, o.digest) }

// OpenBlob opens a blob for which a Put has returned, while the batch has not ended. Its bytes are verified, but a
// crash may still take them. Errors may be ErrNotFound: the batch does not have the blob, or has put it into the store.
func (b *Batch) OpenBlob(d image.Digest) (*os.File, error) {
	f, err := os.OpenFile(b.stagedPath(object{blobsDir, d}), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", d, ErrNotFound)
	}
	return f, err
}

// isResumable reports whether a staging directory is left to Resume.
func isResumable(name string) bool { return strings.HasPrefix(name, resumable) }
