package bounds

import (
	"testing"
	"time"
)

func TestARateAllowsABurstAndThenOneAfterTheOther(t *testing.T) {
	r := Rate[string]{Every: time.Second, Burst: 3}
	now := time.Unix(1000, 0)
	count := func(key string) (n int) {
		for range 10 {
			if r.Allow(key, now) {
				n++
			}
		}
		return n
	}
	if n := count("a"); n != 3 {
		t.Errorf("%d at once, want 3", n)
	}
	if n := count("b"); n != 3 {
		t.Errorf("%d of another user, want 3", n)
	}
	now = now.Add(2 * time.Second)
	if n := count("a"); n != 2 {
		t.Errorf("%d two seconds later, want 2", n)
	}
	now = now.Add(time.Hour)
	if n := count("a"); n != 3 {
		t.Errorf("%d an hour later, want 3", n)
	}
}

func TestARateForgetsUsers(t *testing.T) {
	r := Rate[int]{Every: time.Second, Burst: 1}
	now := time.Unix(1000, 0)
	for i := range 100_000 {
		now = now.Add(10 * time.Millisecond)
		r.Allow(i, now)
	}
	if len(r.full) > 2*minSweep {
		t.Errorf("%d users are kept", len(r.full))
	}
}
