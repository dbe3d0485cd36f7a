package layers

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// Short names for tests.
var (
	root   = replicatest.Root()
	v1, v2 = replicatest.V1(), replicatest.V2()
	gone   = replicatest.Failed
)

func newMemory(t testing.TB) *replicatest.Memory { return replicatest.NewMemory(t) }

const needsRoot = "layers have owners, devices and trusted attributes"

var errCrash = errors.New("crash")

// site is a replica in tests, with what is needed to restart its server.
type site struct {
	*replica.Replica
	replicatest.Shell
	Layer
	t     testing.TB
	opts  replica.Options
	s     *replica.Set
	spec  replica.Spec
	clock time.Duration            // how far the server's clock is ahead
	fault func(point string) error // see replica.Options

	resume bool // the replica is attached to the version that it followed last
}

func newSite(t testing.TB, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	return newSiteIn(t, t.TempDir(), v, m)
}

func newSiteIn(t testing.TB, dir string, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	testkit.NeedRoot(t, needsRoot)
	o := &site{t: t, spec: replica.Spec{Node: "n01", Image: "compute", Version: v}}
	o.opts = replica.Options{Dir: filepath.Join(dir, "replicas"), Source: m, Durability: replica.Relaxed}
	o.open()
	t.Cleanup(func() { o.s.Close() })
	return o
}

func (o *site) open() {
	o.t.Helper()
	o.fault = nil
	o.opts.Now = func() time.Time { return time.Now().Add(o.clock) }
	o.opts.Fault = func(point string) error {
		if o.fault == nil {
			return nil
		}
		return o.fault(point)
	}
	s, err := replica.Open(o.opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.s = s
	o.attach()
}

func (o *site) attach() {
	o.t.Helper()
	if v, known := o.s.Followed(o.spec.Node, o.spec.Image); known && o.resume {
		o.spec.Version = v
	}
	r, err := o.s.Attach(o.spec)
	if err != nil {
		o.t.Fatal(err)
	}
	o.Replica, o.Shell, o.Layer = r, replicatest.NewShell(o.t, r), Of(r)
}

func (o *site) restart() {
	o.t.Helper()
	if err := o.s.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *site) to(v image.Version) replica.Report {
	o.t.Helper()
	o.spec.Version = v
	rep, err := o.s.Switch(context.Background(), []replica.Move{o.move()})
	if err != nil {
		o.t.Fatal(err)
	}
	return rep
}

// rules makes the replica follow the rules in spec.
func (o *site) rules() { o.to(o.spec.Version) }

func (o *site) move() replica.Move {
	return replica.Move{
		Replica: o.Replica, Version: o.spec.Version, Files: o.spec.Files,
		Keep: o.spec.Keep, Shared: o.spec.Shared, Rules: o.spec.Rules,
	}
}

func (o *site) expire() (int, error) { return Expire(o.s, slog.New(slog.DiscardHandler)) }

// savedOf lists what is set aside.
func savedOf(o *site) []string {
	o.t.Helper()
	list, err := o.Saved()
	if err != nil {
		o.t.Fatal(err)
	}
	var all []string
	for _, a := range list {
		all = append(all, a.Path+" "+string(a.Kind))
	}
	slices.Sort(all)
	return all
}

// stamps lists the directories of the saved area.
func (o *site) stamps() []time.Time {
	o.t.Helper()
	return testkit.Value(o.root.Stamps(o.home.Saved()))(o.t)
}

// snapshotNow takes a snapshot and returns its stamp; "" if there is nothing to keep.
func (o *site) snapshotNow() string {
	o.t.Helper()
	e := testkit.Value(o.Edit("test"))(o.t)
	stamp, err := e.Snapshot()
	testkit.Must(o.t, e.Cancel(err))
	return stamp
}

// history is a random history of a site.
type history struct {
	*replicatest.History
	o *site
}

func newHistory(rt *rapid.T, t *testing.T, m *replicatest.Memory, v image.Version, base string) *history {
	serve := func(v image.Version) *site {
		o := &site{t: t, spec: replica.Spec{Node: "n01", Image: "compute", Version: v}}
		o.opts = replica.Options{Dir: filepath.Join(base, "replicas"), Source: m, Durability: replica.Relaxed}
		o.open()
		return o
	}
	server := func(o *site) replicatest.Server {
		return replicatest.Server{FS: o.Replica, Use: func() (any, error) { return o.QuotaUse() }, Close: o.s.Close}
	}
	h := &history{o: serve(v)}
	first := server(h.o)
	first.Reopen = func(v image.Version) (replicatest.Server, error) { return server(serve(v)), nil }
	h.History = replicatest.NewHistory(rt, t, base, first)
	return h
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
