package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dim/internal/cluster"
	"dim/internal/diskmark"
	"dim/internal/follow"
	"dim/internal/periodic"
	"dim/internal/problems"
)

// DiskGuard finds out whether the disk of this server is an old copy. A head has no other to ask.
type DiskGuard struct {
	Server cluster.ServerName // this server
	Disk   *diskmark.Disk
	Follow *follow.Follower
	Log    *slog.Logger
}

// markInterval is the interval between marks of the disk. What a disk lost since the last mark is not recognized.
const markInterval = time.Hour

var errOldDisk = errors.New("its disk is an old copy, or that of another machine: it lacks what the nodes of this " +
	"server have written since")

// Begin checks the disk by the state that was kept, and marks it. It is called before nodes are served.
func (g *DiskGuard) Begin(ctx context.Context) {
	g.Adopted(ctx, g.Follow.Now())
	g.mark(ctx)
}

// Run marks the disk at intervals, until ctx ends.
func (g *DiskGuard) Run(ctx context.Context) error { return periodic.Run(ctx, markInterval, g.mark) }

// Adopted is a subscriber of follow.Follower. It is called before the replicas follow the state.
func (g *DiskGuard) Adopted(_ context.Context, now *follow.Declared) {
	if g.Follow.IsHead() {
		return
	}
	before := g.Disk.Old()
	old := g.Disk.Compare(now.State.Servers[string(g.Server)].Mark)
	switch {
	case old && !before:
		g.Log.Error("the nodes of this server are not served", "error", errOldDisk)
	case before && !old:
		g.Log.Warn("the disk of this server is accepted")
	}
}

func (g *DiskGuard) mark(context.Context) {
	if g.Follow.IsHead() {
		return
	}
	if err := g.Disk.Renew(); err != nil {
		g.Log.Warn("an old copy of this disk would not be recognized", "error", err)
	}
}

// Problems is a problems.Source: the disk is an old copy.
func (g *DiskGuard) Problems(context.Context) []problems.Problem {
	if !g.Disk.Old() {
		return nil
	}
	return []problems.Problem{{
		About: problems.Subject{Kind: problems.KindServer, Name: string(g.Server)},
		Text:  "it serves no nodes: " + errOldDisk.Error(),
		Hint: fmt.Sprintf("put the right disk in; or go on with this one, and lose what it lacks: on a head: "+
			"dim server accept-older %s", g.Server),
	}}
}

// Closed returns why this server boots no nodes now, or nil.
func (g *DiskGuard) Closed() error {
	if g.Disk.Old() {
		return fmt.Errorf("server %s serves no nodes: %w", g.Server, errOldDisk)
	}
	return nil
}
