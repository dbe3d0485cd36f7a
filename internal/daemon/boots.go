package daemon

import (
	"context"
	"time"

	"dim/internal/periodic"
	"dim/internal/problems"
)

// bootsEvery is how soon what nodes do is on disk. That a boot begins is there at once.
const bootsEvery = 2 * time.Second

// journal keeps what nodes do until ctx ends.
func (d *daemon) journal(ctx context.Context) error {
	defer d.keepMounts()
	return periodic.Run(ctx, bootsEvery, func(context.Context) {
		d.saveBoots()
		d.keepMounts()
	})
}

// saveBoots writes the journal of boots; a failure is a problem of this server that is shown until it is over.
func (d *daemon) saveBoots() {
	err := d.liveness.Save()
	if d.wrong.Set(problems.Of(problems.KindJournal), err) && err != nil {
		d.log.Error("journal of boots cannot be written", "error", err)
	}
}

// keepMounts puts on disk what nodes have mounted, so that a switch right after a restart takes none of it away.
func (d *daemon) keepMounts() {
	err := d.push.Save(d.layout.mounts())
	if d.wrong.Set(problems.Of(problems.KindMounts), err) && err != nil {
		d.log.Error("what nodes have mounted is not kept", "error", err)
	}
}
