package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// Problem is damage that Check has found.
type Problem struct {
	Path string // in the store
	Err  error  // ErrNotFound, an error of the file system, or damage
	// Object is the object that is damaged or missing; zero: it is none.
	Object image.Digest
}

// String returns the problem in a line.
func (p Problem) String() string { return fmt.Sprintf("%s: %v", p.Path, p.Err) }

// CheckProgress counts what a check has read.
type CheckProgress struct{ Objects, Bytes uint64 }

// CheckObserver receives the results of a check. Its functions are called by one goroutine at a time.
type CheckObserver struct {
	Problem  func(Problem)
	Progress func(CheckProgress) // nil, or called after each object
}

// Check reads every object, all blobs included, and reports every problem: names that are no digests, bytes that do not
// have the digest of their name, versions and trees that name a missing object. The error is that of ctx, or that the
// store cannot be listed. Check may miss objects that are added meanwhile.
func (s *Store) Check(ctx context.Context, o CheckObserver) error {
	c := checker{Store: s, ctx: ctx, observer: o, seen: map[image.Digest]bool{}}
	for _, kind := range []string{blobsDir, treesDir} {
		if err := c.objects(kind); err != nil {
			return err
		}
	}
	return c.versions()
}

type checker struct {
	*Store
	ctx context.Context

	mu       sync.Mutex
	observer CheckObserver
	done     CheckProgress

	seen  map[image.Digest]bool // trees whose references were checked
	blobs *errgroup.Group       // if not nil, the blobs that trees name are read
	begun map[image.Digest]bool // blobs whose reading has begun
}

// CheckVersion is Check of the objects that one version leads to.
func (s *Store) CheckVersion(ctx context.Context, v image.Version, o CheckObserver) error {
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	c := checker{
		Store: s, ctx: all, observer: o, seen: map[image.Digest]bool{}, blobs: g, begun: map[image.Digest]bool{},
	}
	name := v.Ref().String()
	root, err := s.Root(v.Digest)
	if err != nil {
		c.objectProblem(v.Digest, name, err)
	} else {
		c.checked(0)
		g.Go(func() error { return c.tree(name, "", root.Digest) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// CheckPresence is CheckVersion without reading the blobs: it checks that they are there and have their size.
func (s *Store) CheckPresence(ctx context.Context, v image.Version, o CheckObserver) error {
	c := checker{Store: s, ctx: ctx, observer: o, seen: map[image.Digest]bool{}}
	root, err := s.Root(v.Digest)
	if err != nil {
		c.objectProblem(v.Digest, v.Ref().String(), err)
		return nil
	}
	return c.tree(v.Ref().String(), "", root.Digest)
}

func (c *checker) problem(path string, err error) { c.objectProblem(image.Digest{}, path, err) }

// objectProblem reports a problem of an object.
func (c *checker) objectProblem(object image.Digest, path string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observer.Problem(Problem{path, err, object})
}

// checked counts an object that was read.
func (c *checker) checked(bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Objects++
	c.done.Bytes += bytes
	if c.observer.Progress != nil {
		c.observer.Progress(c.done)
	}
}

// objects checks the names and the digests of all blobs or all trees.
func (c *checker) objects(kind string) error {
	fans, err := os.ReadDir(c.path(kind))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, fan := range fans {
		entries, err := os.ReadDir(c.path(kind, fan.Name()))
		if err != nil {
			c.problem(path.Join(kind, fan.Name()), err)
			continue
		}
		for _, e := range entries {
			g.Go(func() error { return c.object(ctx, kind, fan.Name(), e) })
		}
	}
	return g.Wait()
}

func (c *checker) object(ctx context.Context, kind, fan string, e fs.DirEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := path.Join(kind, fan, e.Name())
	d, err := image.ParseDigest(e.Name())
	if err != nil || d.String() != e.Name() || !strings.HasPrefix(e.Name(), fan) || len(fan) != 2 ||
		!e.Type().IsRegular() {
		c.problem(name, fmt.Errorf("%w: it is not an object of the store", errCorrupt))
		return nil
	}
	f, err := os.OpenFile(c.path(name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			c.objectProblem(d, name, err)
		}
		return nil
	}
	defer f.Close()
	got, n, err := c.hash(ctx, f)
	c.checked(n)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		c.objectProblem(d, name, err)
	case got != d:
		c.objectProblem(d, name, fmt.Errorf("%w: its digest is %s", errCorrupt, got))
	}
	return nil
}

// versions checks that all objects that versions lead to are there.
func (c *checker) versions() error {
	images, err := c.Images()
	if err != nil {
		return err
	}
	for _, name := range images {
		numbers, err := c.numbers(name)
		if err != nil {
			c.problem(path.Join(versionsDir, name), err)
			continue
		}
		for _, n := range numbers {
			file := fmt.Sprintf("%s/%s/%d.json", versionsDir, name, n)
			v, err := c.readVersion(name, n)
			if err != nil {
				c.problem(file, err)
				continue
			}
			if err := c.tree(file, "", v.Root.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// tree checks the objects that the tree d leads to. D is the directory dir of a version.
func (c *checker) tree(version, dir string, d image.Digest) error {
	if err := c.ctx.Err(); err != nil || c.seen[d] {
		return err
	}
	c.seen[d] = true
	t, err := c.Tree(d)
	if err != nil {
		c.objectProblem(d, version, fmt.Errorf("/%s: %w", dir, err))
		return nil
	}
	if c.blobs != nil {
		c.checked(0)
	}
	for i := range t {
		e := &t[i]
		at := image.JoinPath(dir, e.Name)
		switch e.Type {
		case image.Directory:
			if err := c.tree(version, at, e.Digest); err != nil {
				return err
			}
		case image.Regular:
			st, err := os.Lstat(c.blobPath(e.Digest))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				c.objectProblem(e.Digest, version, fmt.Errorf("/%s: blob %s: %w", at, e.Digest, ErrNotFound))
			case err != nil:
				c.objectProblem(e.Digest, version, fmt.Errorf("/%s: %w", at, err))
			case uint64(st.Size()) != e.Size:
				err = fmt.Errorf("/%s: %w: blob of %d bytes, not %d", at, errCorrupt, st.Size(), e.Size)
				c.objectProblem(e.Digest, version, err)
			case c.blobs != nil && !c.begun[e.Digest]:
				c.begun[e.Digest] = true
				c.blobs.Go(func() error {
					return c.object(c.ctx, blobsDir, e.Digest.String()[:2], fs.FileInfoToDirEntry(st))
				})
			}
		}
	}
	return nil
}

// hash returns the digest and the length of the content of f.
func (s *Store) hash(ctx context.Context, f *os.File) (d image.Digest, size uint64, err error) {
	w := hashWriter{
		ctx: ctx, dst: -1, buf: make([]byte, 128<<10), hash: newHash(), zeros: &s.zeros, hashed: func(uint64) {},
	}
	err = w.file(int(f.Fd()))
	return w.content().Digest, uint64(w.off), err
}
