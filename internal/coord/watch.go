package coord

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Snapshot returns the present state.
func (c *Coord) Snapshot(ctx context.Context) (State, error) {
	v, err := c.view(ctx)
	if err == nil {
		var s State
		if s, err = v.state(); err == nil {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("read cluster state: %w", err)
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
	v, err := c.view(ctx)
	if err != nil {
		return false, err
	}
	if err := v.deliver(since, each); err != nil {
		return false, err
	}
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := c.client.Watch(watch, c.prefix, clientv3.WithPrefix(), clientv3.WithRev(v.revision+1))
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
		for _, e := range r.Events {
			v.apply(e)
		}
		if err := v.deliver(since, each); err != nil {
			return true, err
		}
	}
}

// view has all keys at one revision.
type view struct {
	prefix   string
	store    string
	revision int64
	keys     map[string]entry
}

// view reads all keys, but not those of the history, which are read when a person asks for them.
func (c *Coord) view(ctx context.Context) (*view, error) {
	history := c.prefix + historyKey
	r, err := c.txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(c.prefix, clientv3.WithRange(history)),
		clientv3.OpGet(clientv3.GetPrefixRangeEnd(history), clientv3.WithRange(clientv3.GetPrefixRangeEnd(c.prefix))),
	})
	if err != nil {
		return nil, err
	}
	v := &view{
		prefix:   c.prefix,
		store:    fmt.Sprintf("%x", r.Header.ClusterId),
		revision: r.Header.Revision,
		keys:     map[string]entry{},
	}
	for _, part := range r.Responses {
		for _, kv := range part.GetResponseRange().Kvs {
			v.keys[strings.TrimPrefix(string(kv.Key), c.prefix)] = entry{kv.Value, kv.ModRevision}
		}
	}
	return v, nil
}

func (v *view) apply(e *clientv3.Event) {
	key := strings.TrimPrefix(string(e.Kv.Key), v.prefix)
	v.revision = e.Kv.ModRevision
	switch {
	case strings.HasPrefix(key, historyKey):
	case e.Type == mvccpb.DELETE:
		delete(v.keys, key)
	default:
		v.keys[key] = entry{e.Kv.Value, e.Kv.ModRevision}
	}
}

func (v *view) state() (State, error) { return decode(v.store, v.revision, v.keys) }

// deliver calls each with v's state unless since is the same.
func (v *view) deliver(since *State, each func(State) error) error {
	if since.Store == v.store && since.Revision == v.revision {
		return nil
	}
	s, err := v.state()
	if err != nil {
		return err
	}
	*since = State{Store: s.Store, Revision: s.Revision}
	if err := each(s); err != nil {
		return &stopError{err}
	}
	return nil
}
