// Package vfstest is the battery that every vfs.FS passes. Each operation, each error and each rule of the contract
// is a sub-test whose name is a sentence.
//
// A case starts from a seed, a list of entries that must exist. The implementation under test makes them: for a
// plain directory system calls do, a replica may have them in its version, in its layer, or some in each (see
// Split), and must pass the same cases in all three ways.
//
//	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS { … })
//
// Each case has a tree of its own, and depends on the seed only. Cases do not compare times with the clock of the
// machine, do not expect an order of a listing, and accept several errors where POSIX allows them. A case calls the
// tree only through vfs.FS and must not know what is behind it.
package vfstest

import (
	"testing"

	"dim/internal/vfs"
)

// Entry is an object that exists when a case starts.
type Entry struct {
	Path    string // slash-separated, relative to the root; an entry follows its directory
	Type    vfs.Type
	Mode    uint32 // not for symbolic links
	UID     uint32
	GID     uint32
	Mtime   vfs.Time
	Content string // of a regular file
	Size    uint64 // of a regular file if larger than Content: the rest is a hole
	Target  string // of a symbolic link
	Major   uint32 // of a device
	Minor   uint32
	LinkTo  string            // if set, Path is a further name of this earlier entry, and all other fields are empty
	Xattrs  map[string]string // user.* only
}

// Make returns a new tree that has exactly the entries of the seed. Its root directory belongs to root and has mode
// 0755. Make releases the tree with t.Cleanup, and may skip a case whose seed it cannot make.
type Make func(t *testing.T, seed []Entry) vfs.FS

// Run runs every case for writable trees.
func Run(t *testing.T, make Make) {
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"attributes", attrCases()},
		{"setattr", setAttrCases()},
		{"privileges", privilegeCases()},
		{"times", timeCases()},
		{"permissions", permissionCases()},
		{"sticky", stickyCases()},
		{"names", nameCases()},
		{"create", createCases()},
		{"special files", specialCases()},
		{"remove", removeCases()},
		{"links", linkCases()},
		{"rename", renameCases()},
		{"rename refused", renameRefusedCases()},
		{"data", dataCases()},
		{"readdir", readDirCases()},
		{"changes", changeCases()},
		{"handles", handleCases()},
		{"concurrency", concurrencyCases()},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) { runCases(t, make, g.cases) })
	}
}

// RunReadOnly runs the cases for read-only trees: each change is EROFS, all other calls work.
func RunReadOnly(t *testing.T, make Make) {
	runCases(t, make, attrCases())
	runCases(t, make, readOnlyCases())
}

// testCase is one sub-test. Its name says what must be true.
type testCase struct {
	name string
	seed []Entry
	run  func(t *tree)
}

func runCases(t *testing.T, make Make, cases []testCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(&tree{T: t, FS: make(t, c.seed)})
		})
	}
}
