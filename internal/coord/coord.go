// Package coord keeps the cluster's declared state: the applied description, the versions and tags of the images, and
// which version each replica should follow. Small facts only; the content of images is in the store.
//
// # Concepts
//
// The state lives in etcd: one that runs inside this process with a single member, or an existing one that is named by
// its endpoints. The code is the same for both. All of it together is a State, which Snapshot returns and Watch
// follows. A daemon keeps the last State that it saw on its own disk (SaveState), so that it can serve without etcd.
//
// # Invariants
//
// A number of an image's version is given once and never again, also after the version was removed. A change that rests on something
// read before names its revision, and is refused with ErrConflict when somebody was faster. A put that returned nil is on disk.
//
// Watch never goes back: the revisions of the States it delivers only grow (unless all was lost and made anew, which shows in State.Store), and
// the last State there is is always delivered. States in between may be left out: a State says everything, so who follows needs no other.
//
// # Concurrency
//
// All methods may be called concurrently. Every call is bounded by Options.Timeout. Close waits for nothing but etcd itself: end Watch
// first by its context.
//
// # What it must not know
//
// What a description means, where trees and blobs are, who follows it.
package coord

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The errors to branch on.
var (
	// ErrConflict: what the change rests on was changed by another in the meantime.
	ErrConflict = errors.New("changed by another in the meantime")
	// ErrUnavailable: etcd does not answer or has no quorum. Nobody knows whether a change that met it was made.
	ErrUnavailable = errors.New("cluster state not available")
	// ErrNotFound: the version that is to be tagged does not exist.
	ErrNotFound = errors.New("no such version")
	// ErrEnded: the embedded etcd met an error that it cannot live with, such as a full disk or damaged files. It cannot be
	// started again in this process, unless its directory was replaced by another.
	ErrEnded = errors.New("etcd ended")
	// ErrNewerFormat: the state was written by a newer dim.
	ErrNewerFormat = errors.New("written by a newer dim")
)

// Options tell Open how. Exactly one of Dir and Endpoints must be set.
type Options struct {
	Dir       string        // where the embedded etcd keeps its data
	Endpoints []string      // of an existing etcd: "https://etcd1:2379"
	TLS       *tls.Config   // for Endpoints; nil: plain
	Prefix    string        // of all keys; "" is "/dim/". Two clusters on one etcd need two
	Timeout   time.Duration // of each call; 0 is 5 s
	Log       *slog.Logger  // nil: no logs
}

// Coord is an open cluster state.
type Coord struct {
	client  *clientv3.Client
	member  *embed.Etcd // nil: an existing etcd
	lock    *os.File    // held as long as member lives
	where   string      // for messages
	prefix  string
	timeout time.Duration
	log     *slog.Logger
	level   zap.AtomicLevel // of what etcd says
	end     *end
	closing func() error
}

// Open opens the cluster's state; Close releases it. With Dir it starts a member and returns when that serves, or
// says what is wrong with its data. With Endpoints it does not wait for an answer: every call tells by itself when there is none.
func Open(ctx context.Context, o Options) (*Coord, error) {
	c := &Coord{prefix: o.Prefix, timeout: o.Timeout, log: o.Log, level: zap.NewAtomicLevelAt(zap.WarnLevel)}
	c.end = &end{met: make(chan struct{})}
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
	if (o.Dir == "") == (len(o.Endpoints) == 0) {
		return nil, errors.New("open cluster state: name a directory or endpoints, one of them")
	}
	if o.Dir == "" {
		return c, c.openExternal(o)
	}
	if err := c.openEmbedded(ctx, o.Dir); err != nil {
		return nil, fmt.Errorf("open cluster state %s: %w", o.Dir, err)
	}
	if err := c.checkFormat(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("open cluster state %s: %w", o.Dir, err)
	}
	return c, nil
}

func (c *Coord) openExternal(o Options) error {
	c.where = strings.Join(o.Endpoints, ",")
	var err error
	c.client, err = clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  o.TLS,
		Logger:               zap.New(c.zapCore()),
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("open cluster state %s: %w", c.where, err)
	}
	return nil
}

// Close ends the client and the embedded member. It may be called twice.
func (c *Coord) Close() error { return c.closing() }

func (c *Coord) close() error {
	if c.member == nil {
		return c.client.Close()
	}
	defer c.lock.Close()
	_, err := guard(context.Background(), c, func(context.Context) (struct{}, error) {
		err := c.client.Close()
		c.member.Close()
		if errors.Is(err, context.Canceled) { // the in-process client always says so
			err = nil
		}
		return struct{}{}, err
	})
	if c.end.cause() != nil { // that was said before
		return nil
	}
	return err
}

// Embedded reports whether the state lives in this process.
func (c *Coord) Embedded() bool { return c.member != nil }

// Ended is closed when the embedded etcd met an error that it cannot live with, such as a full disk. What was put is safe, and every call
// says ErrUnavailable from then on; a new process may find it well again.
func (c *Coord) Ended() <-chan struct{} { return c.end.met }

// Check tells whether the state can be read and changed now.
func (c *Coord) Check(ctx context.Context) error {
	if err := c.checkFormat(ctx); err != nil {
		return fmt.Errorf("check cluster state: %w", err)
	}
	return nil
}

// format is the version of the keys and values, see docs/formats/coord.md.
const format = "1"

// checkFormat refuses a state that a newer program wrote, and marks a new one.
func (c *Coord) checkFormat(ctx context.Context) error {
	key := c.prefix + "format"
	r, err := c.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(key, format)}, clientv3.OpGet(key))
	if err != nil || r.Succeeded {
		return err
	}
	if got := string(r.Responses[0].GetResponseRange().Kvs[0].Value); got != format {
		return fmt.Errorf("format %s: %w", got, ErrNewerFormat)
	}
	return nil
}

// txn runs one transaction within the timeout.
func (c *Coord) txn(ctx context.Context, when []clientv3.Cmp, then []clientv3.Op, otherwise ...clientv3.Op) (*clientv3.TxnResponse, error) {
	return guard(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		call, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.client.Txn(call).If(when...).Then(then...).Else(otherwise...).Commit()
	})
}

// read reads one key, or all that begin with it, within the timeout.
func (c *Coord) read(ctx context.Context, key string, how ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return guard(ctx, c, func(ctx context.Context) (*clientv3.GetResponse, error) {
		call, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.client.Get(call, key, how...)
	})
}

// guard makes a call of etcd and explains its error. When the embedded etcd has ended, the call may wait for its locks for ever:
// then it is left to itself.
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
	case <-c.end.met:
		var none T
		return none, c.explain(ctx, c.end.cause())
	}
}

// explain turns etcd's errors into ours. ctx is the caller's own: its end is his affair.
func (c *Coord) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.end.cause() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, c.end.cause())
	case errors.Is(err, context.DeadlineExceeded), code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%w: no answer from %s within %v", ErrUnavailable, c.where, c.timeout)
	case code(err) == codes.Unavailable, errors.Is(err, context.Canceled), code(err) == codes.Canceled:
		return fmt.Errorf("%w: %s: %v", ErrUnavailable, c.where, err)
	}
	return err
}

// code finds the gRPC code in err; etcd's own errors carry one under the Code method.
func code(err error) codes.Code {
	if coded, ok := err.(interface{ Code() codes.Code }); ok {
		return coded.Code()
	}
	return status.Code(err)
}
