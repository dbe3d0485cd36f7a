package vfstest

import (
	"testing"

	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
)

// The tests of this file run the battery on a plain directory: what fails here is an error of the battery.
func TestADirectoryPasses(t *testing.T) {
	testkit.NeedRoot(t, "the battery acts for several users")
	Run(t, func(t *testing.T, seed []Entry) vfs.FS { return written(t, seed, dirfs.Options{}) })
}

func TestADirectoryPassesReadOnly(t *testing.T) {
	testkit.NeedRoot(t, "the battery acts for several users")
	RunReadOnly(t, func(t *testing.T, seed []Entry) vfs.FS { return written(t, seed, dirfs.Options{ReadOnly: true}) })
}

func TestADirectoryPassesWithSeedsMadeByPopulate(t *testing.T) {
	testkit.NeedRoot(t, "the battery acts for several users")
	Run(t, func(t *testing.T, seed []Entry) vfs.FS {
		fs := written(t, nil, dirfs.Options{NoSync: true})
		Populate(t, fs, seed)
		return fs
	})
}

func TestADirectoryPassesWithSplitSeeds(t *testing.T) {
	testkit.NeedRoot(t, "the battery acts for several users")
	Run(t, func(t *testing.T, seed []Entry) vfs.FS {
		first, second := Split(seed)
		fs := written(t, first, dirfs.Options{NoSync: true})
		Populate(t, fs, second)
		return fs
	})
}

func written(t *testing.T, seed []Entry, opt dirfs.Options) vfs.FS {
	dir := t.TempDir()
	WriteDir(t, dir, seed)
	fs, err := dirfs.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}
