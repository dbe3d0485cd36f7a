package replicate

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

func TestFewAnswersArePackedAtATime(t *testing.T) {
	const askers = 100
	s := newSharedAnswers()
	var packing, most, kept atomic.Int64
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() {
			want := fmt.Sprint("answer ", i)
			pack := func(_ context.Context, to *bytes.Buffer) (bool, error) {
				now := packing.Add(1)
				defer packing.Add(-1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				runtime.Gosched()
				to.Grow(1 << 20)
				to.WriteString(want)
				return true, nil
			}
			b, err := s.get(t.Context(), image.Sum([]byte(want)), pack)
			if testkit.Must(t, err); string(b) != want {
				t.Errorf("got %q, want %q", b, want)
			}
			kept.Add(int64(cap(b)))
		})
	}
	all.Wait()
	if n := most.Load(); n > int64(runtime.GOMAXPROCS(0)) {
		t.Errorf("%d answers were packed at a time", n)
	}
	if n := kept.Load(); n > askers*64 {
		t.Errorf("%d answers of 10 bytes take %d bytes", askers, n)
	}
	if b, ok := s.lookup(image.Sum([]byte("answer 7"))); !ok || string(b) != "answer 7" {
		t.Errorf("kept is %q", b)
	}
}
