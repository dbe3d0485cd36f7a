package coord

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// lockTime is how long a lock outlives a process that etcd no longer hears of, in seconds.
const lockTime = 10

// Lock waits until this process has the lock of a name, which one process has at a time. The returned context ends with
// ctx, or when the lock is lost because etcd has not heard of this process for some seconds. The caller calls release.
func (c *Coord) Lock(ctx context.Context, name string) (held context.Context, release func(), err error) {
	type lock = *concurrency.Session
	session, err := guard(ctx, c, func(ctx context.Context) (lock, error) {
		call, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		lease, err := c.client.Grant(call, lockTime)
		if err != nil {
			return nil, err
		}
		return concurrency.NewSession(c.client, concurrency.WithLease(lease.ID), concurrency.WithTTL(lockTime))
	})
	if err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// It gives up the lease, which has the lock.
	end := func() {
		_, _ = guard(context.Background(), c, func(context.Context) (struct{}, error) {
			return struct{}{}, session.Close()
		})
	}
	_, err = guard(ctx, c, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, concurrency.NewMutex(session, c.prefix+"locks/"+name).Lock(ctx)
	})
	if err != nil {
		end()
		return nil, nil, fmt.Errorf("lock %s: %w", name, err)
	}
	held, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-session.Done():
		case <-c.Ended():
		case <-held.Done():
		}
	}()
	return held, func() { cancel(); end() }, nil
}
