// Package coord keeps the cluster's declared state: the applied description, the versions and tags of the images, and
// the version that each replica is to show. These are small facts. The content of images is in the store.
//
// # Concepts
//
// The state is in etcd: a member of a cluster of heads in this process (package member), or an existing one with given
// endpoints. The code is the same for both. A State is the whole state at one revision. Snapshot returns it, and
// Watch delivers each new one. A daemon keeps the last State on its own disk (SaveState), so that it can serve
// without etcd.
//
// # Invariants
//
//   - A version number of an image is given once and never again, even if the version is removed.
//   - A change that depends on an earlier read is refused with ErrConflict if the state has changed since.
//   - A put that has returned nil is on disk.
//   - Watch delivers States with increasing revisions, and always the latest one. It may skip States in between: they
//     are not needed, because a State is complete. Revisions start again in a new etcd cluster,
//     which has another State.Store.
//
// # Concurrency
//
// All methods may be called concurrently. Every call is bounded by Options.Timeout. Close does not wait for Watch:
// its context has to end first.
//
// # What it must not know
//
// What a description means, where trees and blobs are, and which server reads the state.
package coord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"dim/internal/coord/member"
)

// Errors to branch on.
var (
	// ErrConflict: the state that the change depends on has changed in the meantime.
	ErrConflict = errors.New("changed by another in the meantime")
	// ErrUnavailable: etcd does not answer or has no quorum. A change that returns it may have been made or not.
	ErrUnavailable = errors.New("cluster state not available")
	// ErrNotFound: there is no such version, tag or rollout.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge: the change is larger than etcd takes at a time. A description takes a third more than its files.
	ErrTooLarge = errors.New("too large")
	// ErrNewerFormat: a newer version of the program wrote the state.
	ErrNewerFormat = errors.New("written by a newer dim")
)

// Options are the options of Open. Exactly one of Dir and Remote must be set.
type Options struct {
	Dir     string        // data directory of an embedded etcd
	Name    string        // of its member; "": "head"
	Peers   *member.Peers // of its member; nil: it is the only one
	Remote  Remote        // an existing etcd
	Prefix  string        // of all keys; "" means "/dim/". Each cluster on an etcd needs its own
	Timeout time.Duration // of each call; 0 means 5 s
	Log     *slog.Logger  // nil: no logs

	quota int64 // of the embedded etcd's database in tests; 0: quota
}

// Coord is an open cluster state.
type Coord struct {
	client  *clientv3.Client
	member  *member.Member // nil: an existing etcd
	where   string         // directory or endpoints, for messages
	prefix  string
	timeout time.Duration
	quota   int64 // of the embedded etcd's database, in bytes
	log     *slog.Logger
	closing func() error // close, called once
	mirror  mirror
}

// Open opens the cluster's state. Close releases it. With Dir, Open starts an embedded etcd and returns when that
// serves. With Remote, Open does not wait for an answer: each later call returns ErrUnavailable if there is none. Only
// with a user it does, for Timeout at most, and returns ErrUnavailable itself.
func Open(ctx context.Context, o Options) (*Coord, error) {
	c := &Coord{prefix: o.Prefix, timeout: o.Timeout, quota: cmp.Or(o.quota, quota), log: o.Log}
	c.closing = sync.OnceValue(c.close)
	if c.prefix == "" {
		c.prefix = "/dim/"
	}
	if c.timeout == 0 {
		c.timeout = 5 * time.Second
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if (o.Dir == "") == (len(o.Remote.Endpoints) == 0) {
		return nil, errors.New("open cluster state: give either a directory or endpoints")
	}
	if o.Dir == "" {
		if err := c.openExternal(o); err != nil {
			return nil, err
		}
		return c, nil
	}
	if err := c.openEmbedded(ctx, o); err != nil {
		return nil, fmt.Errorf("open cluster state %s: %w", o.Dir, err)
	}
	return c, nil
}

const maxOps = 4096 // of a transaction: a state that was lost is declared again in one

// openEmbedded starts the member of this process.
func (c *Coord) openEmbedded(ctx context.Context, o Options) (err error) {
	c.where = o.Dir
	c.member, err = member.Start(ctx, member.Options{
		Dir: o.Dir, Name: cmp.Or(o.Name, "head"), Quota: c.quota, MaxRequest: maxRequest, MaxOps: maxOps,
		Peers: o.Peers, Log: c.log,
	})
	if errors.Is(err, member.ErrNoQuorum) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err != nil {
		return err
	}
	c.client = c.member.Client()
	if o.Peers != nil { // others may have to answer, which may take long
		return nil
	}
	if err := c.upkeep(ctx); err != nil {
		c.log.Warn("etcd's database cannot be made smaller", "error", err)
	}
	if err := c.checkFormat(ctx); err != nil {
		c.Close()
		return err
	}
	return nil
}

// Member returns the member of this process, nil if there is none.
func (c *Coord) Member() *member.Member { return c.member }

func (c *Coord) openExternal(o Options) error {
	c.where = strings.Join(o.Remote.Endpoints, ",")
	config := clientv3.Config{
		Endpoints:            o.Remote.Endpoints,
		Username:             o.Remote.User,
		DialTimeout:          c.timeout,
		Logger:               zap.New(member.LogCore(c.log, zap.WarnLevel)),
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
	}
	var err error
	if config.TLS, err = o.Remote.tls(); err == nil {
		config.Password, err = o.Remote.password()
	}
	if err != nil {
		return fmt.Errorf("open cluster state %s: %w", c.where, err)
	}
	if c.client, err = clientv3.New(config); err != nil {
		return fmt.Errorf("open cluster state %s: %w", c.where, c.explain(context.Background(), err))
	}
	return nil
}

// Close closes the client and stops the embedded etcd. It may be called more than once.
func (c *Coord) Close() error { return c.closing() }

func (c *Coord) close() error {
	if c.member == nil {
		return c.client.Close()
	}
	_, err := guard(context.Background(), c, func(context.Context) (struct{}, error) {
		return struct{}{}, c.member.Close()
	})
	if errors.Is(c.cause(), member.ErrEnded) { // already returned by other calls
		return nil
	}
	return err
}

// Ended returns a channel that is closed when the embedded etcd has stopped by itself, such as because of a full disk.
// Completed puts are safe. All calls return ErrUnavailable from then on, with member.ErrEnded or member.ErrRemoved.
func (c *Coord) Ended() <-chan struct{} {
	if c.member == nil {
		return nil
	}
	return c.member.Ended()
}

// cause returns why the embedded etcd has stopped by itself; nil: it has not.
func (c *Coord) cause() error {
	if c.member == nil {
		return nil
	}
	return c.member.Cause()
}

// Check returns nil if the state can be read and changed.
func (c *Coord) Check(ctx context.Context) error {
	if err := c.checkFormat(ctx); err != nil {
		return fmt.Errorf("check cluster state: %w", err)
	}
	return nil
}

// Answers returns nil if the state can be read, as all members of etcd agree on it. It costs no write.
func (c *Coord) Answers(ctx context.Context) error {
	_, err := c.read(ctx, c.prefix+"format")
	return err
}

// Format is the version of the keys and values in docs/formats/coord.md.
const Format = "1"

// checkFormat refuses a state that a newer program wrote. It writes the format into a new state.
func (c *Coord) checkFormat(ctx context.Context) error {
	key := c.prefix + "format"
	r, err := c.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(key, Format)}, clientv3.OpGet(key))
	if err != nil || r.Succeeded {
		return err
	}
	if got := string(r.Responses[0].GetResponseRange().Kvs[0].Value); got != Format {
		return fmt.Errorf("format %s: %w", got, ErrNewerFormat)
	}
	return nil
}

// txn runs a transaction within the timeout.
func (c *Coord) txn(
	ctx context.Context, when []clientv3.Cmp, then []clientv3.Op, otherwise ...clientv3.Op,
) (*clientv3.TxnResponse, error) {
	size := 0
	for _, op := range then {
		size += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	if size > maxChange {
		return nil, fmt.Errorf("%w: %d bytes, and the shared state takes %d at most", ErrTooLarge, size, maxChange)
	}
	r, err := guard(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		call, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.client.Txn(call).If(when...).Then(then...).Else(otherwise...).Commit()
	})
	if errors.Is(err, rpctypes.ErrRequestTooLarge) {
		err = fmt.Errorf("%w: %d bytes; this etcd takes less at a time: start it with --max-request-bytes %d",
			ErrTooLarge, size, maxRequest)
	}
	return r, err
}

const (
	// maxRequest is the size of the largest request to etcd in bytes. etcd recommends no larger one.
	maxRequest = 10 << 20
	// maxChange is the size of the largest change, without the conditions and headers of the request.
	maxChange = maxRequest - 256<<10
)

// read reads a key, or the keys that opts select, within the timeout. A read that a change of the leader interrupts is
// repeated: the removal of the head that leads is followed by one.
func (c *Coord) read(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return guard(ctx, c, func(ctx context.Context) (*clientv3.GetResponse, error) {
		call, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		for {
			r, err := c.client.Get(call, key, opts...)
			if !errors.Is(err, rpctypes.ErrLeaderChanged) || call.Err() != nil {
				return r, err
			}
		}
	})
}

// guard makes a call of etcd and translates its error. A call of an embedded etcd that has ended may never return,
// because it waits for etcd's locks: guard returns without it.
func guard[T any](ctx context.Context, c *Coord, call func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := call(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, c.explain(ctx, r.err)
	case <-c.Ended():
		var none T
		return none, c.explain(ctx, c.cause())
	}
}

// explain translates an error of etcd. ctx is the caller's: if it has ended, its error is returned as it is.
func (c *Coord) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.cause() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, c.cause())
	case errors.Is(err, rpctypes.ErrNoSpace) && c.member != nil:
		return fmt.Errorf("%w: etcd's database is full; old revisions are being removed from it", ErrUnavailable)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: the database of %s is full: compact and defragment it, then etcdctl alarm disarm",
			ErrUnavailable, c.where)
	case transient(err) && c.quorum() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, c.quorum())
	case errors.Is(err, context.DeadlineExceeded), code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%w: no answer from %s within %v", ErrUnavailable, c.where, c.timeout)
	case transient(err):
		return fmt.Errorf("%w: %s: %v", ErrUnavailable, c.where, err)
	}
	return err
}

// transient reports whether a call that failed with err may succeed later.
func transient(err error) bool {
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// quorum returns member.ErrNoQuorum with the heads that are needed, if this process is one of several members and knows
// no leader now.
func (c *Coord) quorum() error {
	if c.member == nil {
		return nil
	}
	s := c.member.Status()
	var votes []string
	for _, p := range s.Members {
		if !p.Learner {
			votes = append(votes, p.Name)
		}
	}
	if s.Leader != 0 || len(votes) < 2 {
		return nil
	}
	return fmt.Errorf("%w: %d of the heads %s have to be up and reach each other", member.ErrNoQuorum,
		len(votes)/2+1, strings.Join(votes, ", "))
}

// code returns the gRPC code of err. Errors of etcd have it in the method Code.
func code(err error) codes.Code {
	if coded, ok := err.(interface{ Code() codes.Code }); ok {
		return coded.Code()
	}
	return status.Code(err)
}
