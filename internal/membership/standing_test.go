package membership

import (
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/pki"
)

func TestAProofDoesNotCountOnceItsHeadHasEnded(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ended := &pki.EndedError{Time: at, Head: "head"}
	for name, tt := range map[string]struct {
		server string
		time   time.Time
		want   bool
	}{
		"the same head, later":   {"head", at.Add(time.Hour), true},
		"in the same second":     {"head", at, true},
		"a former one, replaced": {"head", at.Add(-time.Hour), false},
		"another head":           {"head3", at.Add(time.Hour), false},
	} {
		s := coord.State{Revoked: map[string]coord.Revocation{"id": {Server: tt.server, Time: tt.time}}}
		if got := overruled(s, ended); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
