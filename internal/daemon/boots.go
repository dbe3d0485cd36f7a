package daemon

import (
	"context"
	"log/slog"
	"os"
	"time"

	"dim/internal/boot"
	"dim/internal/problems"
)

// bootsEvery is how soon what nodes do is on disk. That a boot begins is there at once.
const bootsEvery = 2 * time.Second

// openBoots opens the journal of boots. One that cannot be read is put away for a new one: what it knew is seen again by and by.
func openBoots(path string, t *boot.Tracker, log *slog.Logger) (*boot.Journal, error) {
	j, err := boot.OpenJournal(path, t)
	if err == nil {
		return j, nil
	}
	log.Warn("what nodes did before is not known", "error", err, "kept", path+".bad")
	if err := os.Rename(path, path+".bad"); err != nil {
		return nil, err
	}
	return boot.OpenJournal(path, t)
}

// keepBoots puts on disk what nodes have done; a failure is a problem of this server that is shown until it is over.
func (d *daemon) keepBoots() {
	err := d.boots.Save()
	if d.wrong.Set(problems.Of(problems.KindJournal), err) && err != nil {
		d.log.Error("what nodes do is not kept", "error", err)
	}
}

// journal keeps what nodes do until ctx ends.
func (d *daemon) journal(ctx context.Context) error {
	tick := time.NewTicker(bootsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			d.keepMounts()
			return nil
		case <-tick.C:
			d.keepBoots()
			d.keepMounts()
		}
	}
}

// keepMounts puts on disk what nodes have mounted, so that a switch right after a restart takes none of it away.
func (d *daemon) keepMounts() {
	err := d.push.Save(d.layout.mounts())
	if d.wrong.Set(problems.Of(problems.KindMounts), err) && err != nil {
		d.log.Error("what nodes have mounted is not kept", "error", err)
	}
}
