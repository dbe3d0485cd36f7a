package replica

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// Short names for tests.
var (
	root   = replicatest.Root()
	v1, v2 = replicatest.V1(), replicatest.V2()
	d, f   = replicatest.Dir, replicatest.File
	gone   = replicatest.Failed
)

func newMemory(t testing.TB) *replicatest.Memory { return replicatest.NewMemory(t) }

const needsRoot = "layers have owners, devices and trusted attributes"

// newTestSet opens a Set in a temporary directory.
func newTestSet(t testing.TB, m *replicatest.Memory, change ...func(*Options)) *Set {
	t.Helper()
	o := Options{Dir: filepath.Join(t.TempDir(), "replicas"), Source: m, Durability: Relaxed}
	for _, c := range change {
		c(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// site is a replica in tests, with what is needed to restart its server.
type site struct {
	*Replica
	replicatest.Shell
	t    testing.TB
	m    *replicatest.Memory
	opts Options
	s    *Set
	spec Spec
}

func newSite(t testing.TB, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	return newSiteIn(t, t.TempDir(), v, m)
}

func newSiteIn(t testing.TB, dir string, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	testkit.NeedRoot(t, needsRoot)
	o := &site{t: t, m: m, spec: Spec{Node: "n01", Image: "compute", Version: v}}
	o.opts = Options{Dir: filepath.Join(dir, "replicas"), Source: m, Durability: Relaxed}
	o.open()
	t.Cleanup(func() { o.s.Close() })
	return o
}

func (o *site) open() {
	o.t.Helper()
	s, err := Open(o.opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.s = s
	if o.Replica, err = s.Attach(o.spec); err != nil {
		o.t.Fatal(err)
	}
	o.Shell = replicatest.NewShell(o.t, o.Replica)
}

func (o *site) restart() {
	o.t.Helper()
	if err := o.s.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *site) to(v image.Version) Report {
	o.t.Helper()
	o.spec.Version = v
	rep, err := o.s.Switch(context.Background(), []Move{o.move()})
	if err != nil {
		o.t.Fatal(err)
	}
	return rep
}

func (o *site) move() Move {
	return Move{
		Replica: o.Replica, Version: o.spec.Version, Files: o.spec.Files,
		Keep: o.spec.Keep, Shared: o.spec.Shared, Rules: o.spec.Rules,
	}
}

// savedOf lists what is set aside.
func savedOf(o *site) []string {
	o.t.Helper()
	var all []string
	for _, a := range o.readSaved() {
		all = append(all, a.Path+" "+string(a.Kind))
	}
	slices.Sort(all)
	return all
}

func (o *site) readSaved() []layer.SetAside {
	o.t.Helper()
	return testkit.Value(o.s.root.ReadSaved(o.dir, time.Time{}))(o.t)
}

// setAside sets aside what the layer has at path, as an administrator does.
func (o *site) setAside(path string) {
	o.t.Helper()
	e := testkit.Value(o.Edit("test"))(o.t)
	entry, ok := e.At(path)
	if !ok {
		o.t.Fatalf("the layer has nothing at %s", path)
	}
	testkit.Must(o.t, e.End(e.SetAside(entry)))
}
