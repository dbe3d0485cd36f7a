package capture

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

// A file has one bound, however the master is captured. A file of a larger size is a hole.
func TestAFileHasOneBound(t *testing.T) {
	l := newLab(t)
	l.o.Dir = testkit.Value(os.MkdirTemp("/dev/shm", "dim"))(t) // ext4 has no larger file
	t.Cleanup(func() { os.RemoveAll(l.o.Dir) })
	l.write("large", "")
	testkit.Must(t, os.Truncate(l.path("large"), image.MaxFile+1))
	refused(t, "the directory", l, "large", "17592186044417 bytes are too many")

	archive := filepath.Join(t.TempDir(), "master.tar")
	f := testkit.Value(os.Create(archive))(t)
	testkit.Must(t, tar.NewWriter(f).WriteHeader(&tar.Header{Name: "large", Size: image.MaxFile + 1}))
	testkit.Must(t, f.Close())
	refused(t, "the archive", newLab(t).withMaster("tar:"+archive), "large", "17592186044417 bytes are too many")
}
