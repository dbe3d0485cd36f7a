// Package holdings decides which versions this server's store has: those that its nodes need, brought from other
// servers, and no more.
//
// # Concepts
//
// A version is wanted if nodes of this server are to show it, now or from their next boot on, if a rollout of their
// image leads to it, or if it is the newest of their image: that is brought before anybody needs it. What is most
// urgent comes first, and interrupts what is less urgent. Nodes show a version when the store has all of it. Those that
// boot with it, and those that have no other one to show, show it while it arrives. A head wants all versions of every
// image, so that none is lost with another head.
//
// A server that is no head removes what it does not need: versions that are not wanted, not among the last of an image,
// not shown by a replica, not mounted, and not asked for by other servers. Objects of a version that is arriving stay.
// Heads remove nothing by themselves: package versions does, when a person asks for it.
//
// # Concurrency
//
// All methods may be called from any number of goroutines.
//
// # What it must not know
//
// How content travels, and what nodes do with it.
package holdings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/quantity"
	"dim/internal/replicate"
	"dim/internal/store"
)

// Options of a Keeper. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Declared Declared
	Store    *store.Store
	Puller   *replicate.Puller
	Sources  func() []replicate.Source // that may have any version
	Asked    func() []image.Digest     // versions that other servers are fetching from here
	Replicas Replicas
	Used     func() map[image.Ref]string // versions that somebody uses besides nodes: "it is mounted at /mnt"
	Arrived  func(context.Context)       // called when the store has one more version
	Removed  func(image.Ref)             // called inside Declared.Stable for each version that was removed
	Log      *slog.Logger
}

// Declared is the declared state. follow.Follower implements it.
type Declared interface {
	// Now returns what is declared now.
	Now() *follow.Declared
	// Stable calls fn with what is declared now; no other state is adopted before fn returns.
	Stable(fn func(now *follow.Declared))
}

// Replicas knows which versions replicas need. replica.Set implements it.
type Replicas interface {
	Pinned(declared func(node string) bool) ([]image.Version, map[image.Digest]string)
}

// Keeper keeps the versions of this server.
type Keeper struct {
	Options
	wake chan struct{} // a state was adopted

	mu      sync.Mutex
	missing []want
	since   map[image.Digest]time.Time // when a version was found to be missing
	failed  map[image.Digest]failure   // why it could not be brought
}

// failure is a pull that has failed.
type failure struct {
	err  error
	left *replicate.Progress // what it has left; nil: not known
}

// New returns a Keeper.
func New(o Options) *Keeper {
	return &Keeper{
		Options: o, wake: make(chan struct{}, 1), since: map[image.Digest]time.Time{},
		failed: map[image.Digest]failure{},
	}
}

// Adopted lets Run see what a new state needs. follow.Follower calls it.
func (k *Keeper) Adopted(context.Context, *follow.Declared) {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

const (
	// firstRetry and lastRetry bound the interval between tries to bring what could not be brought. It grows.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Run brings what is missing, and removes what is not needed, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	retry := firstRetry
	for ctx.Err() == nil {
		var again <-chan time.Time
		switch err := k.bring(ctx); {
		case errors.Is(err, errUrgent):
			continue
		case err != nil:
			again = time.After(retry)
			retry = min(2*retry, lastRetry)
		default:
			retry = firstRetry
			if err := k.removeUnneeded(ctx); err != nil {
				k.Log.Warn("versions that nobody needs stay in the store", "error", err)
			}
		}
		select {
		case <-again:
		case <-k.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// urgency is how soon a version is needed.
type urgency int

const (
	forNow   urgency = iota // nodes are to show it
	forNext                 // nodes are to show it when they boot, or when a rollout comes to them
	forLater                // it is the newest, or this is a head
)

// want is a version that is wanted.
type want struct {
	version image.Version
	urgency urgency
	nodes   int // that are to show it now
}

// wants returns the versions that are wanted, the most urgent first.
func (k *Keeper) wants(now *follow.Declared) []want {
	found := map[image.Digest]*want{}
	note := func(r image.Ref, u urgency) {
		v, ok := now.State.Resolve(r)
		if !ok {
			return
		}
		w := found[v.Digest]
		if w == nil {
			w = &want{version: v, urgency: u}
			found[v.Digest] = w
		}
		w.urgency = min(w.urgency, u)
		if u == forNow {
			w.nodes++
		}
	}
	images := map[string]bool{}
	for _, n := range now.NodesOf(k.Server) {
		images[string(n.Image.Name)] = true
		ref, next := now.Follows(n)
		note(ref, forNow)
		if !next.IsZero() {
			note(next, forNext)
		}
	}
	if me, ok := now.Cluster.Server(k.Server); ok && me.Has(cluster.RoleHead) {
		for _, im := range now.Cluster.Images { // content that one head alone has is lost with it
			images[string(im.Name)] = true
			for _, v := range now.State.Images[string(im.Name)].All() {
				note(v.Ref(), forLater)
			}
		}
	}
	rollouts, err := now.Rollouts().Outlines()
	if err != nil {
		k.Log.Warn("a rollout cannot be read, so its version is not brought before its nodes follow it", "error", err)
	}
	for i := range rollouts {
		if r := &rollouts[i]; r.UnderWay() && images[r.Image] {
			note(r.Ref(), forNext)
		}
	}
	for name := range images {
		if v, ok := now.State.Images[name].Newest(); ok {
			note(v.Ref(), forLater)
		}
	}
	list := make([]want, 0, len(found))
	for _, w := range found {
		list = append(list, *w)
	}
	slices.SortFunc(list, func(a, b want) int {
		return cmp.Or(cmp.Compare(a.urgency, b.urgency), cmp.Compare(b.nodes, a.nodes),
			cmp.Compare(a.version.Image, b.version.Image), cmp.Compare(b.version.Number, a.version.Number))
	})
	return list
}

// look finds what is missing now.
func (k *Keeper) look() []want {
	missing := slices.DeleteFunc(k.wants(k.Declared.Now()), func(w want) bool {
		v, err := k.Store.Resolve(w.version.Ref())
		return err == nil && v.Digest == w.version.Digest
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.missing = missing
	since := make(map[image.Digest]time.Time, len(missing))
	for _, w := range missing {
		d := w.version.Digest
		if since[d] = k.since[d]; since[d].IsZero() {
			since[d] = time.Now()
		}
	}
	k.since = since
	for d := range k.failed {
		if _, still := since[d]; !still {
			delete(k.failed, d)
		}
	}
	return slices.Clone(missing)
}

var errUrgent = errors.New("something more urgent is missing")

// bring brings all that is missing, once. What cannot be brought does not keep the rest from coming. It looks again
// after each version, because pull may have seen that another state was adopted.
func (k *Keeper) bring(ctx context.Context) error {
	var errs []error
	tried := map[image.Digest]bool{}
	for {
		list := k.look()
		i := slices.IndexFunc(list, func(w want) bool { return !tried[w.version.Digest] })
		if i < 0 {
			return errors.Join(errs...)
		}
		w := list[i]
		tried[w.version.Digest] = true
		err := k.pull(ctx, w)
		if errors.Is(err, errUrgent) || ctx.Err() != nil {
			return err
		}
		k.note(w, err)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.look()
		k.Arrived(ctx)
	}
}

func (k *Keeper) note(w want, err error) {
	left, known := k.Puller.Progress()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.failed, w.version.Digest)
		return
	}
	before := k.failed[w.version.Digest]
	now := failure{err, before.left}
	if known && left.Version == w.version.Ref() {
		now.left = &left
	}
	k.failed[w.version.Digest] = now
	if before.err == nil {
		k.Log.Error("a version cannot be brought; it is tried again", "version", w.version.Ref().String(), "error", err)
	}
}

// pull brings a version, unless a state is adopted meanwhile that needs another one sooner.
func (k *Keeper) pull(ctx context.Context, w want) error {
	if err := k.dropOther(w.version); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.Puller.Pull(ctx, w.version, k.Sources()) }()
	for {
		select {
		case err := <-done:
			return err
		case <-k.wake:
			list := k.look()
			if len(list) == 0 || list[0].urgency >= w.urgency || list[0].version.Digest == w.version.Digest {
				continue
			}
			cancel()
			if err := <-done; err == nil {
				return nil // it had ended before, and is to be noted as arrived
			}
			return errUrgent
		}
	}
}

// dropOther removes the record of another version with the same number, which the shared state does not have any more:
// an older copy of it was put back.
func (k *Keeper) dropOther(v image.Version) error {
	here, err := k.Store.Resolve(v.Ref())
	if err != nil || here.Digest == v.Digest {
		return nil
	}
	k.Log.Warn("the store has another version with that number; it is removed", "version", v.Ref().String())
	return k.Store.RemoveVersion(v.Ref())
}

// Arriving returns the versions that are wanted and not whole yet.
func (k *Keeper) Arriving() []fleet.Version {
	progress, known := k.Puller.Progress()
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []fleet.Version
	for _, w := range k.missing {
		m := &fleet.Missing{Files: int(w.version.Files), Bytes: w.version.Bytes}
		failed := k.failed[w.version.Digest]
		if failed.left != nil {
			m.Files, m.Bytes = failed.left.Files, failed.left.Bytes
		}
		if known && progress.Version == w.version.Ref() {
			m = &fleet.Missing{
				Files: progress.Files, Bytes: progress.Bytes, Rate: progress.Rate, TimeLeft: progress.Left,
			}
		}
		if failed.err != nil {
			m.Problem = failed.err.Error()
		}
		list = append(list, fleet.Version{Version: w.version.Ref(), Digest: w.version.Digest, Missing: m})
	}
	return list
}

// waiting tells a person who waits for a version.
func (w *want) waiting() string {
	switch w.nodes {
	case 0:
		return "nodes need it soon"
	case 1:
		return "1 node waits for it and shows the version before"
	}
	return quantity.Count(w.nodes) + " nodes wait for it and show the version before"
}

// late is for how long nodes wait for a version before that is a problem.
const late = 10 * time.Second

// Problems returns the versions for which nodes wait. It is a problems.Source.
func (k *Keeper) Problems(context.Context) []problems.Problem {
	arriving := k.Arriving()
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []problems.Problem
	for i, w := range k.missing {
		since := k.since[w.version.Digest]
		err := k.failed[w.version.Digest].err
		if i >= len(arriving) || err == nil && (w.urgency > forNow || time.Since(since) < late) {
			continue
		}
		p := problems.Problem{
			About: problems.Subject{Kind: problems.KindVersion, Name: w.version.Ref().String()}, Since: since,
			Text: fmt.Sprintf("%s: %s", w.waiting(), arriving[i].Missing),
		}
		if err != nil {
			p.Hint = "dim server ls tells which servers are up; it is tried again by itself"
		}
		list = append(list, p)
	}
	return list
}
