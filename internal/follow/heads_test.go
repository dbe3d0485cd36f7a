package follow

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/follow/stream"
	"dim/internal/pki"
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
	next := f.Now().State
	adopt := func(desired int) {
		t.Helper()
		next.Revision++
		next.Desired = coord.Refs{"n01": {Image: "compute", Number: desired}}
		testkit.Must(t, f.adopt(t.Context(), next))
	}
	adopt(1)
	check("a later state", 6)
	adopt(1)
	check("one that says the same", 7)
	f.StateFile = filepath.Join(f.StateFile, "below a file")
	adopt(2)
	check("one that is not on disk", 7)
}

func TestAnImageServerKeepsAStateAtOnceIfNodesFollowSomethingElse(t *testing.T) {
	record := func(text string) map[int]json.RawMessage { return map[int]json.RawMessage{1: json.RawMessage(text)} }
	current := func(number, versions int) map[string]*coord.Image {
		list := images(versions)
		list["compute"].Current = number
		return list
	}
	tests := []struct {
		name       string
		change     func(*coord.State)
		told, kept int // calls of a subscriber, and writes, until Run ends
		atOnce     int // writes before that
	}{
		{"nothing but the revision", func(*coord.State) {}, 0, 0, 0},
		{"a rollout goes on", func(s *coord.State) { s.Rollouts = record(`{"id":1}`) }, 1, 1, 0},
		{"a version is captured", func(s *coord.State) { s.Images = current(1, 2) }, 1, 1, 0},
		{"nodes follow another version", func(s *coord.State) { s.Images = current(2, 1) }, 1, 1, 1},
		{"a node follows another version", func(s *coord.State) {
			s.Desired = coord.Refs{"n01": {Image: "compute", Number: 1}}
		}, 1, 1, 1},
		{"a layer moves", func(s *coord.State) { s.Layers = coord.Holders{"n01": "is1"} }, 1, 1, 1},
		{"a server is refused", func(s *coord.State) {
			s.Revoked = map[string]coord.Revocation{"id": {Server: "is2"}}
		}, 1, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := onImageServer(t, coord.State{Store: "a", Revision: 5, Images: current(1, 1)})
			testkit.Must(t, f.Load())
			told := 0
			f.Subscribe(func(context.Context, *Declared) { told++ })
			onDisk := func() int { return int(testkit.Value(coord.LoadState(f.StateFile))(t).Revision) - 5 }
			next := f.Now().State
			next.Revision++
			tt.change(&next)
			testkit.Must(t, f.adopt(t.Context(), next))
			if got := f.Now().State.Revision; got != 6 || told != tt.told || onDisk() != tt.atOnce {
				t.Errorf("revision %d, told %d times, on disk %d", got, told, onDisk())
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			testkit.Must(t, f.Run(ended))
			if onDisk() != tt.kept {
				t.Errorf("after its end revision %d is on disk", 5+onDisk())
			}
		})
	}
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

// headThatRefuses answers that the identity of whoever calls has ended.
type headThatRefuses struct{ header http.Header }

func (h headThatRefuses) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusForbidden, Header: h.header, Body: http.NoBody}, nil
}

func TestAServerTellsThatItWasRemovedFromThatAHeadWas(t *testing.T) {
	header := http.Header{}
	(&pki.RevokedError{}).SetHeader(header)
	for _, tt := range []struct {
		name string
		head http.RoundTripper
		want string
	}{
		{"it was removed", headThatRefuses{header}, "this server was removed from the cluster"},
		{"the head was removed", roundTrip(func() error { return &pki.RevokedError{Name: "head"} }),
			"no head can be followed: server head: the identity of server head was revoked"},
	} {
		f := onImageServer(t, coord.State{Store: "a", Revision: 5})
		f.Heads = func() []stream.Head {
			return []stream.Head{{Name: "head", Client: &http.Client{Transport: tt.head}, URL: "https://head"}}
		}
		testkit.Must(t, f.Load())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		<-f.Searched()
		if list := f.headProblems(); len(list) != 1 || list[0].Text != tt.want {
			t.Errorf("%s: %+v, want %q", tt.name, list, tt.want)
		}
		cancel()
		testkit.Must(t, <-ended)
	}
}

// roundTrip fails.
type roundTrip func() error

func (f roundTrip) RoundTrip(*http.Request) (*http.Response, error) { return nil, f() }

// A number that is reserved changes nothing for any node, so a head does not write its whole state for it at once.
func TestAHeadKeepsAStateLaterIfNodesFollowTheSame(t *testing.T) {
	t.Parallel()
	f, c := loaded(t, coord.State{}), openCoord(t)
	testkit.Value(c.PutDescription(t.Context(), *describe(t, small), -1))(t)
	testkit.Must(t, c.PutVersion(t.Context(), version(1)), f.Refresh(t.Context(), c))
	reserved := func() int {
		kept := testkit.Value(coord.LoadState(f.StateFile))(t)
		return len(kept.Images["compute"].Reserved)
	}
	testkit.Value(c.ReserveVersion(t.Context(), "compute", "head"))(t)
	testkit.Must(t, f.Refresh(t.Context(), c)) // Run would keep it soon
	if n := reserved(); n != 0 {
		t.Errorf("%d reservations are on disk", n)
	}
	for range 2 { // the second time there is nothing to keep
		testkit.Must(t, f.Keep())
		if n := reserved(); n != 1 {
			t.Errorf("after Keep %d reservations are on disk", n)
		}
	}
}
