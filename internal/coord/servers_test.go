package coord

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/testkit"
)

func TestATokenIsUsedOnceEvenByMany(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutToken(t.Context(), "digest", Token{Expires: time.Now().Add(time.Hour)}))
	var wg sync.WaitGroup
	var used, refused atomic.Int32
	for n := range 16 {
		wg.Go(func() {
			_, err := c.UseToken(t.Context(), "digest", string(rune('a'+n)), func(Token, *Server) (*Server, error) {
				return &Server{ID: string(rune('a' + n))}, nil
			})
			switch {
			case err == nil:
				used.Add(1)
			case errors.Is(err, ErrNotFound):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d used it, %d were refused", used.Load(), refused.Load())
	}
	if s := testkit.Value(c.Snapshot(t.Context()))(t); len(s.Servers) != 1 {
		t.Errorf("the servers: %v", s.Servers)
	}
}

func TestATokenThatIsNotAdmittedStays(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutToken(t.Context(), "digest", Token{For: "is07", Expires: time.Now().Add(time.Hour)}))
	no := errors.New("no")
	use := func(answer error) error {
		_, err := c.UseToken(t.Context(), "digest", "is07", func(got Token, _ *Server) (*Server, error) {
			if got.For != "is07" {
				t.Errorf("the token: %+v", got)
			}
			return &Server{ID: "a"}, answer
		})
		return err
	}
	if err := use(no); err != no {
		t.Errorf("the first use: %v", err)
	}
	if err := use(nil); err != nil {
		t.Errorf("the second use: %v", err)
	}
	if err := use(nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("the third use: %v", err)
	}
}

func TestTokensThatExpiredAreRemoved(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutToken(t.Context(), "late", Token{Expires: time.Now().Add(-time.Hour)}))
	testkit.Must(t, c.PutToken(t.Context(), "good", Token{Expires: time.Now().Add(time.Hour)}))
	testkit.Must(t, c.PutToken(t.Context(), "new", Token{Expires: time.Now().Add(time.Hour)}))
	for digest, want := range map[string]bool{"late": false, "good": true, "new": true} {
		if r := testkit.Value(c.read(t.Context(), c.tokenKey(digest)))(t); len(r.Kvs) > 0 != want {
			t.Errorf("%s is there: %t", digest, !want)
		}
	}
}

func TestAServerThatIsReplacedOrRemovedIsRevoked(t *testing.T) {
	c := open(t, t.TempDir())
	state := func() State { return testkit.Value(c.Snapshot(t.Context()))(t) }
	testkit.Must(t, c.PutServer(t.Context(), "is07", Server{ID: "a", Roles: []string{"image"}}))
	testkit.Must(t, c.PutServer(t.Context(), "is07", Server{ID: "a", Roles: []string{"head"}}))
	if s := state(); len(s.Revoked) != 0 || s.Servers["is07"].Roles[0] != "head" {
		t.Errorf("the same identity: %+v %+v", s.Servers, s.Revoked)
	}
	testkit.Must(t, c.PutServer(t.Context(), "is07", Server{ID: "b"}))
	if s := state(); s.Revoked["a"].Server != "is07" || s.Servers["is07"].ID != "b" {
		t.Errorf("another identity: %+v %+v", s.Servers, s.Revoked)
	}
	since := time.Now().UTC().Truncate(time.Second)
	testkit.Must(t, c.DrainServer(t.Context(), "is07", since))
	if s := state(); !s.Servers["is07"].Drained.Equal(since) || s.Servers["is07"].ID != "b" {
		t.Errorf("drained: %+v", s.Servers)
	}
	testkit.Must(t, c.MarkServer(t.Context(), "is07", "one", ""), c.MarkServer(t.Context(), "is07", "one", ""),
		c.MarkServer(t.Context(), "is07", "two", "one"))
	if err := c.MarkServer(t.Context(), "is07", "copy", "one"); !errors.Is(err, ErrConflict) {
		t.Errorf("the mark of an old disk: %v", err)
	}
	if err := c.MarkServer(t.Context(), "is09", "one", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the mark of a server that has not joined: %v", err)
	}
	if s := state(); s.Servers["is07"].Mark != "two" || !s.Servers["is07"].Drained.Equal(since) {
		t.Errorf("marked: %+v", s.Servers)
	}
	testkit.Must(t, c.AcceptDisk(t.Context(), "is07"), c.MarkServer(t.Context(), "is07", "copy", ""))
	testkit.Must(t, c.RemoveServer(t.Context(), "is07"))
	if s := state(); s.Revoked["b"].Server != "is07" || len(s.Servers) != 0 || len(s.Revoked) != 2 {
		t.Errorf("removed: %+v %+v", s.Servers, s.Revoked)
	}
	for name, err := range map[string]error{
		"remove": c.RemoveServer(t.Context(), "is07"), "drain": c.DrainServer(t.Context(), "is07", since),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServersAndRevocationsAreRestored(t *testing.T) {
	c := open(t, t.TempDir())
	kept := State{
		Servers: map[string]Server{"is07": {ID: "b", Roles: []string{"image"}}, "is08": {ID: "c"}},
		Revoked: map[string]Revocation{"a": {Server: "is07"}},
	}
	testkit.Must(t, c.PutServer(t.Context(), "is08", Server{ID: "later"}), c.PutMembers(t.Context(), kept))
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	kept.Servers["is08"] = Server{ID: "later"}
	if d := cmp.Diff(kept.Servers, s.Servers) + cmp.Diff(kept.Revoked, s.Revoked); d != "" {
		t.Error(d)
	}
}

func TestAStateHasNoTokens(t *testing.T) {
	c := open(t, t.TempDir())
	before := testkit.Value(c.Snapshot(t.Context()))(t)
	testkit.Must(t, c.PutToken(t.Context(), "digest", Token{Expires: time.Now().Add(time.Hour)}))
	after := testkit.Value(c.Snapshot(t.Context()))(t)
	before.Revision = after.Revision
	if d := cmp.Diff(before, after); d != "" {
		t.Error(d)
	}
}

func TestAStateIsSupersededOnce(t *testing.T) {
	c := open(t, t.TempDir())
	first := Revocation{Server: "head", Time: time.Now().UTC().Truncate(time.Second)}
	testkit.Must(t, c.Supersede(t.Context(), first), c.Supersede(t.Context(), Revocation{Server: "head3"}))
	if s := testkit.Value(c.Snapshot(t.Context()))(t); s.Superseded != first {
		t.Errorf("it is superseded by %+v", s.Superseded)
	}
}
