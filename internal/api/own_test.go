package api

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/layer"
	"dim/internal/recordmerge"
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

func TestConflictsOfMergedFilesAreTold(t *testing.T) {
	merged := func(path string, conflicts ...recordmerge.Conflict) layer.SetAside {
		return layer.SetAside{Node: "n1", Path: path, Kind: layer.AsideEntry, Merged: true, Conflicts: conflicts}
	}
	changed := func(key string) recordmerge.Conflict {
		return recordmerge.Conflict{Kind: recordmerge.Changed, Key: key, Reason: "changed both"}
	}
	unmerged := merged("etc/group", recordmerge.Conflict{Kind: recordmerge.NotMerged, Reason: "not merged, because x"})
	unmerged.Merged = false
	got := ownChanges([]layer.SetAside{
		merged("etc/subuid"), unmerged, merged("var/lib/dpkg/status", changed("tool")),
		merged("etc/passwd", changed("munge"), recordmerge.Conflict{
			Kind: recordmerge.Number, Key: "localuser", Reason: "uid 1000 is also that of alice",
		}),
	})
	want := []control.OwnChanges{{
		Nodes: "n1", Count: 1, Paths: 3,
		First:    []control.Path{"/etc/group", "/var/lib/dpkg/status", "/etc/passwd"},
		Packages: []string{"tool"}, Accounts: []string{"munge"},
		Notes: []string{
			"/etc/group: not merged, because x", "/etc/passwd: localuser: uid 1000 is also that of alice",
			"the list of accounts of the node (/etc/group) is set aside as a whole",
		},
	}}
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
