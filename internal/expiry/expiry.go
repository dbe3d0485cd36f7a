// Package expiry removes set-aside copies and snapshots of nodes after their time, and tells before what it removes.
//
// It must not know by which clock the time has passed: the replica.Set says that.
package expiry

import (
	"context"
	"log/slog"
	"time"

	"dim/internal/layer"
	"dim/internal/layers"
	"dim/internal/periodic"
	"dim/internal/replica"
)

// Run removes what the rules of the replicas no longer keep, at intervals until ctx ends. What it will remove is logged
// one interval before, so nothing is removed at the start but what a crash has left half removed.
func Run(ctx context.Context, set *replica.Set, interval time.Duration, log *slog.Logger) error {
	for _, r := range set.Replicas() {
		if err := r.Sweep(); err != nil {
			log.Warn("what was to be removed is still there", "replica", home(r), "error", err)
		}
	}
	if err := set.SweepRemoved(); err != nil {
		log.Warn("what was to be removed is still there", "error", err)
	}
	announce(set, interval, log)
	return periodic.Run(ctx, interval, func(context.Context) {
		if _, err := layers.Expire(set, log); err != nil {
			log.Error("old set-aside copies cannot be removed", "error", err)
		}
		announce(set, interval, log)
	})
}

func home(r *replica.Replica) layer.Home {
	node, image := r.Name()
	return layer.Home(node + "/" + image)
}

// announce logs what layers.Expire will remove after an interval.
func announce(set *replica.Set, interval time.Duration, log *slog.Logger) {
	at := set.Expiry().Add(interval)
	for _, r := range set.Replicas() {
		list, err := removals(set, r)
		if err != nil {
			log.Warn("set-aside copies cannot be listed", "replica", home(r), "error", err)
		}
		saved, snapshots := 0, 0
		for _, x := range list {
			switch {
			case !x.Expires.Before(at):
			case x.Snapshot:
				snapshots++
			default:
				saved++
			}
		}
		if saved+snapshots > 0 {
			log.Info("set-aside copies and snapshots will be removed after their time", "replica", home(r),
				"aside", saved, "snapshots", snapshots, "stamp", at.UTC().Format(time.RFC3339))
		}
	}
}
