package versions

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dim/internal/capture"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <node name="n01" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.11" mac="52:54:00:4d:00:01"/>
  </node>
</cluster>
`

// shown are the versions that replicas need.
type shown []image.Version

const shownWhy = "a replica shows it"

func (s *shown) Pinned(func(string) bool) ([]image.Version, map[image.Digest]string) {
	why := map[image.Digest]string{}
	for _, v := range *s {
		why[v.Digest] = shownWhy
	}
	return *s, why
}

// site is a Registry with what it is made of.
type site struct {
	*Registry
	t       *testing.T
	coord   *coord.Coord
	shown   shown
	mounted map[image.Ref]string
	gone    []image.Ref // what Removed was called with
}

// newSite returns a site with an empty store and a new shared state.
func newSite(t *testing.T) *site {
	t.Helper()
	s := newAlone(t)
	s.Follow, s.coord = followtest.Open(t, small, func(f *follow.Follower) { f.OnRestore(s.PutPending) })
	return s
}

// newAlone returns a site with an empty store and no shared state.
func newAlone(t *testing.T) *site {
	t.Helper()
	testkit.NeedRoot(t, "it captures owners")
	s := &site{t: t}
	st := testkit.Value(store.Open(filepath.Join(t.TempDir(), "store"), store.Options{}))(t)
	t.Cleanup(func() { testkit.Must(t, st.Close()) })
	s.Registry = New(Options{
		Arriving: func() []image.Digest { return nil },
		Server:   "head", Store: st, Replicas: &s.shown,
		Used:    func() map[image.Ref]string { return s.mounted },
		Removed: func(r image.Ref) { s.gone = append(s.gone, r) },
		Log:     slog.New(slog.DiscardHandler),
	})
	return s
}

// store captures a version of compute with a file of its own, under a number from reserve, and does not publish it.
func (s *site) store(text string, reserve func(context.Context) (int, error)) image.Version {
	s.t.Helper()
	return s.storeOf("compute", text, reserve)
}

// storeOf does for any image what store does for compute.
func (s *site) storeOf(name, text string, reserve func(context.Context) (int, error)) image.Version {
	s.t.Helper()
	master := s.t.TempDir()
	testkit.Must(s.t, os.WriteFile(filepath.Join(master, "only"), []byte(text), 0o644))
	o := capture.Options{Image: name, Dir: master, Log: slog.New(slog.DiscardHandler), Reserve: reserve}
	return testkit.Value(capture.Run(s.t.Context(), s.Store, o))(s.t).Version
}

// publish captures versions and publishes them.
func (s *site) publish(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		v := s.store(text, func(ctx context.Context) (int, error) { return s.Reserve(ctx, "compute") })
		testkit.Must(s.t, s.Publish(s.t.Context(), v))
	}
}

// numbers returns the numbers of compute's versions in the shared state and in the store.
func (s *site) numbers() (shared, stored []int) {
	s.t.Helper()
	if im := testkit.Value(s.coord.Snapshot(s.t.Context()))(s.t).Images["compute"]; im != nil {
		shared = numbers(im.Versions)
	}
	versions, err := s.Store.Versions("compute")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.t.Fatal(err)
	}
	return shared, numbers(versions)
}

// check checks which versions shared state and store have.
func (s *site) check(t *testing.T, wantShared, wantStored []int) {
	t.Helper()
	if shared, stored := s.numbers(); !slices.Equal(shared, wantShared) || !slices.Equal(stored, wantStored) {
		t.Errorf("the shared state has %v, the store %v; want %v and %v", shared, stored, wantShared, wantStored)
	}
}

// hasBlob reports whether the store has the content of a file.
func (s *site) hasBlob(text string) bool {
	f, err := s.Store.OpenBlob(image.Sum([]byte(text)))
	if err == nil {
		f.Close()
	}
	return err == nil
}

// code returns the code of an error of the API, "" for none.
func code(t *testing.T, err error) control.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		t.Fatalf("%v is no error of the API", err)
	}
	return e.Code
}

func ref(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }
