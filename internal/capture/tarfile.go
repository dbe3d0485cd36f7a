package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture/archive"
	"dim/internal/capture/draft"
	"dim/internal/store"
)

// captureTar captures a tar file.
func (o *Options) captureTar(ctx context.Context, s *store.Store, path string) (Result, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // not to wait if it is a FIFO
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	before, err := statFile(f)
	if err != nil {
		return Result{}, err
	}
	return o.captureBundle(ctx, s, bundle{
		identity: before.identity(o.Now()),
		check:    checkRoot,
		unpack: func(ctx context.Context, u *archive.Unpacker) error {
			if _, err := f.Seek(0, 0); err != nil {
				return err
			}
			r, err := archive.Open(f)
			if err != nil {
				return err
			}
			defer r.Close()
			if err := u.Unpack(ctx, r); err != nil {
				return err
			}
			after, err := statFile(f)
			if err == nil && after != before {
				err = errors.New("it changed while it was read")
			}
			return err
		},
	})
}

// checkRoot returns an error if a tree is no root but what people have handed over instead.
func checkRoot(tree *draft.Tree) error {
	top := tree.Top()
	has := func(name string) bool { return slices.Contains(top, name) }
	switch {
	case has("oci-layout") && has("index.json"):
		return errors.New("it is an archive of an OCI layout, not of a root: unpack it into a directory " +
			"(tar -C DIR -xf FILE), and let the master be oci:DIR")
	case has("manifest.json") && !has("usr") && !has("etc"):
		return errors.New("it is an archive of a container image as docker save makes it, not of a root: " +
			"skopeo copy docker-archive:FILE oci:DIR, and let the master be oci:DIR")
	case len(top) == 1 && tree.Has(top[0]+"/usr") && tree.Has(top[0]+"/etc"):
		return fmt.Errorf("the root is in the directory %s of the archive: make it with \"tar -C %[1]s .\"", top[0])
	}
	return nil
}

func statFile(f *os.File) (stamp, error) {
	var x unix.Statx_t
	if err := statxFD(int(f.Fd()), &x); err != nil {
		return stamp{}, err
	}
	d := device{}
	s := d.stamp(&x)
	if s.kind() != unix.S_IFREG {
		return s, errors.New("it is not a regular file")
	}
	return s, nil
}

// identity returns a text that changes whenever the file changes, or "" if the file has changed so recently that a
// further change might not show.
func (s *stamp) identity(now time.Time) string {
	if !s.before(now.Add(-clockGrain)) {
		return ""
	}
	return fmt.Sprintf("file %d:%d %d %d %d.%09d %d.%09d", s.devMajor, s.devMinor, s.ino, s.size,
		s.mtimeSec, s.mtimeNsec, s.ctimeSec, s.ctimeNsec)
}
