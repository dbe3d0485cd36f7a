package vfstest

import (
	"slices"

	"dim/internal/vfs"
)

// changeCases are about the Change that a call returns: the attributes before and after it.
func changeCases() []testCase { return slices.Concat(directoryChangeCases(), otherChangeCases()) }

func directoryChangeCases() []testCase {
	seed := []Entry{
		dir("d", 0o777, owner{}), file("d/f", 0o644, owner{}, "abc"), dir("e", 0o777, owner{}),
		dir("d/sub", 0o755, owner{}), file("d/g", 0o600, owner{}, ""),
	}
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	inD := func(call func(t *tree, d vfs.Handle) (vfs.Change, error)) func(t *tree) {
		return func(t *tree) {
			before := t.attr("d")
			ch, err := call(t, t.h("d"))
			t.ok(err, "call")
			t.isChange(ch, before, t.attr("d"))
		}
	}
	onF := func(call func(t *tree, f vfs.Handle) (vfs.Change, error)) func(t *tree) {
		return func(t *tree) {
			before := t.attr("d/f")
			ch, err := call(t, t.h("d/f"))
			t.ok(err, "call")
			t.isChange(ch, before, t.attr("d/f"))
		}
	}
	made := func(m vfs.Made, err error) (vfs.Change, error) { return m.Dir, err }
	return []testCase{
		{"of create", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			return made(t.Create(root(), d, "n", &vfs.Create{Mode: vfs.Guarded, Attr: s}))
		})},
		{"of mkdir", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			return made(t.Mkdir(root(), d, "n", &s))
		})},
		{"of symlink", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			return made(t.Symlink(root(), d, "n", "target", &vfs.SetAttr{}))
		})},
		{"of mknod", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			return made(t.Mknod(root(), d, "n", &vfs.Node{Type: vfs.FIFO}, &s))
		})},
		{"of link", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			lc, err := t.Link(root(), t.h("d/f"), d, "n")
			t.same("the file's attributes", lc.Attr, t.attr("d/f"))
			return lc.Dir, err
		})},
		{"of remove", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) { return t.Remove(root(), d, "f") })},
		{"of rmdir", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) { return t.Rmdir(root(), d, "sub") })},
		{"of rename in one directory", seed, inD(func(t *tree, d vfs.Handle) (vfs.Change, error) {
			rc, err := t.Rename(root(), d, "f", d, "g")
			t.same("both", rc.From, rc.To)
			return rc.From, err
		})},
		{"of rename between two directories", seed, func(t *tree) {
			d, e := t.attr("d"), t.attr("e")
			rc, err := t.Rename(root(), t.h("d"), "sub", t.h("e"), "sub")
			t.ok(err, "rename")
			t.isChange(rc.From, d, t.attr("d"))
			t.isChange(rc.To, e, t.attr("e"))
		}},
		{"of setattr", seed, onF(func(t *tree, f vfs.Handle) (vfs.Change, error) { return t.SetAttr(root(), f, &s) })},
	}
}

func otherChangeCases() []testCase {
	seed := []Entry{
		dir("d", 0o777, owner{}), file("d/f", 0o644, owner{}, "abc"), dir("e", 0o777, owner{}),
		dir("d/sub", 0o755, owner{}), file("d/g", 0o600, owner{}, ""),
	}
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	onF := func(call func(t *tree, f vfs.Handle) (vfs.Change, error)) func(t *tree) {
		return func(t *tree) {
			before := t.attr("d/f")
			ch, err := call(t, t.h("d/f"))
			t.ok(err, "call")
			t.isChange(ch, before, t.attr("d/f"))
		}
	}
	made := func(m vfs.Made, err error) (vfs.Change, error) { return m.Dir, err }
	return []testCase{
		{"of a new size", seed, onF(func(t *tree, f vfs.Handle) (vfs.Change, error) {
			return t.SetAttr(root(), f, &vfs.SetAttr{Valid: vfs.SetSize, Size: 100})
		})},
		{"of write", seed, onF(func(t *tree, f vfs.Handle) (vfs.Change, error) {
			return t.Write(root(), f, []byte("12345"), 1, vfs.FileSync)
		})},
		{"a refused call returns a Change that is invalid or empty", seed, func(t *tree) {
			before := t.attr("d")
			none := func(ch vfs.Change, err error) {
				t.Helper()
				if err == nil {
					t.Error("no error")
				}
				if ch.Valid && (ch.Before != brief(before) || ch.After != before) {
					t.Errorf("got %+v", ch)
				}
			}
			d := t.h("d")
			none(t.Remove(root(), d, "none"))
			none(t.Rmdir(root(), d, "f"))
			none(made(t.Mkdir(root(), d, "f", &s)))
			none(made(t.Create(root(), d, "f", &vfs.Create{Mode: vfs.Guarded})))
			none(t.SetAttr(bob(), d, &s))
			t.same("attributes", t.attr("d"), before)
		}},
		{"a failed guard returns the present attributes", seed, func(t *tree) {
			ch, err := t.SetAttr(root(), t.h("d/f"), &vfs.SetAttr{Valid: vfs.SetMode, Guard: &vfs.Time{Sec: 1}})
			t.fails(err, vfs.EAGAIN)
			if ch.Valid {
				t.same("attributes", ch.After, t.attr("d/f"))
			}
		}},
	}
}

func brief(a vfs.Attr) vfs.Brief { return vfs.Brief{Size: a.Size, Mtime: a.Mtime, Ctime: a.Ctime} }

func (t *tree) isChange(ch vfs.Change, before, after vfs.Attr) {
	t.Helper()
	t.same("valid", ch.Valid, true)
	t.same("before", ch.Before, brief(before))
	t.same("after", ch.After, after)
	t.later("ctime", ch.Before.Ctime, ch.After.Ctime)
}
