package store

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// room returns an error if the disk has so little space left that a batch may not take more.
func (b *Batch) room() error {
	percent := b.s.o.Reserve
	if percent == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(b.dir.Fd()), &fs); err != nil {
		return err
	}
	switch {
	case fs.Bavail < fs.Blocks/100*percent:
		return fmt.Errorf("%w: %d MB are free on the disk of %s, less than the reserve of %d %%",
			unix.ENOSPC, fs.Bavail*uint64(fs.Bsize)>>20, b.s.dir, percent)
	case fs.Files > 0 && fs.Ffree < fs.Files/100*percent:
		return fmt.Errorf("%w: %d inodes are free on the disk of %s, less than the reserve of %d %%",
			unix.ENOSPC, fs.Ffree, b.s.dir, percent)
	}
	return nil
}
