package nfs

import (
	"math"
	"testing"

	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

func TestTimesOutsideOfNFSHaveNoFraction(t *testing.T) {
	for _, tt := range []struct{ in, want vfs.Time }{
		{vfs.Time{Sec: 0, Nsec: 5}, vfs.Time{Sec: 0, Nsec: 5}},
		{vfs.Time{Sec: -1, Nsec: 750_000_000}, vfs.Time{}},
		{vfs.Time{Sec: math.MaxUint32, Nsec: 7}, vfs.Time{Sec: math.MaxUint32, Nsec: 7}},
		{vfs.Time{Sec: math.MaxUint32 + 1, Nsec: 7}, vfs.Time{Sec: math.MaxUint32}},
	} {
		var p [8]byte
		putTime(p[:], &tt.in)
		d := oncrpc.NewDecoder(p[:])
		if got := decodeTime(&d); got != tt.want {
			t.Errorf("%+v becomes %+v, want %+v", tt.in, got, tt.want)
		}
	}
}
