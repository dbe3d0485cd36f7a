package coord

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"dim/internal/periodic"
	"dim/internal/quantity"
)

const (
	// quota is the size of etcd's database at which it takes no more puts, in bytes.
	quota = 512 << 20
	// upkeepInterval is the interval between checks of the database.
	upkeepInterval = 10 * time.Second
	// settleInterval is the interval between checks whether this member has to announce its addresses, or may vote.
	settleInterval = 500 * time.Millisecond
	// upkeepTimeout bounds one upkeep. It reads and writes the database once.
	upkeepTimeout = 2 * time.Minute
)

// Maintain keeps the database of an embedded etcd small until ctx ends, and makes its member a voting one as soon as it
// has caught up. etcd itself removes old revisions by their number, and each one of a large description has megabytes.
// A database that is full takes no more puts; Maintain makes room, and ends etcd's alarm. What becomes of an existing
// etcd is its administrators' business.
func (c *Coord) Maintain(ctx context.Context) error {
	if c.member == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return periodic.Run(ctx, upkeepInterval, func(ctx context.Context) {
			if err := c.upkeep(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("etcd's database cannot be made smaller", "error", err)
			}
		})
	})
	g.Go(func() error { return periodic.Run(ctx, settleInterval, c.settle) })
	return g.Wait()
}

// settle lets this member take its place among the others. What fails is tried again.
func (c *Coord) settle(ctx context.Context) {
	_, err := guard(ctx, c, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return struct{}{}, c.member.Settle(ctx)
	})
	if err != nil && ctx.Err() == nil {
		c.log.Debug("this head does not take part in the shared state yet", "error", err)
	}
}

// upkeep removes old revisions and unused space from the database when it is a quarter full, and then ends the alarm
// that etcd raises when it is full.
func (c *Coord) upkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	_, err := guard(ctx, c, func(ctx context.Context) (struct{}, error) {
		alarms := c.member.Alarms()
		before, _ := c.member.Size()
		if len(alarms) == 0 && before < c.quota/4 {
			return struct{}{}, nil
		}
		err := c.makeRoom(ctx, alarms)
		if after, _ := c.member.Size(); after < before {
			c.log.Info("etcd's database made smaller", "from", before, "to", after)
		}
		return struct{}{}, err
	})
	return err
}

func (c *Coord) makeRoom(ctx context.Context, alarms []*etcdserverpb.AlarmMember) error {
	r, err := c.client.Get(ctx, c.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	// Whoever watches from an older revision reads the state again. If this revision is compacted already, only its
	// space is left to be freed.
	_, _ = c.client.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	if size, used := c.member.Size(); used < size/2 {
		if err := c.member.Defragment(); err != nil {
			return fmt.Errorf("defragment: %w", err)
		}
	}
	if size, used := c.member.Size(); size >= c.quota {
		return fmt.Errorf("%s of %s are in use", quantity.Size(uint64(used)), quantity.Size(uint64(c.quota)))
	}
	for _, a := range alarms {
		if a.Alarm == etcdserverpb.AlarmType_NOSPACE {
			if _, err := c.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
				return err
			}
			c.log.Warn("etcd's database was full, and has room again")
		}
	}
	return nil
}
