package api

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/layer"
)

func TestNodesThatLoseTheSameAreOneLine(t *testing.T) {
	var list []layer.SetAside
	aside := func(node string, paths ...string) {
		for _, path := range paths {
			list = append(list, layer.SetAside{Node: node, Path: path, Kind: layer.AsideEntry})
		}
	}
	for i := range 3000 {
		aside(fmt.Sprintf("n%04d", i), "etc/motd", "etc/issue")
	}
	aside("n3000", "etc/motd", "etc/passwd")
	got := ownChanges(list)
	want := []control.OwnChanges{
		{
			Nodes: "n3000", Count: 1, Paths: 2, First: []control.Path{"/etc/motd", "/etc/passwd"},
			Packages: []string{}, Accounts: []string{},
			Notes: []string{"the list of accounts of the node (/etc/passwd) is set aside as a whole"},
		},
		{
			Nodes: "n[0000-2999]", Count: 3000, Paths: 6000, First: []control.Path{"/etc/motd", "/etc/issue"},
			Packages: []string{}, Accounts: []string{}, Notes: []string{},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheOwnChangesOfManyNodesAreBounded(t *testing.T) {
	groups := map[string]*ownGroup{}
	for i := range 1000 {
		name := fmt.Sprintf("n%04d", i)
		groups[name] = &ownGroup{
			lost: ownLost{packages: []string{"p" + name, "q" + name}}, paths: 3, nodes: []string{name},
		}
	}
	got := bounded(groups)
	last := got[len(got)-1]
	if len(got) != maxOwn || last.Count != 1000-maxOwn+1 || last.Paths != 3*last.Count {
		t.Errorf("%d groups, the last one is %+v", len(got), last)
	}
	if n := len(last.Packages); n != maxOwnNames+1 || last.Packages[n-1] != "1912 more" {
		t.Errorf("%d packages, the last one is %q", n, last.Packages[n-1])
	}
}
