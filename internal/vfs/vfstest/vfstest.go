// Package vfstest is the battery that every vfs.FS passes: each operation, each error, each rule of the
// contract as a sub-test whose name is a sentence.
//
// A case starts from a seed, a list of entries that must exist before. How they come to exist is up
// to the implementation under test: a plain directory writes them with system calls, a replica
// may take them from its version, from its layer, or (see Split) some from each, and must pass the
// same cases either way:
//
//	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS { … })
//
// Cases rely on the seed alone; each gets a tree of its own. They never compare with the clock of
// the machine, never assume an order of a listing, and accept each of several errors where POSIX
// leaves the choice. A case calls the tree only through vfs.FS and must not know what is behind it.
package vfstest

import (
	"testing"

	"dim/internal/vfs"
)

// Entry is something that exists when a case starts.
type Entry struct {
	Path    string // slash-separated, relative to the root; an entry comes after its directory
	Type    vfs.Type
	Mode    uint32 // not for symbolic links
	UID     uint32
	GID     uint32
	Mtime   vfs.Time
	Content string // of a regular file
	Size    uint64 // of a regular file when larger than Content: the rest is a hole
	Target  string // of a symbolic link
	Major   uint32 // of a device
	Minor   uint32
	LinkTo  string            // when set, Path is a further name of this earlier entry and the rest is empty
	Xattrs  map[string]string // user.* only
}

// Make returns a new tree that holds exactly the seed. Its root directory belongs to root with mode 0755. It
// releases what it acquires with t.Cleanup, and may skip a case whose seed it cannot make.
type Make func(t *testing.T, seed []Entry) vfs.FS

// Run runs every case for trees that can be written to.
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

// RunReadOnly runs the cases for trees that nobody can change: each change is EROFS, all else works.
func RunReadOnly(t *testing.T, make Make) {
	runCases(t, make, attrCases())
	runCases(t, make, readOnlyCases())
}

// testCase is one sub-test: its name says what must be so.
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
