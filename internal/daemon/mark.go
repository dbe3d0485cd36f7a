package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dim/internal/follow"
	"dim/internal/problems"
)

// markInterval is the interval between marks of the disk. What a disk lost since the last mark is not recognized.
const markInterval = time.Hour

var errOldDisk = errors.New("its disk is an old copy, or that of another machine: it lacks what the nodes of this " +
	"server have written since")

// checkDisk finds out whether the disk of this server is an old copy. A head has no other to ask.
func (d *daemon) checkDisk(_ context.Context, now *follow.Declared) {
	if d.follow.IsHead() {
		return
	}
	before := d.files.disk.Old()
	old := d.files.disk.Compare(now.State.Servers[string(d.server)].Mark)
	switch {
	case old && !before:
		d.Log.Error("the nodes of this server are not served", "error", errOldDisk)
	case before && !old:
		d.Log.Warn("the disk of this server is accepted")
	}
}

// markDisk gives the disk another mark.
func (d *daemon) markDisk(context.Context) {
	if d.follow.IsHead() {
		return
	}
	if err := d.files.disk.Renew(); err != nil {
		d.Log.Warn("an old copy of this disk would not be recognized", "error", err)
	}
}

// bootsNone returns why this server boots no nodes now, or nil.
func (d *daemon) bootsNone() error {
	if d.files.disk.Old() {
		return fmt.Errorf("server %s serves no nodes: %w", d.server, errOldDisk)
	}
	return d.others.members.Drained()
}

func (d *daemon) markProblems(context.Context) []problems.Problem {
	if !d.files.disk.Old() {
		return nil
	}
	return []problems.Problem{{
		About: problems.Subject{Kind: problems.KindServer, Name: string(d.server)},
		Text:  "it serves no nodes: " + errOldDisk.Error(),
		Hint: fmt.Sprintf("put the right disk in; or go on with this one, and lose what it lacks: on a head: "+
			"dim server accept-older %s", d.server),
	}}
}
