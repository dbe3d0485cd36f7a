package daemon

import (
	"slices"
	"testing"
)

func TestMemoryIsGivenBackWhenItIsCalm(t *testing.T) {
	var sea tide
	var now uint64
	var freed []int
	for i, mb := range []uint64{
		60, 0, // a version was read, and then it is calm
		0, 0, 0, // nothing is given back twice
		20, 20, 20, 1, // a storm, and its end
		1, 1, 1, 1, 1, 1, 1, 1, // what trickles adds up
		2, 2, 2, 2, 2, // and costs nothing while it is no trickle
	} {
		now += mb << 20
		if sea.out(now) {
			freed = append(freed, i)
		}
	}
	if want := []int{1, 8, 16}; !slices.Equal(freed, want) {
		t.Errorf("memory was given back at %v, want %v", freed, want)
	}
}

func TestWhatIsAllocatedIsSeen(t *testing.T) {
	before := allocated()
	b := make([]byte, 4<<20)
	if got := allocated() - before; got < uint64(len(b)) {
		t.Errorf("%d bytes were seen of %d", got, len(b))
	}
}
