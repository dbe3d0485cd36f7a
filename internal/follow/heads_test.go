package follow

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/follow/stream"
	"dim/internal/testkit"
)

// twoLevels is small with an image server that serves the nodes.
func twoLevels() string {
	return strings.NewReplacer(`servers="head"`, `servers="is1"`, "<taxonomy>",
		`<server name="is1" roles="image" dhcp="off"><interface network="boot" address="127.0.0.3"/></server>
  <taxonomy>`,
	).Replace(small)
}

// onImageServer returns a Follower of the image server is1 that has kept a state.
func onImageServer(t *testing.T, kept coord.State) *Follower {
	f := newFollower(t, "")
	f.Server, f.Heads = "is1", func() []stream.Head { return nil }
	kept.Description = describe(t, twoLevels())
	testkit.Must(t, coord.SaveState(f.StateFile, kept))
	return f
}

func TestAnImageServerAdoptsWhatHeadsSend(t *testing.T) {
	f := onImageServer(t, coord.State{Store: "a", Revision: 5, Images: images(2)})
	testkit.Must(t, f.Load())
	if f.IsHead() {
		t.Fatal("it is a head")
	}
	next := coord.State{Store: "a", Revision: 6, Images: images(3), Description: f.Now().State.Description}
	older, other := next, next
	older.Revision, other.Store, other.Revision = 3, "b", 1
	for _, tt := range []struct {
		name    string
		state   coord.State
		replace bool
		want    int64 // revision that holds then
	}{
		{"a later state", next, false, 6},
		{"an older one", older, false, 6},
		{"an older one that replaces it", older, true, 3},
		{"the same again, whole", older, true, 3},
		{"one of another shared state", other, true, 1},
		{"one that has lost everything", coord.State{Store: "b", Revision: 2}, true, 1},
	} {
		err := f.adoptFromHead(t.Context(), tt.state, tt.replace)
		if got := f.Now().State.Revision; got != tt.want || (err != nil) != (tt.state.Description == nil) {
			t.Errorf("%s: revision %d, error %v", tt.name, got, err)
		}
	}
	again := New(f.Options)
	testkit.Must(t, again.Load())
	if now := again.Now(); now.State.Store != "b" || now.State.Revision != 1 {
		t.Errorf("after a restart: revision %d of %s", now.State.Revision, now.State.Store)
	}
}

func TestAStateIsSettledWhileItIsOnDisk(t *testing.T) {
	f := onImageServer(t, coord.State{Store: "a", Revision: 5})
	testkit.Must(t, f.Load())
	if f.Settled() != nil {
		t.Error("a state is settled before anybody can have adopted it")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	testkit.Must(t, f.Run(ended))
	check := func(what string, want int64) {
		t.Helper()
		if now := f.Settled(); now == nil || now.State.Revision != want {
			t.Errorf("%s: settled is %+v", what, now)
		}
	}
	check("after a restart", 5)
	next := coord.State{Store: "a", Revision: 6, Description: f.Now().State.Description}
	testkit.Must(t, f.adopt(t.Context(), next))
	check("a later state", 6)
	f.StateFile, next.Revision = filepath.Join(f.StateFile, "below a file"), 7
	testkit.Must(t, f.adopt(t.Context(), next))
	check("one that is not on disk", 6)
}

func TestAnImageServerUsesNeitherADescriptionOfTheCommandLineNorAnEtcd(t *testing.T) {
	f := onImageServer(t, coord.State{Store: "a", Revision: 5})
	f.ClusterFile = newFollower(t, larger()).ClusterFile
	testkit.Must(t, f.Load())
	if got := len(f.Cluster().Nodes); got != 4 {
		t.Errorf("it has %d nodes", got)
	}
	f.Etcd.Endpoints = []string{"https://etcd"}
	if err := f.Load(); err == nil || !strings.Contains(err.Error(), "leave --etcd out") {
		t.Errorf("with an etcd: %v", err)
	}
}
