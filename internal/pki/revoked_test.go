package pki

import (
	"net/http"
	"testing"
	"time"
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
	h.Set(revokedHeader, "yesterday")
	if e := EndedIn(h); e == nil || !e.Time.IsZero() ||
		e.Error() != "by what it knows, the identity of this server has ended" {
		t.Errorf("a time that is none: %v", e)
	}
}
