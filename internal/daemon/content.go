package daemon

import (
	"context"
	"net/http"
	"time"

	"dim/internal/cluster"
	"dim/internal/holdings"
	"dim/internal/image"
	"dim/internal/peer"
	"dim/internal/replicate"
)

// content is how versions come to this server and go to others.
type content struct {
	handler *replicate.Handler
	puller  *replicate.Puller
	keeper  *holdings.Keeper
}

const (
	// readWait is for how long a READ of a node waits for a file that has not arrived.
	readWait = 2 * time.Second
	// bootWait is for how long the kernel and the files for the initramfs are waited for.
	bootWait = time.Minute
)

func (d *daemon) assemblePuller() {
	d.content.puller = replicate.New(replicate.Options{
		Store: d.store, Name: string(d.server), Named: d.source, Rate: d.pullRate, Log: d.Log,
		Early:  func(v image.Version) bool { return d.serving.Waits(v) },
		Listed: func(ctx context.Context) { d.serving.Reconcile(ctx) },
	})
}

func (d *daemon) assembleContent() {
	d.content.handler = replicate.NewHandler(replicate.HandlerOptions{
		Store: d.store, Puller: d.content.puller, Log: d.Log, Getters: d.getters,
		Holders: func(digest image.Digest) (names []string) {
			for _, name := range d.others.fleet.Holders(digest) {
				names = append(names, string(name))
			}
			return names
		},
	})
	d.content.handler.Register(func(pattern string, h http.Handler) {
		d.others.server.Handle(pattern, peer.Servers, h)
	})
	d.content.keeper = holdings.New(holdings.Options{
		Server: d.server, Declared: d.follow, Store: d.store, Replicas: d.set, Log: d.Log,
		Puller:  d.content.puller,
		Sources: d.sources, Asked: d.content.handler.Asked, Arrived: d.arrived, Removed: d.serving.Drop,
		Used: d.inUse,
	})
}

// arrived reports a version that the store has got, and shows it to nodes. A rollout waits for the first report, and
// Reconcile may wait for the disk.
func (d *daemon) arrived(ctx context.Context) {
	d.others.reporter.Arrived()
	d.serving.Reconcile(ctx)
	d.others.reporter.Arrived()
}

// sources returns the other heads, which may have any version.
func (d *daemon) sources() (list []replicate.Source) {
	for _, s := range d.follow.Cluster().Servers {
		if s.Has(cluster.RoleHead) {
			if source, ok := d.source(string(s.Name)); ok {
				list = append(list, source)
			}
		}
	}
	return list
}

// getters returns the servers with which the one that makes a request exchanges parts of a version.
func (d *daemon) getters(r *http.Request, version image.Digest) (names []string) {
	asker, ok := peer.From(r.Context())
	if !ok {
		return nil
	}
	for _, name := range holdings.Getters(d.follow.Now(), d.others.fleet, version, cluster.ServerName(asker.Name)) {
		names = append(names, string(name))
	}
	return names
}

// pullRate returns how many bytes of versions this server may receive in a second.
func (d *daemon) pullRate() uint64 {
	if me, ok := d.follow.Cluster().Server(d.server); ok {
		return me.PullRate
	}
	return 0
}

// source returns another server by its name.
func (d *daemon) source(name string) (s replicate.Source, ok bool) {
	if _, ok := d.follow.Cluster().Server(cluster.ServerName(name)); !ok || name == string(d.server) {
		return s, false
	}
	client, base := d.others.client.To(cluster.ServerName(name))
	return replicate.Source{Name: name, URL: base, HTTP: client}, true
}
