package vfstest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/vfs"
)

// The users of the cases. Alice and carol have the supplementary group team.
const (
	aliceID = 1000
	bobID   = 1001
	carolID = 1002
	team    = 2000
	other   = 3000
)

func root() *vfs.Cred  { return &vfs.Cred{} }
func alice() *vfs.Cred { return &vfs.Cred{UID: aliceID, GID: aliceID, Groups: []uint32{7, team}} }
func bob() *vfs.Cred   { return &vfs.Cred{UID: bobID, GID: bobID} }
func carol() *vfs.Cred { return &vfs.Cred{UID: carolID, GID: carolID, Groups: []uint32{team}} }

// tree is a test and its FS.
type tree struct {
	*testing.T
	vfs.FS
}

// ok fails the test at once if err is not nil.
func (t *tree) ok(err error, format string, args ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// fails fails the test unless err is one of want.
func (t *tree) fails(err error, want ...vfs.Errno) {
	t.Helper()
	if e, isErrno := err.(vfs.Errno); isErrno && slices.Contains(want, e) {
		return
	}
	t.Errorf("got error %v (%T), want %v", err, err, want)
}

// same fails the test unless got and want are equal.
func (t *tree) same(what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b vfs.Handle) bool { return a == b })); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// find looks up p as root. "." is the root directory.
func (t *tree) find(p string) (h vfs.Handle, a vfs.Attr, err error) {
	h = t.Root()
	if p == "." {
		return h, a, t.Attr(h, &a)
	}
	for _, name := range strings.Split(p, "/") {
		if h, err = t.Lookup(root(), h, name, &a); err != nil {
			return h, a, err
		}
	}
	return h, a, nil
}

// h returns the handle of the object at p, which must exist.
func (t *tree) h(p string) vfs.Handle {
	t.Helper()
	h, _, err := t.find(p)
	t.ok(err, "look up %q", p)
	return h
}

// attr returns the attributes of p.
func (t *tree) attr(p string) vfs.Attr {
	t.Helper()
	return t.attrOf(t.h(p))
}

func (t *tree) attrOf(h vfs.Handle) (a vfs.Attr) {
	t.Helper()
	t.ok(t.Attr(h, &a), "get attributes")
	return a
}

// missing fails the test unless p does not exist.
func (t *tree) missing(p string) {
	t.Helper()
	_, _, err := t.find(p)
	t.fails(err, vfs.ENOENT)
}

// stale fails the test unless h is stale, or of an object that is retained and has no name. It returns true for the
// latter.
func (t *tree) stale(h vfs.Handle) (retained bool) {
	t.Helper()
	var a vfs.Attr
	if err := t.Attr(h, &a); err != nil || a.Nlink != 0 {
		t.fails(err, vfs.ESTALE)
		return false
	}
	return true
}

func (t *tree) set(c *vfs.Cred, p string, s vfs.SetAttr) vfs.Change {
	t.Helper()
	ch, err := t.SetAttr(c, t.h(p), &s)
	t.ok(err, "set attributes of %q", p)
	return ch
}

func (t *tree) setFails(c *vfs.Cred, p string, s vfs.SetAttr, want ...vfs.Errno) {
	t.Helper()
	before := t.attr(p)
	_, err := t.SetAttr(c, t.h(p), &s)
	t.fails(err, want...)
	t.same("attributes after a refused change", t.attr(p), before)
}

// create makes an empty file.
func (t *tree) create(c *vfs.Cred, p string, mode uint32) vfs.Made {
	t.Helper()
	made, err := t.tryCreate(c, p, mode)
	t.ok(err, "create %q", p)
	return made
}

func (t *tree) tryCreate(c *vfs.Cred, p string, mode uint32) (vfs.Made, error) {
	t.Helper()
	how := vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}}
	return t.Create(c, t.h(path.Dir(p)), path.Base(p), &how)
}

func (t *tree) mkdir(c *vfs.Cred, p string, mode uint32) vfs.Made {
	t.Helper()
	made, err := t.Mkdir(c, t.h(path.Dir(p)), path.Base(p), &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode})
	t.ok(err, "mkdir %q", p)
	return made
}

func (t *tree) remove(c *vfs.Cred, p string) error {
	t.Helper()
	_, err := t.Remove(c, t.h(path.Dir(p)), path.Base(p))
	return err
}

func (t *tree) rmdir(c *vfs.Cred, p string) error {
	t.Helper()
	_, err := t.Rmdir(c, t.h(path.Dir(p)), path.Base(p))
	return err
}

func (t *tree) rename(c *vfs.Cred, from, to string) error {
	t.Helper()
	_, err := t.Rename(c, t.h(path.Dir(from)), path.Base(from), t.h(path.Dir(to)), path.Base(to))
	return err
}

func (t *tree) link(c *vfs.Cred, p, name string) error {
	t.Helper()
	_, err := t.Link(c, t.h(p), t.h(path.Dir(name)), path.Base(name))
	return err
}

func (t *tree) write(c *vfs.Cred, p, data string, off uint64) {
	t.Helper()
	_, err := t.Write(c, t.h(p), []byte(data), off, vfs.Unstable)
	t.ok(err, "write %q", p)
}

// content reads the file h in small pieces as root.
func (t *tree) content(h vfs.Handle) string {
	t.Helper()
	var b strings.Builder
	p := make([]byte, 1000)
	for {
		n, eof, err := t.Read(root(), h, p, uint64(b.Len()))
		t.ok(err, "read at %d", b.Len())
		b.Write(p[:n])
		if eof {
			return b.String()
		}
		if n < len(p) {
			t.Fatalf("read at %d: %d bytes of %d without end of file", b.Len(), n, len(p))
		}
	}
}

// hasContent fails the test unless the content of the file p is want.
func (t *tree) hasContent(p, want string) {
	t.Helper()
	if got := t.content(t.h(p)); got != want {
		t.Errorf("the content of %q is %.80q, want %.80q", p, got, want)
	}
}

// names returns the sorted names in p without "." and "..".
func (t *tree) names(p string) []string {
	t.Helper()
	var names []string
	end, err := t.ReadDir(root(), t.h(p), 0, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
		return true
	})
	t.ok(err, "list %q", p)
	if !end {
		t.Errorf("list %q: no end", p)
	}
	slices.Sort(names)
	return names
}

// later fails the test unless u is later than t0.
func (t *tree) later(what string, t0, u vfs.Time) {
	t.Helper()
	if !t0.Before(u) {
		t.Errorf("%s is not later: %v, then %v", what, t0, u)
	}
}
