package daemon

import (
	"context"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/image"
	"dim/internal/periodic"
	"dim/internal/problems"
)

const (
	// saveInterval is the interval between saves of what nodes do. That a boot begins is saved at once.
	saveInterval = 2 * time.Second
	// expireInterval is the interval between searches for set-aside copies and snapshots that are too old.
	expireInterval = time.Hour
)

// saveState saves what nodes do and what they have mounted, until ctx ends.
func (d *daemon) saveState(ctx context.Context) error {
	defer d.saveMounts()
	defer d.saveReports(fleet.All)
	return periodic.Run(ctx, saveInterval, func(context.Context) {
		d.saveReports(fleet.Due)
		d.saveBoots()
		d.saveMounts()
		d.saveClock()
	})
}

// bootStarted makes durable that a node boots.
func (d *daemon) bootStarted(node cluster.NodeName, event boot.Event) {
	if d.liveness.ReportBoot(node, event) {
		d.saveBoots()
	}
}

// saveBoots saves the journal of boots. A failure is a problem until a save succeeds.
func (d *daemon) saveBoots() {
	err := d.liveness.Save()
	if d.problems.Set(problems.Of(problems.KindJournal), err) && err != nil {
		d.Log.Error("journal of boots cannot be written", "error", err)
	}
}

// saveMounts saves what nodes have mounted, so that a switch right after a restart takes none of it away.
func (d *daemon) saveMounts() {
	err := d.push.Save(layout(d.Data).mounts())
	if d.problems.Set(problems.Of(problems.KindMounts), err) && err != nil {
		d.Log.Error("mounts of nodes cannot be saved", "error", err)
	}
}

// saveReports saves what other servers have reported, on a head.
func (d *daemon) saveReports(which fleet.Extent) {
	if !d.follow.IsHead() {
		return
	}
	if err := d.others.fleet.Save(d.server, which); err != nil {
		d.Log.Warn("last reports of other servers cannot be kept", "error", err)
	}
}

// saveClock keeps the time.
func (d *daemon) saveClock() {
	if err := d.files.clock.Save(); err != nil {
		d.Log.Warn("the time cannot be kept", "error", err)
	}
}

// inUse returns the versions that somebody uses besides nodes of this server, with how.
func (d *daemon) inUse() map[image.Ref]string {
	list := d.api.MountedVersions()
	if v, ok := d.api.Storms.Version(); ok {
		list[v] = "a load test boots it"
	}
	for ref, node := range d.others.fleet.ShownElsewhere(d.server) {
		list[ref] = "node " + string(node) + " shows it"
	}
	return list
}
