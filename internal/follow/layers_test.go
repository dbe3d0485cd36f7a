package follow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/testkit"
)

// twoServers is small with a second server, is2, and the nodes of one of the two.
func twoServers(t *testing.T, first string) *cluster.Cluster {
	t.Helper()
	text := strings.Replace(small, "  <taxonomy>", `  <server name="is2" roles="image" dhcp="off">
    <interface network="boot" address="127.0.0.3"/></server>
  <taxonomy>`, 1)
	text = strings.Replace(text, `servers="head"`, fmt.Sprintf(`servers="%s"`, first), 1)
	return testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(t)
}

// decided returns s after a decision.
func decided(t *testing.T, s coord.State, decide func(coord.State) (coord.Change, error)) coord.State {
	t.Helper()
	change := testkit.Value(decide(s))(t)
	return change.Onto(s)
}

func TestLayersStayUntilTheirServerHasLetThemGo(t *testing.T) {
	a, b := twoServers(t, "head"), twoServers(t, "is2")
	n, _ := b.Node("n01")
	state := decided(t, coord.State{Description: &coord.Description{Revision: 5}}, claims(a))
	d := &Declared{State: state, Cluster: b}
	if d.layerAt(n) != "head" || d.Serves("head", n) || d.Serves("is2", n) || len(d.Left(b, nil)) != len(b.Nodes) {
		t.Errorf("the layer is at %s, and %d nodes are left", d.layerAt(n), len(d.Left(b, nil)))
	}
	if s := decided(t, state, claims(b)); cmp.Diff(state.Layers, s.Layers) != "" {
		t.Errorf("what is noted is noted anew: %v", s.Layers)
	}
	d.State = decided(t, state, (&Replacement{Before: a, Next: b, Leaving: all(b)}).Decide)
	if d.Serves("is2", n) || len(d.Left(b, nil)) > 0 {
		t.Errorf("before the server has let it go, is2 serves it: %v; left %d", d.Serves("is2", n), len(d.Left(b, nil)))
	}
	gone := func(server cluster.ServerName) bool { return server == "head" }
	if s := decided(t, d.State, d.Release(func(s cluster.ServerName) bool { return !gone(s) })); len(s.Leaving) == 0 {
		t.Error("released before the server has let it go")
	}
	d.State = decided(t, d.State, d.Release(gone))
	if !d.Serves("is2", n) || len(d.State.Leaving) > 0 {
		t.Errorf("the layer is at %s, leaving %v", d.layerAt(n), d.State.Leaving)
	}
	back := Replacement{Before: b, Next: a}
	if s := decided(t, d.State, back.Decide); len(s.Leaving) > 0 || s.Layers["n01"] != "is2" {
		t.Errorf("back without consent: %v", s)
	}
}

func TestTheNodesOfAServerAreThoseThatItServes(t *testing.T) {
	a := twoServers(t, "head")
	d := &Declared{Cluster: a}
	if got := d.NodesOf("head"); len(got) != len(a.Nodes) || len(d.NodesOf("is2")) > 0 {
		t.Errorf("head serves %d nodes, is2 %d", len(got), len(d.NodesOf("is2")))
	}
	d.State.Layers = coord.Holders{"n01": "is2"}
	for _, n := range d.NodesOf("head") {
		if n.Name == "n01" || !d.Serves("head", n) {
			t.Errorf("head serves %s", n.Name)
		}
	}
	if got := d.NodesOf("head"); len(got) != len(a.Nodes)-1 || len(a.NodesOf("head")) != len(a.Nodes) {
		t.Errorf("without the one whose layer is elsewhere, head serves %d nodes of %d", len(got),
			len(a.NodesOf("head")))
	}
}

func TestConsentEndsWithItsDescription(t *testing.T) {
	a, b := twoServers(t, "head"), twoServers(t, "is2")
	s := decided(t, coord.State{Description: &coord.Description{Revision: 5}}, claims(a))
	s = decided(t, s, (&Replacement{Before: a, Next: b, Leaving: all(b)}).Decide)
	if s = decided(t, s, (&Replacement{Before: b, Next: a}).Decide); len(s.Leaving) > 0 {
		t.Errorf("the nodes are the first server's again, and leave: %v", s.Leaving)
	}
}

// all returns all nodes, as ones that leave their layers.
func all(c *cluster.Cluster) (list []Left) {
	for _, n := range c.Nodes {
		list = append(list, Left{Node: n})
	}
	return list
}

func TestWhatIsDeclaredForANodeFollowsItsNewName(t *testing.T) {
	a := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(small)}))(t)
	text := strings.NewReplacer(`name="n{node:02}"`, `name="m{node:02}"`).Replace(small)
	b := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(t)
	ref := image.Ref{Image: "compute", Number: 3}
	s := coord.State{
		Description: &coord.Description{Revision: 5}, Desired: coord.Refs{"n01": ref}, Next: coord.Refs{"n02": ref},
	}
	renames := []control.Rename{{From: "n01", To: "m01"}, {From: "n02", To: "m02"}}
	r := Replacement{Before: a, Next: b, Renames: renames, ID: "x"}
	s = decided(t, s, r.Decide)
	if s.Desired["m01"] != ref || s.Next["m02"] != ref || len(s.Desired)+len(s.Next) != 2 {
		t.Errorf("declared: %v, %v", s.Desired, s.Next)
	}
	if _, old := s.Layers["n01"]; old || s.Layers["m01"] != "head" {
		t.Errorf("layers: %v", s.Layers)
	}
	back := Replacement{Before: b, Next: a, Renames: []control.Rename{{From: "m01", To: "n01"}}, ID: "y"}
	if _, err := back.Decide(s); err == nil {
		t.Error("a change of names that is not complete was undone")
	}
	d := &Declared{State: s, Cluster: b}
	if s := decided(t, s, d.Renamed(func(cluster.ServerName) bool { return false })); len(s.Renaming) != 2 {
		t.Errorf("complete before the server says so: %v", s.Renaming)
	}
	s = decided(t, s, d.Renamed(func(server cluster.ServerName) bool { return server == "head" }))
	if len(s.Renaming) > 0 {
		t.Errorf("still being renamed: %v", s.Renaming)
	}
	testkit.Value(back.Decide(s))(t)
}
