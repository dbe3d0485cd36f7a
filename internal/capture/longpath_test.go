package capture

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/testkit"
)

// A path has one bound, however the master is captured.
func TestAPathHasOneBound(t *testing.T) {
	testkit.NeedProgram(t, "tar")
	for _, tt := range []struct {
		length  int
		refused bool
	}{{4228, false}, {image.MaxPath, false}, {image.MaxPath + 1, true}} {
		l := newLab(t)
		path := makeDeep(t, l.o.Dir, tt.length)
		archive := filepath.Join(t.TempDir(), "master.tar")
		if out, err := exec.Command("tar", "-C", l.o.Dir, "-cf", archive, ".").CombinedOutput(); err != nil {
			t.Fatalf("tar: %v\n%s", err, out)
		}
		packed := newLab(t).withMaster("tar:" + archive)
		if tt.refused {
			refused(t, "the directory", l, "longer than 16383 bytes")
			refused(t, "the archive", packed, "too long: at most 16383")
			continue
		}
		for what, r := range map[string]image.Version{"dir": l.capture().Version, "tar": packed.capture().Version} {
			of := l
			if what == "tar" {
				of = packed
			}
			if of.entries(r)[path] == nil {
				t.Errorf("%s: the path of %d bytes is missing", what, tt.length)
			}
		}
	}
}

// makeDeep makes an empty file whose path has length bytes, and returns the path.
func makeDeep(t *testing.T, top string, length int) string {
	t.Helper()
	fd := testkit.Value(unix.Open(top, unix.O_DIRECTORY, 0))(t)
	var parts []string
	for left := length; left > 0; {
		name := strings.Repeat("d", min(200, left))
		if left -= len(name) + 1; left == 0 { // no name is empty
			name, left = name[1:], 1
		}
		parts = append(parts, name)
		if left < 0 {
			file := testkit.Value(unix.Openat(fd, name, unix.O_CREAT|unix.O_WRONLY, 0o644))(t)
			testkit.Must(t, unix.Close(file))
			break
		}
		testkit.Must(t, unix.Mkdirat(fd, name, 0o755))
		next := testkit.Value(unix.Openat(fd, name, unix.O_DIRECTORY, 0))(t)
		testkit.Must(t, unix.Close(fd))
		fd = next
	}
	testkit.Must(t, unix.Close(fd))
	t.Cleanup(func() { _ = exec.Command("rm", "-rf", filepath.Join(top, parts[0])).Run() })
	path := strings.Join(parts, "/")
	if len(path) != length {
		t.Fatalf("a path of %d bytes, want %d", len(path), length)
	}
	return path
}
