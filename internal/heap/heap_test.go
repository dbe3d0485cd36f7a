package heap

import (
	"slices"
	"testing"
)

func TestMemoryIsReleasedWhenTheServerIsIdle(t *testing.T) {
	var m use
	var now uint64
	var released []int
	for i, mb := range []uint64{
		60, 0, // a version was read, then the server is idle
		0, 0, 0, // nothing is released twice
		20, 20, 20, 1, // a boot of many nodes, and its end
		1, 1, 1, 1, 1, 1, 1, 1, // small allocations add up
		2, 2, 2, 2, 2, // a server that is a little busy releases nothing
	} {
		now += mb << 20
		if m.releaseNow(now) {
			released = append(released, i)
		}
	}
	if want := []int{1, 8, 16}; !slices.Equal(released, want) {
		t.Errorf("memory was released at %v, want %v", released, want)
	}
}

func TestAllocatedBytesCountsAllocations(t *testing.T) {
	before := allocatedBytes()
	b := make([]byte, 4<<20)
	if got := allocatedBytes() - before; got < uint64(len(b)) {
		t.Errorf("%d of %d bytes were counted", got, len(b))
	}
}
