package capture

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"dim/internal/image"
)

func FuzzNextDirent(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04abc\x00\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, buf []byte) {
		for len(buf) > 0 {
			e, rest, err := nextDirent(buf)
			if err != nil {
				return
			}
			if len(rest) >= len(buf) || len(e.name) >= len(buf) || e.cstr == nil {
				t.Fatalf("%d bytes left of %d, name %q", len(rest), len(buf), e.name)
			}
			buf = rest
		}
	})
}

func TestAStampIsOlderThanATime(t *testing.T) {
	s := stamp{ctimeSec: 5, ctimeNsec: 6}
	for _, tt := range []struct {
		t    time.Time
		want bool
	}{{time.Unix(5, 6), false}, {time.Unix(5, 7), true}, {time.Unix(4, 9), false}, {time.Unix(6, 0), true}} {
		if got := s.before(tt.t); got != tt.want {
			t.Errorf("before %v: %v", tt.t, got)
		}
	}
}

func TestTheStampOfAnOmittedDirectoryDoesNotDependOnItsContent(t *testing.T) {
	s := stamp{ino: 1, ctimeSec: 2, mtimeSec: 3, mode: unix.S_IFDIR | 0o1777, uid: 4, gid: 5, devMajor: 6}
	s.omit(flagOmitted)
	e := s.entry("tmp")
	want := image.Entry{Name: "tmp", Type: image.Directory, Mode: 0o1777, UID: 4, GID: 5, Nlink: 1}
	if d := cmp.Diff(want, e, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}
