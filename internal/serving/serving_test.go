package serving

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/meter"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/testkit"
)

// small has the nodes n01 to n12 of this server, x1 of another one, and a network of administrators.
const small = `<cluster name="small">
  <network name="boot" subnet="10.0.0.0/24"/>
  <network name="admins" subnet="10.9.0.0/24" admin="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="10.0.0.1"/></server>
  <server name="second" roles="image" dhcp="off"><interface network="boot" address="10.0.0.2"/></server>
  <taxonomy><level name="node" from="1" to="12"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"><mount path="/scratch"/></image>
  <image name="other" arch="amd64" master="dir:/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.0.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
  <node name="x1" image="compute" servers="second">
    <interface name="eth0" network="boot" address="10.0.0.99" mac="52:54:00:4d:00:99"/>
    <interface name="eth1" network="admins" address="10.9.0.99"/>
  </node>
%s</cluster>
`

// fixed is a declared state that a test sets.
type fixed struct {
	now    *follow.Declared
	before func() // called when Stable begins, if it is not nil
}

func (f *fixed) Now() *follow.Declared { return f.now }

func (f *fixed) Stable(fn func(*follow.Declared)) {
	if f.before != nil {
		f.before()
	}
	fn(f.now)
}

// nodes is a Push whose nodes report what a test sets.
type nodes struct {
	mounts           map[cluster.NodeName]push.MountTable
	woken, forgotten []cluster.NodeName
}

func (n *nodes) Mounts(name cluster.NodeName) (push.MountTable, bool) {
	m, ok := n.mounts[name]
	return m, ok
}
func (n *nodes) Wake(names ...cluster.NodeName) { n.woken = append(n.woken, names...) }
func (n *nodes) Forget(name cluster.NodeName)   { n.forgotten = append(n.forgotten, name) }

// site is a Server with what it is made of.
type site struct {
	*Server
	t        testing.TB
	dir      string
	declared *fixed
	nodes    *nodes
	compute  []image.Version               // numbers 1 and up
	close    func()                        // ends the Server
	closed   bool                          // it serves no nodes
	partial  atomic.Pointer[image.Version] // can be served although it is not whole
}

// newSite returns the site of a description. Its store has three versions of the image compute, and declared is none.
func newSite(t testing.TB, text string) *site {
	t.Helper()
	testkit.NeedRoot(t, "it captures owners")
	s := &site{t: t, dir: t.TempDir(), declared: &fixed{now: &follow.Declared{}}, nodes: &nodes{}}
	st := testkit.Value(store.Open(filepath.Join(s.dir, "store"), store.Options{}))(t)
	t.Cleanup(func() { testkit.Must(t, st.Close()) })
	s.describe(text)
	s.open(st)
	number := testkit.Counter()
	for i := range 3 {
		s.compute = append(s.compute, s.capture("compute", fmt.Sprint(i+1), number))
	}
	return s
}

// open makes the Server anew, over the store.
func (s *site) open(st *store.Store) {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	layers := filepath.Join(s.dir, "replicas")
	set := testkit.Value(replica.Open(replica.Options{Dir: layers, Source: st, Log: log}))(s.t)
	tracker := testkit.Value(liveness.Open(filepath.Join(s.dir, "boots.log"), nil, log))(s.t)
	s.close = sync.OnceFunc(func() { testkit.Must(s.t, tracker.Close(), set.Close()) })
	s.t.Cleanup(s.close)
	s.Server = New(Options{
		Server: "head", Declared: s.declared, Store: st, Content: st, Set: set, Liveness: tracker, Push: s.nodes,
		Partial: func(v image.Version) bool {
			p := s.partial.Load()
			return p != nil && same(*p, v)
		},
		Class:    func(*cluster.Node, *cluster.Image) meter.Class { return 1 },
		Closed:   func() bool { return s.closed },
		Problems: new(problems.List), Log: log,
	})
}

// capture makes a version of an image whose /etc/motd is text.
func (s *site) capture(name, text string, number func(context.Context) (int, error)) image.Version {
	s.t.Helper()
	master := filepath.Join(s.dir, "master")
	testkit.Must(s.t, os.MkdirAll(filepath.Join(master, "etc"), 0o755),
		os.WriteFile(filepath.Join(master, "etc/motd"), []byte(text), 0o644))
	o := capture.Options{Image: name, Dir: master, Log: slog.New(slog.DiscardHandler), Reserve: number}
	return testkit.Value(capture.Run(s.t.Context(), s.Store, o))(s.t).Version
}

// describe declares a description.
func (s *site) describe(text string) {
	s.t.Helper()
	now := *s.declared.now
	now.Cluster = testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(s.t)
	d := follow.Describe(now.Cluster)
	now.Digest, now.State.Description = d.Digest, &d
	s.declared.now = &now
}

// declare declares the current version of compute, and what edit changes besides.
func (s *site) declare(current int, edit func(*coord.State)) {
	now := *s.declared.now
	now.State.Images = map[string]*coord.Image{"compute": {Last: 3, Current: current, Versions: s.compute}}
	now.State.Desired, now.State.Next = coord.Refs{}, coord.Refs{}
	if edit != nil {
		edit(&now.State)
	}
	s.declared.now = &now
}

func (s *site) reconcile() { s.Reconcile(context.Background()) }

func (s *site) named(name cluster.NodeName) *cluster.Node {
	s.t.Helper()
	n, ok := s.declared.now.Cluster.Node(name)
	if !ok {
		s.t.Fatalf("there is no node %s", name)
	}
	return n
}

// shows returns the number of the version that a node's replica shows; 0: it has none.
func (s *site) shows(name cluster.NodeName) int {
	v, _ := s.Shows(name)
	return v.Number
}

// problem returns what is wrong with a node.
func (s *site) problem(name cluster.NodeName) string { return s.Problems.Text(problems.Node(name)) }

func ref(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }

func described(more string) string { return fmt.Sprintf(small, more) }

func TestCallsOfANodeAreNotedOnceASecond(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	x := s.node("n01")
	s.noteCall(x)
	first := s.Liveness.State("n01").LastCall
	if first.IsZero() || !s.called.Swap(false) {
		t.Error("the first call was not noted")
	}
	if s.noteCall(x); s.Liveness.State("n01").LastCall != first || s.called.Load() {
		t.Error("a second one right after it was noted")
	}
	x.noted.Store(x.noted.Load() - int64(noteInterval))
	if s.noteCall(x); !s.Liveness.State("n01").LastCall.After(first) || !s.called.Load() {
		t.Error("one a second later was not noted")
	}
	s.declare(2, nil)
	s.reconcile()
	if s.node("n01") == x || s.node("n01").noted != x.noted || s.node("n01").meter.Counts != x.meter.Counts {
		t.Error("a switch begins to count anew")
	}
}

func TestAVersionIsExportedUntilItIsDropped(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	one, two := testkit.Value(s.version("compute@1"))(t), testkit.Value(s.version("compute@2"))(t)
	if again := testkit.Value(s.version("compute@1"))(t); again != one || one == two {
		t.Error("a version has not one export")
	}
	s.Drop(ref(1))
	exported := func(v image.Version) bool {
		return s.table.Load().trees[replica.VersionTree(v.Image, v.Digest)] != nil
	}
	if exported(s.compute[0]) || !exported(s.compute[1]) || s.shows("n01") != 1 {
		t.Errorf("exported: %v, %v; n01 shows %d", exported(s.compute[0]), exported(s.compute[1]), s.shows("n01"))
	}
	if s.reconcile(); !exported(s.compute[1]) {
		t.Error("a new state ends the export of a version")
	}
}

func TestADirectoryThatASwitchChangedIsNamed(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	before := testkit.Value(s.ChangedDirs("n01", "", 0))(t)
	s.declare(2, nil)
	s.reconcile()
	after := testkit.Value(s.ChangedDirs("n01", "", before.Stamp))(t)
	if dirs := slices.Collect(after.Dirs); after.Image != "compute" || !slices.Contains(dirs, "etc") {
		t.Errorf("image %s, directories %q", after.Image, dirs)
	}
	if _, err := s.ChangedDirs("n01", "other", 0); err == nil {
		t.Error("a replica that does not exist has changed")
	}
}

func TestWhichNodeMakesARequest(t *testing.T) {
	s := newSite(t, described(""))
	for _, tt := range []struct {
		name, from string
		want       cluster.NodeName
		err        string
	}{
		{name: "the superuser of a node", from: "10.0.0.11:700", want: "n01"},
		{name: "another user of it", from: "10.0.0.11:7000", err: "any user may have"},
		{name: "no node", from: "10.0.0.200:700", err: "no node's address"},
		{name: "a node of another server", from: "10.0.0.99:700", err: "another server serves x1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: netip.MustParseAddrPort(tt.from).String()}
			got, err := s.CallingNode(r)
			var text string
			if err != nil {
				text = err.Error()
			}
			if got != tt.want || (text == "") != (tt.err == "") || !strings.Contains(text, tt.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}
