package follow

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/testkit"
)

// small is a description with the server head, two images and the nodes n01 to n04.
const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <image name="other" arch="amd64" master="dir:/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
</cluster>
`

// larger is small with a fifth node.
func larger() string { return strings.Replace(small, `to="4"`, `to="5"`, 1) }

// foreign is small with another name for the server.
func foreign() string {
	return strings.ReplaceAll(strings.Replace(small, `<server name="head"`, `<server name="away"`, 1),
		`servers="head"`, `servers="away"`)
}

func describe(t testing.TB, text string) *coord.Description {
	t.Helper()
	d := Describe(testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(t))
	return &d
}

// newFollower returns a Follower of the server head in a new directory that has not loaded anything. Its ClusterFile
// has the description text, unless that is "".
func newFollower(t testing.TB, text string) *Follower {
	t.Helper()
	dir := t.TempDir()
	f := New(Options{
		Server: "head", StateFile: filepath.Join(dir, "state.json"), CoordDir: filepath.Join(dir, "coord"),
		Log: slog.New(slog.DiscardHandler),
	})
	if text != "" {
		f.ClusterFile = filepath.Join(dir, "cluster.xml")
		testkit.Must(t, os.WriteFile(f.ClusterFile, []byte(text), 0o600))
	}
	return f
}

// loaded returns a Follower that has loaded a state, in which it has the description small.
func loaded(t testing.TB, kept coord.State) *Follower {
	t.Helper()
	f := newFollower(t, "")
	kept.Description = describe(t, small)
	testkit.Must(t, coord.SaveState(f.StateFile, kept), f.Load())
	return f
}

// openCoord opens a new shared state.
func openCoord(t testing.TB) *coord.Coord {
	t.Helper()
	c := testkit.Value(coord.Open(t.Context(), coord.Options{Dir: filepath.Join(t.TempDir(), "coord")}))(t)
	t.Cleanup(func() { testkit.Must(t, c.Close()) })
	return c
}

func snapshot(t testing.TB, c *coord.Coord) coord.State {
	t.Helper()
	return testkit.Value(c.Snapshot(context.WithoutCancel(t.Context())))(t)
}

// images returns an image compute with the versions 1 to n, of which the first is the current one.
func images(n int) map[string]*coord.Image {
	im := &coord.Image{Last: n, Current: 1}
	for i := range n {
		im.Versions = append(im.Versions, version(i+1))
	}
	return map[string]*coord.Image{"compute": im}
}

func version(number int) image.Version {
	return image.Version{
		Image: "compute", Number: number, Digest: image.Sum([]byte{byte(number)}),
		Root: image.Entry{Type: image.Directory},
	}
}

func ref(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }

func TestAFollowerFindsTheSharedStateAndAdoptsItsChanges(t *testing.T) {
	t.Parallel()
	f := newFollower(t, small)
	testkit.Must(t, f.Load())
	adopted := make(chan *Declared, 10)
	f.Subscribe(func(_ context.Context, now *Declared) { adopted <- now })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	c := testkit.Value(f.Change(t.Context()))(t)
	if now := <-adopted; now.State.Description == nil || now.Digest != describe(t, small).Digest {
		t.Errorf("the first state has the description %+v", now.State.Description)
	}
	testkit.Value(c.PutDescription(t.Context(), *describe(t, larger()), -1))(t)
	for now := range adopted {
		if len(now.Cluster.Nodes) == 5 {
			break
		}
	}
	if h := f.Health(t.Context()); !h.OK || h.Kind != "embedded" || h.Revision != f.Now().State.Revision {
		t.Errorf("health: %+v", h)
	}
	if list := f.Problems(t.Context()); len(list) > 0 {
		t.Errorf("problems: %+v", list)
	}
	cancel()
	testkit.Must(t, <-ended, f.Close())
}
