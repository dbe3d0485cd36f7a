package serving

import (
	"context"
	"strings"
	"testing"
	"time"

	"dim/internal/coord"
	"dim/internal/testkit"
)

// missing makes a site whose nodes show version 1 and are to show version 2, which has not arrived.
func missing(t *testing.T) *site {
	t.Helper()
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	testkit.Must(t, s.Store.RemoveVersion(s.compute[1].Ref()))
	s.declare(2, nil)
	s.reconcile()
	if s.shows("n01") != 1 || s.Waits(s.compute[1]) || s.problem("n01") != "" {
		t.Fatalf("n01 shows %d, and waits: %v; its problem: %q",
			s.shows("n01"), s.Waits(s.compute[1]), s.problem("n01"))
	}
	return s
}

func TestABootGetsAVersionThatIsArriving(t *testing.T) {
	s := missing(t)
	s.arriving.wait = time.Hour
	begun := make(chan bool)
	go func() {
		s.Begin(t.Context(), s.named("n01"))
		close(begun)
	}()
	testkit.Eventually(t, "the version is wanted", func() bool { return s.Waits(s.compute[1]) })
	s.reconcile() // something else was declared
	s.partial.Store(&s.compute[1])
	s.reconcile() // its trees are here
	<-begun
	if got := [...]int{s.shows("n01"), s.shows("n02")}; got != [...]int{2, 1} || s.Waits(s.compute[1]) {
		t.Errorf("n01 and n02 show %v, and a boot waits: %v", got, s.Waits(s.compute[1]))
	}
	if s.reconcile(); s.shows("n01") != 2 || s.problem("n01") != "" {
		t.Errorf("after that n01 shows %d; its problem: %q", s.shows("n01"), s.problem("n01"))
	}
}

func TestABootThatHasWaitedGetsTheVersionBeforeAndAProblemSaysSo(t *testing.T) {
	s := missing(t)
	s.arriving.wait = time.Millisecond
	s.Begin(t.Context(), s.named("n01"))
	for range 2 {
		if s.shows("n01") != 1 || !strings.Contains(s.problem("n01"), "compute@2") || s.problem("n02") != "" {
			t.Errorf("n01 shows %d; the problems of n01 and n02: %q, %q",
				s.shows("n01"), s.problem("n01"), s.problem("n02"))
		}
		s.reconcile()
	}
	testkit.Value(s.Store.AddVersion(s.compute[1]))(t)
	if s.reconcile(); s.shows("n01") != 2 || s.problem("n01") != "" {
		t.Errorf("when the version is here n01 shows %d; its problem: %q", s.shows("n01"), s.problem("n01"))
	}
}

func TestABootThatIsNotAskedForAnyMoreDoesNotWait(t *testing.T) {
	s := missing(t)
	s.arriving.wait = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s.Begin(ctx, s.named("n01")); s.shows("n01") != 1 || s.problem("n01") != "" || s.Waits(s.compute[1]) {
		t.Errorf("n01 shows %d; its problem: %q", s.shows("n01"), s.problem("n01"))
	}
	s.declare(1, nil) // what was late is not to be shown any more
	s.arriving.setLate("n01", s.compute[1])
	if s.reconcile(); s.problem("n01") != "" {
		t.Errorf("its problem: %q", s.problem("n01"))
	}
}

func TestANodeThatWasToChangeAtItsBootChangesAtTheNextOne(t *testing.T) {
	s := missing(t)
	s.declare(1, func(now *coord.State) { now.Next["n01"] = ref(2) })
	s.arriving.wait = time.Millisecond
	s.Begin(t.Context(), s.named("n01"))
	for range 2 {
		if s.shows("n01") != 1 || !strings.Contains(s.problem("n01"), "at its next boot") {
			t.Errorf("n01 shows %d; its problem: %q", s.shows("n01"), s.problem("n01"))
		}
		s.reconcile()
	}
	testkit.Value(s.Store.AddVersion(s.compute[1]))(t)
	if s.reconcile(); s.shows("n01") != 1 || s.problem("n01") != "" {
		t.Errorf("when the version is here n01 shows %d; its problem: %q", s.shows("n01"), s.problem("n01"))
	}
	if s.Begin(t.Context(), s.named("n01")); s.shows("n01") != 2 {
		t.Errorf("after the next boot n01 shows %d", s.shows("n01"))
	}
}
