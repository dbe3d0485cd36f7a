package store

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dim/internal/diskroom"
)

// room returns an error if the disk has so little space left that a batch may not take more.
func (b *Batch) room() error {
	if b.s.o.Reserve == 0 {
		return nil
	}
	room, err := diskroom.Look(int(b.dir.Fd()), b.s.o.Reserve)
	if err != nil {
		return err
	}
	if why := room.Lacks(0); why != "" {
		return fmt.Errorf("%w: disk of %s: %s", unix.ENOSPC, b.s.dir, why)
	}
	return nil
}
