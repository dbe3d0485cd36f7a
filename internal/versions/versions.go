// Package versions keeps the versions of this server's store and those of the shared state in agreement: it numbers,
// publishes and removes them.
//
// # Concepts
//
// The shared state gives numbers to versions; the store keeps their content. A capture reserves a number in the shared
// state, writes the version to the store, and publishes it, which ends the reservation. A removal goes the other way:
// first the shared state, then the store. So after a crash the store may have versions that the shared state does not
// have, never the reverse for versions that this server made.
//
// # Concurrency
//
// All methods may be called from any number of goroutines.
//
// # What it must not know
//
// How a version is captured, and how nodes are served.
package versions

import (
	"log/slog"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/store"
)

// Options of a Registry. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Store    *store.Store
	Follow   *follow.Follower
	Arriving func() []image.Digest // versions of which the store has a part
	Replicas Replicas
	Used     func() map[image.Ref]string // versions that somebody uses besides nodes: "it is mounted at /mnt"
	Removed  func(image.Ref)             // called inside follow.Exclusive for each version that was removed
	Log      *slog.Logger
}

// Replicas knows which versions replicas need: those that they show, and those whose content they may still be asked
// for, with the reason for each. declared reports whether the description has a node.
type Replicas interface {
	Pinned(declared func(node string) bool) ([]image.Version, map[image.Digest]string)
}

// Registry is the versions of this server.
type Registry struct{ Options }

// New returns a Registry.
func New(o Options) *Registry { return &Registry{o} }
