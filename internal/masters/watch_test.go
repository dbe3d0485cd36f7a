package masters

import (
	"context"
	"errors"
	"testing"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/problems"
	"dim/internal/testkit"
)

func TestAWaitForACaptureEndsWithItsContext(t *testing.T) {
	m := New(Options{})
	m.setWatched("compute", &watched{capturing: make(chan struct{}, 1)})
	release, err := m.exclusive(t.Context(), "compute")
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.exclusive(ctx, "compute"); err == nil {
		t.Error("two captures run at once")
	}
	release()
	release, err = m.exclusive(t.Context(), "compute")
	testkit.Must(t, err)
	release()
}

func TestProblemsOfImagesThatAreGoneAreDropped(t *testing.T) {
	list := new(problems.List)
	m := New(Options{Problems: list})
	list.Set(problems.Image("compute"), errors.New("no such directory"))
	list.Set(problems.Image("gone"), errors.New("no such directory"))
	list.Set(problems.Node("gone"), errors.New("not served"))
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(`<cluster name="small">
  <network name="boot" subnet="10.0.0.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.0.0.1"/></server>
  <image name="compute" arch="amd64" master="dir:/master"/></cluster>`)}))(t)
	m.Adopted(t.Context(), &follow.Declared{Cluster: c})
	left := list.All(t.Context())
	if len(left) != 2 || left[0].About != problems.Image("compute") || left[1].About != problems.Node("gone") {
		t.Errorf("what is left: %v", left)
	}
}
