package replica

import (
	"errors"
	"strings"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// damaged is a source that has lost a tree.
type damaged struct {
	Source
	lost image.Digest
}

var errDamagedTree = errors.New("the tree is damaged")

func (d damaged) Tree(digest image.Digest) (image.Tree, error) {
	if digest == d.lost {
		return nil, errDamagedTree
	}
	return d.Source.Tree(digest)
}

func (d damaged) TreeInto(digest image.Digest, room image.Tree) (image.Tree, error) {
	if digest == d.lost {
		return nil, errDamagedTree
	}
	return d.Source.TreeInto(digest, room)
}

func TestWhatIsBelowADamagedTreeFailsAlone(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	v := m.Version(t, 1, v1)
	o := newSite(t, v, m)
	o.Want("etc/a", "a1")
	file, _, err := o.Find("etc/a")
	testkit.Must(t, err)
	etc, _, err := o.Find("etc")
	testkit.Must(t, err)
	testkit.Must(t, o.s.Close())

	top := testkit.Value(m.Tree(v.Root.Digest))(t)
	dir, _ := top.Lookup("etc")
	o.opts.Source = damaged{m, dir.Digest}
	o.s = testkit.Value(Open(o.opts))(t)
	r := testkit.Value(o.s.Attach(o.spec))(t)
	super := &vfs.Cred{}
	var a vfs.Attr
	if _, err := r.Lookup(super, r.Root(), "etc", &a); err != nil {
		t.Errorf("the directory itself: %v", err)
	}
	for what, call := range map[string]func() error{
		"lookup": func() error { _, err := r.Lookup(super, etc, "a", &a); return err },
		"list": func() error {
			_, err := r.ReadDir(super, etc, 0, 0, func(*vfs.DirEntry) bool { return true })
			return err
		},
		"create":  func() error { _, err := r.Mkdir(super, etc, "new", &vfs.SetAttr{}); return err },
		"a file":  func() error { return r.Attr(file, &a) },
		"a write": func() error { _, err := r.Write(super, file, []byte("x"), 0, 0); return err },
		"move":    func() error { _, err := r.Rename(super, r.Root(), "etc", r.Root(), "moved"); return err },
	} {
		if err := call(); !errors.Is(err, vfs.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.Rmdir(super, r.Root(), "etc"); !errors.Is(err, vfs.ENOTEMPTY) {
		t.Errorf("rmdir: %v", err)
	}
	if _, err := r.Mkdir(super, r.Root(), "own", &vfs.SetAttr{}); err != nil {
		t.Errorf("beside it: %v", err)
	}
	if list := o.s.LostDirs(); len(list) != 1 || !strings.Contains(list[0], "/etc is lost: the tree is damaged") {
		t.Errorf("what is told: %q", list)
	}
}
