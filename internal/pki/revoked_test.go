package pki

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/testkit"
)

func TestAServerLearnsFromAnAnswerThatItsIdentityHasEnded(t *testing.T) {
	h := http.Header{}
	if e := EndedIn(h); e != nil {
		t.Errorf("an answer without it: %v", e)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	(&RevokedError{Name: "is1", Time: at}).SetHeader(h)
	if e := EndedIn(h); e == nil || !e.Time.Equal(at) {
		t.Errorf("it has ended at %v: %v", at, e)
	}
	if e := EndedIn(h); e.Head != "" || e.Proof != "" {
		t.Errorf("the head %q goes on", e.Head)
	}
	h.Set(revokedHeader, "yesterday")
	if e := EndedIn(h); e == nil || !e.Time.IsZero() ||
		e.Error() != "by what it knows, the identity of this server has ended" {
		t.Errorf("a time that is none: %v", e)
	}
}

func TestOnlyAHeadCanProveThatItGoesOn(t *testing.T) {
	authority := func() *Authority {
		data := filepath.Join(t.TempDir(), "data")
		testkit.Value(Init(data))(t)
		return testkit.Value(Open(data))(t).Authority()
	}
	heads, others := authority(), authority()
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	proof := testkit.Value(heads.ProveEnd("id", "head", at))(t)
	h := http.Header{}
	(&RevokedError{Name: "head2", Time: at, Head: "head", Proof: proof}).SetHeader(h)
	e := EndedIn(h)
	if !heads.Proves(e, "id") {
		t.Errorf("%+v is no proof", e)
	}
	if heads.Proves(e, "id2") || others.Proves(e, "id") {
		t.Error("it proves more")
	}
	for _, change := range []func(*EndedError){
		func(e *EndedError) { e.Head = "head3" },
		func(e *EndedError) { e.Time = e.Time.Add(time.Second) },
		func(e *EndedError) { e.Proof = e.Proof[4:] },
		func(e *EndedError) { e.Proof = "" },
	} {
		changed := *e
		if change(&changed); heads.Proves(&changed, "id") {
			t.Errorf("%+v is a proof", changed)
		}
	}
}
