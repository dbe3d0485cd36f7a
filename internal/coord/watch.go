package coord

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Snapshot returns the present state.
func (c *Coord) Snapshot(ctx context.Context) (State, error) {
	s, _, err := c.present(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read cluster state: %w", err)
	}
	return s, nil
}

// Watch calls each with the present State, unless that is since, and then with each new State, in order. Failures of
// etcd are retried. Watch returns only when ctx ends or when each returns an error.
func (c *Coord) Watch(ctx context.Context, since State, each func(State) error) error {
	pause := time.Duration(0)
	quiet := false
	for {
		progress, err := c.watchOnce(ctx, &since, each)
		if stop, ok := errors.AsType[*stopError](err); ok {
			return stop.err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if progress {
			pause, quiet = 0, false
		}
		if err != nil && !quiet {
			c.log.Warn("cannot follow the cluster state", "error", err)
			quiet = true
		}
		pause = min(pause*2+100*time.Millisecond, 5*time.Second)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stopError is an error of Watch's callback.
type stopError struct{ err error }

// Error implements error.
func (e *stopError) Error() string { return e.err.Error() }

// watchOnce delivers states until etcd fails. progress is false if it failed before the first one.
func (c *Coord) watchOnce(ctx context.Context, since *State, each func(State) error) (progress bool, err error) {
	c.mirror.reset() // the connection may have ended because another etcd is there
	s, generation, err := c.present(ctx)
	if err != nil {
		return false, err
	}
	if err := deliver(s, since, each); err != nil {
		return false, err
	}
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := c.client.Watch(watch, c.prefix, clientv3.WithPrefix(), clientv3.WithRev(s.Revision+1))
	for {
		var r clientv3.WatchResponse
		var more bool
		select {
		case r, more = <-changes:
		case <-c.Ended():
			return true, c.explain(ctx, c.cause())
		}
		if !more {
			return true, fmt.Errorf("%w: the watch ended", ErrUnavailable)
		}
		if err := r.Err(); err != nil {
			return true, c.explain(ctx, err)
		}
		if s, err = c.mirror.apply(generation, c.prefix, r.Events); err != nil {
			return true, err
		}
		if err := deliver(s, since, each); err != nil {
			return true, err
		}
	}
}

// deliver calls each with a state unless since is the same.
func deliver(s State, since *State, each func(State) error) error {
	if since.Store == s.Store && since.Revision == s.Revision {
		return nil
	}
	*since = State{Store: s.Store, Revision: s.Revision}
	if err := each(s); err != nil {
		return &stopError{err}
	}
	return nil
}
