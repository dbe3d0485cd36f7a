package leftover

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

func TestWhatRemovedNodesHaveLeftIsListed(t *testing.T) {
	testkit.NeedRoot(t, "layers have owners, devices and trusted attributes")
	m := replicatest.NewMemory(t)
	set := testkit.Value(replica.Open(replica.Options{
		Dir: filepath.Join(t.TempDir(), "replicas"), Source: m, Durability: replica.Relaxed,
	}))(t)
	defer set.Close()
	v := m.Version(t, 1, replicatest.V1())
	for _, node := range []string{"n01", "n02", "n03"} {
		r := testkit.Value(set.Attach(replica.Spec{Node: node, Image: "compute", Version: v}))(t)
		if node != "n03" {
			shell := replicatest.NewShell(t, r)
			shell.WriteFile("etc/a", "mine")
		}
	}
	has := func(node string) bool { return node == "n01" }
	ignore := cmpopts.IgnoreFields(Layer{}, "Bytes")
	// upper, etc, a and work
	want := []Layer{{Node: "n02", Image: "compute", Entries: 4}}
	got := testkit.Value(List(set, has, nil))(t)
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if got[0].Bytes == 0 {
		t.Error("it takes no bytes")
	}
	if got := testkit.Value(List(set, has, []string{"n01", "n03"}))(t); len(got) > 0 {
		t.Errorf("of nodes without files or in the description: %v", got)
	}
}
