package follow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/coord"
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
	state := decided(t, coord.State{Description: &coord.Description{Revision: 5}}, Claim(a))
	d := &Declared{State: state, Cluster: b}
	if d.LayerAt(n) != "head" || d.Serves("head", n) || d.Serves("is2", n) || len(d.Left(b)) != len(b.Nodes) {
		t.Errorf("the layer is at %s, and %d nodes are left", d.LayerAt(n), len(d.Left(b)))
	}
	if s := decided(t, state, Claim(b)); cmp.Diff(state.Layers, s.Layers) != "" {
		t.Errorf("what is noted is noted anew: %v", s.Layers)
	}
	d.State = decided(t, state, Replace(a, b, b.Nodes))
	if d.Serves("is2", n) || len(d.Left(b)) > 0 {
		t.Errorf("before the server has let it go, is2 serves it: %v; left %d", d.Serves("is2", n), len(d.Left(b)))
	}
	gone := func(server cluster.ServerName) bool { return server == "head" }
	if s := decided(t, d.State, d.Release(func(s cluster.ServerName) bool { return !gone(s) })); len(s.Leaving) == 0 {
		t.Error("released before the server has let it go")
	}
	d.State = decided(t, d.State, d.Release(gone))
	if !d.Serves("is2", n) || len(d.State.Leaving) > 0 {
		t.Errorf("the layer is at %s, leaving %v", d.LayerAt(n), d.State.Leaving)
	}
	if s := decided(t, d.State, Replace(b, a, nil)); len(s.Leaving) > 0 || s.Layers["n01"] != "is2" {
		t.Errorf("back without consent: %v", s)
	}
}

func TestConsentEndsWithItsDescription(t *testing.T) {
	a, b := twoServers(t, "head"), twoServers(t, "is2")
	s := decided(t, coord.State{Description: &coord.Description{Revision: 5}}, Claim(a))
	s = decided(t, s, Replace(a, b, b.Nodes))
	if s = decided(t, s, Replace(b, a, nil)); len(s.Leaving) > 0 {
		t.Errorf("the nodes are the first server's again, and leave: %v", s.Leaving)
	}
}
