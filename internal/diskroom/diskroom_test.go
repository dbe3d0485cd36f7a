package diskroom

import (
	"os"
	"testing"

	"dim/internal/testkit"
)

func TestReserve(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name          string
		size, percent uint64
		want          uint64
	}{
		{"none", 1 << 40, 0, 0},
		{"a part of a large disk", 100 << 30, 5, 5 << 30},
		{"the least of a small one", 4 << 30, 5, 256 * mib},
		{"an eighth of a tiny one", 800 * mib, 5, 100 * mib},
	} {
		if got, files := Reserve(c.size, 1000, c.percent); got/mib != c.want/mib || files != 10*c.percent {
			t.Errorf("%s: %d MiB and %d inodes, want %d MiB", c.name, got/mib, files, c.want/mib)
		}
	}
}

func TestLacks(t *testing.T) {
	for _, c := range []struct {
		room Room
		n    uint64
		want string
	}{
		{Room{Free: 10 << 20, Reserve: 5 << 20}, 5 << 20, ""},
		{Room{Free: 10 << 20, Reserve: 5 << 20}, 5<<20 + 1, "10 MB are free, and the reserve is 5 MB"},
		{Room{Free: 4 << 20, Reserve: 5 << 20}, 0, "4 MB are free, and the reserve is 5 MB"},
		{Room{Inodes: 100, FreeInodes: 5, LeastInodes: 5}, 0, "5 inodes are free, and the reserve is 5"},
		{Room{Inodes: 100, FreeInodes: 6, LeastInodes: 5}, 0, ""},
		{Room{}, 0, ""}, // no count of inodes
	} {
		if got := c.room.Lacks(c.n); got != c.want {
			t.Errorf("%+v: %q, want %q", c.room, got, c.want)
		}
	}
	f := testkit.Value(os.Open(t.TempDir()))(t)
	defer f.Close()
	if r := testkit.Value(Look(int(f.Fd()), 5))(t); r.Free == 0 || r.Reserve == 0 {
		t.Errorf("this disk: %+v", r)
	}
}
