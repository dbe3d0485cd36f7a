package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture/unpack"
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
		source:   unpack.Source{File: f},
		after: func() error {
			after, err := statFile(f)
			if err == nil && after != before {
				err = errors.New("it changed while it was read")
			}
			return err
		},
	})
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
