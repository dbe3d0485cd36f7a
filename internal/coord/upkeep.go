package coord

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/periodic"
)

const (
	// quota is the size of etcd's database at which it takes no more puts, in bytes.
	quota = 512 << 20
	// upkeepInterval is the interval between checks of the database.
	upkeepInterval = 10 * time.Second
	// upkeepTimeout bounds one upkeep. It reads and writes the database once.
	upkeepTimeout = 2 * time.Minute
)

// Maintain keeps the database of an embedded etcd small until ctx ends. etcd itself removes old revisions by their
// number, and each one of a large description has megabytes. A database that is full takes no more puts; Maintain makes
// room, and ends etcd's alarm. What becomes of an existing etcd is its administrators' business.
func (c *Coord) Maintain(ctx context.Context) error {
	if c.member == nil {
		return nil
	}
	return periodic.Run(ctx, upkeepInterval, func(ctx context.Context) {
		if err := c.upkeep(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("etcd's database cannot be made smaller", "error", err)
		}
	})
}

// upkeep removes old revisions and unused space from the database when it is a quarter full, and then ends the alarm
// that etcd raises when it is full.
func (c *Coord) upkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	_, err := guard(ctx, c, func(ctx context.Context) (struct{}, error) {
		alarms, before := c.member.Server.Alarms(), c.databaseSize()
		if len(alarms) == 0 && before < c.quota/4 {
			return struct{}{}, nil
		}
		err := c.makeRoom(ctx, alarms)
		if after := c.databaseSize(); after < before {
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
	database := c.member.Server.Backend()
	if database.SizeInUse() < database.Size()/2 {
		if err := database.Defrag(); err != nil {
			return fmt.Errorf("defragment: %w", err)
		}
		pageOut()
	}
	if database.Size() >= c.quota {
		return fmt.Errorf("%d of %d bytes are in use", database.SizeInUse(), c.quota)
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

func (c *Coord) databaseSize() int64 { return c.member.Server.Backend().Size() }
