// Package api answers the control API: it implements control.Backend by what the other parts of the daemon know and do,
// in the API's words.
//
// It decides nothing about nodes but whether a person's request is refused, and finds the problems that show only where
// facts of several parts meet. All methods may be called from any number of goroutines.
//
// # What it must not know
//
// How the API is transported.
package api

import (
	"context"
	"log/slog"
	"time"

	"dim/internal/bootfiles"
	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/control"
	"dim/internal/dhcp"
	"dim/internal/driver"
	"dim/internal/expiry"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/holdings"
	"dim/internal/image"
	"dim/internal/layers/pkgread"
	"dim/internal/liveness"
	"dim/internal/loadtest"
	"dim/internal/masters"
	"dim/internal/membership"
	"dim/internal/pkgdb"
	"dim/internal/problems"
	"dim/internal/replica"
	"dim/internal/reporting"
	"dim/internal/serving"
	"dim/internal/store"
	"dim/internal/versions"
)

// Info is what the status says of this server.
type Info struct {
	Server   cluster.ServerName
	Program  string // its version
	Data     string // the data directory
	Started  time.Time
	Services []control.Service // what listens
}

// Parts are what the API asks. All are needed.
type Parts struct {
	Store     *store.Store
	Set       *replica.Set
	Follow    *follow.Follower
	Fleet     *fleet.Fleet
	Registry  *versions.Registry
	Compare   *compare.Comparer
	Masters   *masters.Masters
	Driver    *driver.Driver
	Members   *membership.Membership
	Serving   Roots
	BootFiles *bootfiles.Builder
	Packages  *pkgread.Reader
	Liveness  *liveness.Tracker
	Residents *reporting.Residents
	Holdings  *holdings.Keeper
	Expiry    *expiry.Schedule
	Storms    *loadtest.Host
	Unknown   *dhcp.Machines // machines that are not in the description
	Problems  *problems.List
	Log       *slog.Logger
}

// Roots are the roots of this server's nodes. serving.Server implements it.
type Roots interface {
	// Node returns what is served to a node; ok is false when it has no root here.
	Node(cluster.NodeName) (n serving.Node, ok bool)
	// Shows returns the version that a node's root shows; ok is false when it has no root here.
	Shows(cluster.NodeName) (v image.Version, ok bool)
	// Serves reports whether this server serves a node.
	Serves(*cluster.Node) bool
	// Preview returns what a switch of nodes to a version would do to what they have of their own.
	Preview(context.Context, []*cluster.Node, image.Version, pkgdb.OnConflict) (serving.Preview, error)
	// Left returns why a node stays with what it shows because of its packages; "" if it does not.
	Left(cluster.NodeName) string
	// Reconcile tries again what could not be served.
	Reconcile(context.Context)
}

var _ control.Backend = (*API)(nil)

// API implements control.Backend.
type API struct {
	Info
	Parts
	mounts mounts
}

// New returns an API, and adds the problems that it finds to the list of problems.
func New(info Info, parts Parts) *API {
	api := &API{Info: info, Parts: parts, mounts: mounts{list: map[int]mounted{}}}
	api.addSources()
	return api
}
