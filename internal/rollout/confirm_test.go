package rollout

import (
	"testing"
	"time"

	"dim/internal/testkit"
)

func TestAConfirmationHoldsForTheRolloutsThatNodesFollow(t *testing.T) {
	s := newSite(3)
	first := testkit.Value(s.declare(2, Now, "123456789"))(t)
	second := testkit.Value(s.declare(3, Now, "2"))(t)
	confirm := func(at time.Time, nodes ...string) {
		t.Helper()
		s.apply(testkit.Value(Nodes(nodes).Confirm(s.state, at))(t))
	}
	check := func(id int, node string, want time.Time) {
		t.Helper()
		r := s.load(t, id)
		if got := r.ConfirmedAt(node); !got.Equal(want) {
			t.Errorf("rollout %d: %s is confirmed at %v, want %v", id, node, got, want)
		}
	}
	one, two := s.now.Add(time.Minute), s.now.Add(time.Hour)
	confirm(one, "n1", "n2", "n99")
	check(first.ID, "n1", one)
	check(first.ID, "n2", time.Time{}) // it follows another version
	check(first.ID, "n3", time.Time{})
	check(second.ID, "n2", one)
	confirm(two, "n1", "n2", "n3")
	confirm(one, "n4")
	check(first.ID, "n1", two)
	check(first.ID, "n3", two)
	check(first.ID, "n4", one)
	check(second.ID, "n2", two)
	if r := s.load(t, first.ID); len(r.Confirmed) != 2 {
		t.Errorf("%d confirmations are kept", len(r.Confirmed))
	}
}
