package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
)

// The journal is rewritten many times during a hundred switches. Replicas, times and old handles survive that.
func TestTheJournalIsShortenedWithoutLosingWhatIsRetained(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.s.journal.limit = 0
	o.WriteFile("etc/mine", "mine")
	old := o.Handle("etc/a")
	n := 2
	for ; n < 100; n++ {
		o.s.journal.limit = min(o.s.journal.limit, 4096)
		next := slices.Clone(v2)
		next[1] = f("etc/a", fmt.Sprint("edition ", n))
		o.to(m.Version(t, n, next))
	}
	size := o.s.journal.log.Size()
	etc, same := o.Stat("etc").Ctime, o.Stat("same").Ctime
	tree := o.Dump()
	if versions, _ := o.s.Pinned(anyNode); len(versions) != 99 {
		t.Errorf("%d versions are in use, want 99", len(versions))
	}
	o.restart()
	if diff := cmp.Diff(tree, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	if o.Stat("etc").Ctime != etc || o.Stat("same").Ctime != same {
		t.Error("times have changed by the restart")
	}
	if got := o.ReadAll(old); got != "a1" {
		t.Errorf("a handle of 98 switches ago: %q", got)
	}
	if size > 200_000 {
		t.Errorf("the journal has %d bytes", size)
	}
}

func TestHistoryBeyondTheRetentionIsForgottenAndTimesOnlyGrow(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.s.Close()
	clock := time.Now()
	o.opts.Now = func() time.Time { return clock }
	o.opts.RetainFor, o.opts.RetainSwitches = time.Hour, 4
	o.open()
	before := map[string]image.Time{}
	times := func() {
		t.Helper()
		for _, p := range []string{"", "etc", "etc/b", "same", "same/f", "opt/app"} {
			c := image.Time(o.Stat(p).Ctime)
			if b := before[p]; c.Sec < b.Sec || c.Sec == b.Sec && c.Nsec < b.Nsec {
				t.Errorf("%s: ctime %v was %v", p, c, b)
			}
			before[p] = c
		}
	}
	old := o.Handle("etc/a")
	for n := 2; n < 20; n++ {
		clock = clock.Add(time.Minute)
		next := slices.Clone(v1)
		next[1] = f("etc/a", fmt.Sprint("edition ", n))
		o.to(m.Version(t, n, next))
		times()
		if n%5 == 0 {
			o.restart()
			times()
		}
	}
	if got := o.ReadAll(old); got != "error: stale file handle" {
		t.Errorf("a handle beyond the retention: %q", got)
	}
	if list, _ := o.s.Pinned(anyNode); len(list) > 5 {
		t.Errorf("%d versions are in use", len(list))
	}
}
