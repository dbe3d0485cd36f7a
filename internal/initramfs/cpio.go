package initramfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// entry is one entry of an archive.
type entry struct {
	name  string // without a leading slash
	mode  uint32 // as in stat(2)
	rdev  [2]uint32
	bytes []byte // content of a file, or target of a symbolic link
}

// The types of stat(2) in an archive.
const (
	typeFile = 0o100000
	typeDir  = 0o040000
	typeLink = 0o120000
	typeChar = 0o020000
)

// archive collects the entries of a cpio archive.
type archive struct {
	entries map[string]entry
}

func newArchive() *archive { return &archive{entries: make(map[string]entry)} }

func (a *archive) add(e entry) {
	for dir := path.Dir(e.name); dir != "."; dir = path.Dir(dir) {
		if _, ok := a.entries[dir]; !ok {
			a.entries[dir] = entry{name: dir, mode: typeDir | 0o755}
		}
	}
	a.entries[e.name] = e
}

func (a *archive) dir(name string) { a.add(entry{name: name, mode: typeDir | 0o755}) }
func (a *archive) link(name, target string) {
	a.add(entry{name: name, mode: typeLink | 0o777, bytes: []byte(target)})
}
func (a *archive) char(name string, ma, mi uint32) {
	a.add(entry{name: name, mode: typeChar | 0o600, rdev: [2]uint32{ma, mi}})
}

func (a *archive) file(name string, perm fs.FileMode, content []byte) {
	a.add(entry{name: name, mode: typeFile | uint32(perm.Perm()), bytes: content})
}

// write writes the archive in the "newc" format of the kernel
// (Documentation/driver-api/early-userspace/buffer-format.rst). Entries are sorted, which puts directories before their
// entries. Times are zero and inode numbers are counted, so that the bytes depend on the content alone.
func (a *archive) write(w io.Writer) error {
	names := make([]string, 0, len(a.entries))
	for n := range a.entries {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, n := range names {
		if err := writeEntry(w, uint32(i+1), a.entries[n]); err != nil {
			return err
		}
	}
	return writeEntry(w, 0, entry{name: "TRAILER!!!"})
}

func writeEntry(w io.Writer, ino uint32, e entry) error {
	links := 1
	if e.mode&0o170000 == typeDir {
		links = 2
	}
	const headerSize = 110
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, e.mode, 0, 0, links, 0, len(e.bytes), 0, 0, e.rdev[0], e.rdev[1], len(e.name)+1, 0, e.name)
	if _, err := io.WriteString(w, head+padding(headerSize+len(e.name)+1)); err != nil {
		return err
	}
	if _, err := w.Write(e.bytes); err != nil {
		return err
	}
	_, err := io.WriteString(w, padding(len(e.bytes)))
	return err
}

// padding returns the bytes that extend n bytes to a multiple of four.
func padding(n int) string { return strings.Repeat("\x00", -n&3) }
