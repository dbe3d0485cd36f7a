package holdings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/replicate"
	"dim/internal/store"
	"dim/internal/testkit"
)

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.0.0.0/16" insecure="yes"/>
  <server name="head" roles="head"><interface network="boot" address="10.0.0.1"/></server>
  <server name="is1" roles="image"><interface network="boot" address="10.0.0.2"/></server>
  <server name="is2" roles="image"><interface network="boot" address="10.0.0.3"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/a"/>
  <image name="login" arch="amd64" master="dir:/srv/b"/>
  <image name="spare" arch="amd64" master="dir:/srv/c"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="is1">
    <interface name="eth0" network="boot" address="10.0.1.{node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
  <nodes name="l{node:02}" each="node" image="login" servers="is2">
    <interface name="eth0" network="boot" address="10.0.2.{node}" mac="52:54:00:4d:01:{node:02x}"/>
  </nodes>
</cluster>`

// site is a head that has versions, and an image server that gets them.
type site struct {
	t          *testing.T
	head, mine *store.Store
	keeper     *Keeper
	pinned     []image.Version
	arrived    chan struct{}

	mu  sync.Mutex
	now *follow.Declared
}

func (s *site) Now() *follow.Declared {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) Stable(fn func(*follow.Declared)) { fn(s.Now()) }

func (s *site) Pinned(func(string) bool) ([]image.Version, map[image.Digest]string) {
	return s.pinned, nil
}

// newSite makes a site of the server with a name. Around, if not nil, is around the head's handler.
func newSite(t *testing.T, name cluster.ServerName, around func(http.Handler) http.Handler) *site {
	s := &site{t: t, arrived: make(chan struct{}, 100)}
	for _, st := range []**store.Store{&s.head, &s.mine} {
		opened := testkit.Value(store.Open(t.TempDir(), store.Options{}))(t)
		t.Cleanup(func() { opened.Close() })
		*st = opened
	}
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	replicate.NewHandler(replicate.HandlerOptions{Store: s.head, Log: log}).Register(mux.Handle)
	h := http.Handler(mux)
	if around != nil {
		h = around(mux)
	}
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	s.now = &follow.Declared{
		Cluster: testkit.Value(cluster.Parse(cluster.Source{Name: "c.xml", XML: []byte(description)}))(t),
		State:   coord.State{Store: "s", Revision: 1, Images: map[string]*coord.Image{}},
	}
	s.keeper = New(Options{
		Server: name, Declared: s, Store: s.mine, Replicas: s, Log: log,
		Puller: replicate.New(replicate.Options{Store: s.mine, Log: log}),
		Sources: func() []replicate.Source {
			return []replicate.Source{{Name: "head", URL: ts.URL, HTTP: ts.Client()}}
		},
		Asked:   func() []image.Digest { return nil },
		Used:    func() map[image.Ref]string { return nil },
		Arrived: func(context.Context) { s.arrived <- struct{}{} },
		Removed: func(image.Ref) {},
	})
	return s
}

// capture adds a version to the head's store.
func (s *site) capture(name string, number int) image.Version {
	s.t.Helper()
	b := testkit.Value(s.head.Begin())(s.t)
	c := testkit.Value(b.PutBytes(fmt.Appendf(nil, "%s %d", name, number)))(s.t)
	size := uint64(len(fmt.Sprintf("%s %d", name, number)))
	tree := testkit.Value(b.PutTree(image.Tree{{Name: "f", Type: image.Regular, Nlink: 1, Digest: c, Size: size}}))(s.t)
	root := testkit.Value(b.PutRoot(image.Entry{Type: image.Directory, Mode: 0o755, Digest: tree}))(s.t)
	testkit.Must(s.t, b.Commit(s.t.Context()))
	return testkit.Value(s.head.AddVersion(image.Version{Image: name, Number: number, Digest: root}))(s.t)
}

// declare captures versions of an image and declares the current one.
func (s *site) declare(name string, current int, numbers ...int) {
	s.t.Helper()
	im := &coord.Image{Last: slices.Max(numbers), Current: current}
	for _, n := range numbers {
		im.Versions = append(im.Versions, s.capture(name, n))
	}
	s.edit(func(now *coord.State) { now.Images[name] = im })
}

func (s *site) edit(f func(*coord.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := *s.now
	images := map[string]*coord.Image{}
	for name, im := range now.State.Images {
		images[name] = im
	}
	now.State.Images = images
	now.State.Revision++
	f(&now.State)
	s.now = &now
}

// holds returns the versions of the server's store.
func (s *site) holds() (list []string) {
	s.t.Helper()
	for _, name := range testkit.Value(s.mine.Images())(s.t) {
		for _, v := range testkit.Value(s.mine.Versions(name))(s.t) {
			list = append(list, v.Ref().String())
		}
	}
	return list
}

// settle brings all and removes what is not needed.
func (s *site) settle() {
	s.t.Helper()
	testkit.Must(s.t, s.keeper.bring(s.t.Context()), s.keeper.removeUnneeded(s.t.Context()))
}

func (s *site) wantHeld(what string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.holds()); diff != "" {
		s.t.Errorf("%s: %s", what, diff)
	}
	testkit.Must(s.t, s.mine.Check(s.t.Context(), store.CheckObserver{Problem: func(p store.Problem) { s.t.Error(p) }}))
}

func TestAServerHasWhatItsNodesNeed(t *testing.T) {
	s := newSite(t, "is1", nil)
	s.declare("compute", 2, 1, 2, 3, 4, 5, 6)
	s.declare("login", 1, 1)
	s.settle()
	s.wantHeld("what nodes follow, and the newest", "compute@2", "compute@6")

	s.edit(func(now *coord.State) {
		now.Desired = coord.Refs{"n01": {Image: "compute", Number: 1}, "l01": {Image: "compute", Number: 3}}
		now.Next = coord.Refs{"n02": {Image: "compute", Number: 4}}
	})
	s.settle()
	s.wantHeld("what nodes follow from their next boot on", "compute@1", "compute@2", "compute@4", "compute@6")

	s.pinned = []image.Version{testkit.Value(s.head.Resolve(image.Ref{Image: "compute", Number: 2}))(t)}
	s.edit(func(now *coord.State) {
		now.Desired, now.Next = nil, nil
		now.Images["compute"] = &coord.Image{Last: 6, Current: 6, Versions: now.Images["compute"].Versions}
	})
	s.settle()
	s.wantHeld("what a replica shows, and the last three", "compute@2", "compute@4", "compute@6")
	s.pinned = nil
	s.settle()
	s.wantHeld("the last three", "compute@4", "compute@6")

	s.edit(func(now *coord.State) { now.Images = map[string]*coord.Image{} })
	s.settle()
	s.wantHeld("when the shared state was lost", "compute@4", "compute@6")
}

func TestAHeadHasAllVersionsAndRemovesNothing(t *testing.T) {
	s := newSite(t, "head", nil)
	s.declare("compute", 1, 1, 2)
	s.declare("spare", 3, 3)
	s.settle()
	s.wantHeld("at first", "compute@1", "compute@2", "spare@3")
	s.declare("compute", 7, 4, 5, 6, 7)
	s.settle()
	s.wantHeld("later", "compute@1", "compute@2", "compute@4", "compute@5", "compute@6", "compute@7", "spare@3")
}

// TestTheMostUrgentVersionComesFirst lets a version that nodes are to show be declared while the newest one arrives.
func TestTheMostUrgentVersionComesFirst(t *testing.T) {
	asked, once := make(chan struct{}), sync.Once{}
	s := newSite(t, "is1", func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first := false
			once.Do(func() { first = true })
			if first {
				_, _ = io.Copy(io.Discard, r.Body)
				close(asked)
				<-r.Context().Done() // the first answer never comes
				return
			}
			honest.ServeHTTP(w, r)
		})
	})
	s.declare("compute", 1, 1, 9)
	one := s.Now().State.Images["compute"].Versions[0]
	s.edit(func(now *coord.State) {
		now.Images["compute"] = &coord.Image{Last: 9, Versions: now.Images["compute"].Versions[1:]}
		now.Desired = coord.Refs{} // all nodes follow version 1, which is not there yet
		for i := range 4 {
			now.Desired[fmt.Sprintf("n%02d", i+1)] = image.Ref{Image: "compute", Number: 1}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.keeper.Run(ctx) }()
	<-asked
	s.edit(func(now *coord.State) {
		now.Images["compute"] = &coord.Image{Last: 9, Versions: []image.Version{one, now.Images["compute"].Versions[0]}}
	})
	s.keeper.Adopted(ctx, nil)
	<-s.arrived
	if got := s.holds(); !slices.Contains(got, "compute@1") {
		t.Errorf("after the first arrival the store has %v", got)
	}
	<-s.arrived
	cancel()
	testkit.Must(t, <-done)
	s.wantHeld("at the end", "compute@1", "compute@9")
}

// TestAVersionThatBecomesUrgentGoesOnArriving lets nodes follow the newest version while it arrives.
func TestAVersionThatBecomesUrgentGoesOnArriving(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	var requests atomic.Int64
	s := newSite(t, "is1", func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) == 1 {
				close(asked)
				<-answer
			}
			honest.ServeHTTP(w, r)
		})
	})
	s.declare("compute", 0, 1)
	s.edit(func(now *coord.State) { now.Desired = coord.Refs{} })
	s.edit(func(now *coord.State) {
		for i := range 4 { // which is not there yet
			now.Desired[fmt.Sprintf("n%02d", i+1)] = image.Ref{Image: "compute", Number: 7}
		}
	})
	w := s.keeper.look()
	if len(w) != 1 || w[0].urgency != forLater {
		t.Fatalf("wanted is %+v", w)
	}
	done := make(chan error, 1)
	go func() { done <- s.keeper.bring(t.Context()) }()
	<-asked
	s.edit(func(now *coord.State) { now.Desired = coord.Refs{} })
	s.keeper.wake <- struct{}{}
	testkit.Eventually(t, "the keeper has seen that nodes follow the version", func() bool {
		s.keeper.mu.Lock()
		defer s.keeper.mu.Unlock()
		return s.keeper.missing[0].urgency == forNow
	})
	close(answer)
	testkit.Must(t, <-done)
	if len(s.arrived) != 1 {
		t.Errorf("%d versions arrived", len(s.arrived))
	}
}

// TestAVersionThatIsDeclaredWhileAnotherOneArrivesComesAfterIt has a state adopted during a pull.
func TestAVersionThatIsDeclaredWhileAnotherOneArrivesComesAfterIt(t *testing.T) {
	asked, answer, once := make(chan struct{}), make(chan struct{}), sync.Once{}
	s := newSite(t, "is1", func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() {
				close(asked)
				<-answer
			})
			honest.ServeHTTP(w, r)
		})
	})
	s.declare("compute", 1, 1, 9)
	both := s.Now().State.Images["compute"]
	s.edit(func(now *coord.State) {
		now.Images["compute"] = &coord.Image{Last: 9, Current: 1, Versions: both.Versions[:1]}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.keeper.Run(ctx) }()
	<-asked
	s.edit(func(now *coord.State) { now.Images["compute"] = both })
	s.keeper.Adopted(ctx, nil)
	testkit.Eventually(t, "the keeper has seen the other version", func() bool {
		s.keeper.mu.Lock()
		defer s.keeper.mu.Unlock()
		return len(s.keeper.missing) == 2
	})
	close(answer)
	for _, nth := range []string{"first", "second"} {
		select {
		case <-s.arrived:
		case <-time.After(time.Minute):
			t.Fatalf("the %s version does not arrive", nth)
		}
	}
	cancel()
	testkit.Must(t, <-done)
	s.wantHeld("at the end", "compute@1", "compute@9")
}

func TestAVersionThatDoesNotComeIsAProblem(t *testing.T) {
	s := newSite(t, "is1", func(http.Handler) http.Handler { return http.NotFoundHandler() })
	s.declare("compute", 1, 1)
	if err := s.keeper.bring(t.Context()); err == nil {
		t.Fatal("it came")
	}
	list := s.keeper.Problems(t.Context())
	if len(list) != 1 || list[0].About.String() != "version compute@1" ||
		!strings.HasPrefix(list[0].Text, "4 nodes wait") {
		t.Errorf("the problems are %v", list)
	}
	arriving := s.keeper.Arriving()
	if len(arriving) != 1 || arriving[0].Missing == nil || !strings.Contains(arriving[0].Missing.Problem, "404") {
		t.Errorf("arriving are %+v", arriving)
	}
	if _, err := s.mine.Resolve(image.Ref{Image: "compute", Number: 1}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

// TestADamagedObjectComesOnce damages a blob that two versions have.
func TestADamagedObjectComesOnce(t *testing.T) {
	var blobs atomic.Int32
	s := newSite(t, "is1", func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/blobs") {
				blobs.Add(1)
			}
			honest.ServeHTTP(w, r)
		})
	})
	one := s.capture("compute", 1)
	two := one
	two.Number = 2
	s.edit(func(now *coord.State) {
		now.Images["compute"] = &coord.Image{Last: 2, Current: 1, Versions: []image.Version{one, two}}
	})
	testkit.Value(s.head.AddVersion(two))(t)
	s.settle()
	d := image.Sum([]byte("compute 1"))
	name := filepath.Join(s.mine.Dir(), "blobs", d.String()[:2], d.String())
	testkit.Must(t, os.Chmod(name, 0o600), os.WriteFile(name, []byte("compute 7"), 0o600))
	blobs.Store(0)
	damaged := map[image.Digest]bool{d: true}
	if ok, err := s.keeper.Repair(t.Context(), []image.Version{one, two}, damaged); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got := string(testkit.Value(os.ReadFile(name))(t)); got != "compute 1" || len(damaged) > 0 {
		t.Errorf("the blob is %q, damaged are %v", got, damaged)
	}
	if n := blobs.Load(); n != 1 {
		t.Errorf("blobs were asked for %d times", n)
	}
}

// TestAPruneKeepsWhatHasArrived removes objects while a version is half here. What has arrived does not come again.
func TestAPruneKeepsWhatHasArrived(t *testing.T) {
	var fail, served atomic.Bool
	s := newSite(t, "is1", func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/file") && fail.Load() {
				http.Error(w, "no", http.StatusInternalServerError)
				return
			}
			served.CompareAndSwap(false, strings.HasSuffix(r.URL.Path, "/blobs"))
			honest.ServeHTTP(w, r)
		})
	})
	b := testkit.Value(s.head.Begin())(t)
	small, large := []byte("a small file"), bytes.Repeat([]byte("large"), 1<<20)
	file := func(name string, content []byte) image.Entry {
		d := testkit.Value(b.PutBytes(content))(t)
		return image.Entry{Name: name, Type: image.Regular, Nlink: 1, Digest: d, Size: uint64(len(content))}
	}
	tree := testkit.Value(b.PutTree(image.Tree{file("a", small), file("b", large)}))(t)
	root := testkit.Value(b.PutRoot(image.Entry{Type: image.Directory, Mode: 0o755, Digest: tree}))(t)
	testkit.Must(t, b.Commit(t.Context()))
	v := testkit.Value(s.head.AddVersion(image.Version{Image: "compute", Number: 1, Digest: root}))(t)
	s.edit(func(now *coord.State) {
		now.Images["compute"] = &coord.Image{Last: 1, Current: 1, Versions: []image.Version{v}}
	})
	fail.Store(true)
	if err := s.keeper.bring(t.Context()); err == nil {
		t.Fatal("the version came")
	}
	if !s.mine.HasBlob(image.Sum(small)) || !served.Swap(false) {
		t.Fatal("no part of the version came")
	}
	m := s.keeper.Arriving()[0].Missing
	if m.Files != 1 || m.Bytes != uint64(len(large)) || m.Rate != 0 || m.Problem == "" {
		t.Errorf("the rest is %+v", m)
	}
	testkit.Value(s.mine.Sweep(t.Context(), s.keeper.roots()))(t)
	fail.Store(false)
	s.settle()
	s.wantHeld("after another try", "compute@1")
	if served.Load() {
		t.Error("the small file came again")
	}
}
