package membership

import (
	"testing"
	"time"

	"dim/internal/coord/member"
)

func TestALearnerIsLateAfterTenMinutes(t *testing.T) {
	var h heads
	begin := time.Now()
	learner := &member.Status{ID: 1, Members: []member.Peer{{ID: 1, Name: "head"}, {ID: 2, Learner: true}}}
	for _, tt := range []struct {
		after time.Duration
		late  bool
	}{{0, false}, {learnerTime, false}, {learnerTime + time.Second, true}} {
		if late := h.note(learner, begin.Add(tt.after)); late[2] != tt.late || late[1] {
			t.Errorf("after %v the late ones are %v", tt.after, late)
		}
	}
	h.noteLate("head2")
	again := &member.Status{ID: 1, Members: []member.Peer{{ID: 1, Name: "head"}, {ID: 3, Learner: true}}}
	if late := h.note(again, begin.Add(time.Hour)); late[3] {
		t.Error("a learner that was added again is late at once")
	}
	if len(h.late) != 1 {
		t.Error("a head that was removed is forgotten before it votes")
	}
	votes := &member.Status{ID: 1, Members: []member.Peer{{ID: 1, Name: "head"}, {ID: 3, Name: "head2"}}}
	if h.note(votes, begin.Add(time.Hour)); len(h.late) != 0 || len(h.learning) != 0 {
		t.Errorf("when it votes it is still noted: %+v, %+v", h.late, h.learning)
	}
}

func TestHeadsNeedTheSameSeriesOfEtcd(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"3.7.3", "3.7.3", true}, {"3.7.0", "3.7.3", true}, {"3.6.3", "3.7.3", false}, {"4.7.3", "3.7.3", false},
		{"", "3.7.3", false}, {"3", "3.7.3", false}, {"3.7", "3.7.3", true},
	} {
		if got := sameSeries(tt.a, tt.b); got != tt.same {
			t.Errorf("%q and %q: %v", tt.a, tt.b, got)
		}
	}
}
