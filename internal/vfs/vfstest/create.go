package vfstest

import (
	"slices"
	"strings"

	"dim/internal/vfs"
)

func createCases() []testCase { return slices.Concat(createFileCases(), createAgainCases()) }

func createFileCases() []testCase {
	seed := []Entry{file("f", 0o640, owner{aliceID, aliceID}, "content"), dir("d", 0o777, owner{}), symlink("l", "f")}
	guarded := vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}}
	return []testCase{
		{"a new file is empty and has the caller as owner and the wanted mode", seed, func(t *tree) {
			made := t.create(alice(), "d/n", 0o4751)
			a := made.Attr
			if a.Type != vfs.Regular || a.Mode != 0o4751 || a.UID != aliceID || a.GID != aliceID ||
				a.Size != 0 || a.Nlink != 1 {
				t.Errorf("got %+v", a)
			}
			t.same("handle", made.Handle == t.h("d/n"), true)
			t.same("attributes", t.attr("d/n"), a)
			t.same("names", t.names("d"), []string{"n"})
		}},
		{"guarded create of any existing name is EEXIST", seed, func(t *tree) {
			for _, name := range []string{"f", "d", "l"} {
				_, err := t.Create(root(), t.Root(), name, &guarded)
				t.fails(err, vfs.EEXIST)
			}
			t.hasContent("f", "content")
		}},
		{"unchecked create returns an existing file unchanged", seed, func(t *tree) {
			made, err := t.Create(alice(), t.Root(), "f", &vfs.Create{
				Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o777},
			})
			t.ok(err, "create")
			t.same("handle", made.Handle == t.h("f"), true)
			t.same("attributes", made.Attr, t.attr("f"))
			t.same("mode", made.Attr.Mode, uint32(0o640))
			t.hasContent("f", "content")
		}},
		{"unchecked create with a size truncates an existing file", seed, func(t *tree) {
			_, err := t.Create(alice(), t.Root(), "f", &vfs.Create{
				Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetSize, Size: 3},
			})
			t.ok(err, "create")
			t.hasContent("f", "con")
		}},
		{"unchecked create of a directory's name is refused", seed, func(t *tree) {
			_, err := t.Create(root(), t.Root(), "d", &vfs.Create{Mode: vfs.Unchecked})
			t.fails(err, vfs.EISDIR, vfs.EEXIST)
		}},
		{"unchecked create makes a file that does not exist", seed, func(t *tree) {
			_, err := t.Create(alice(), t.h("d"), "n", &vfs.Create{
				Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o604},
			})
			t.ok(err, "create")
			t.same("mode", t.attr("d/n").Mode, uint32(0o604))
		}},
		{"exclusive create repeated with its verifier is the same file", seed, func(t *tree) {
			how := vfs.Create{Mode: vfs.Exclusive, Verifier: [8]byte{1, 2, 3, 4, 0xff, 6, 7, 8}}
			one, err := t.Create(alice(), t.h("d"), "x", &how)
			t.ok(err, "create")
			two, err := t.Create(alice(), t.h("d"), "x", &how)
			t.ok(err, "create again")
			t.same("handle", one.Handle == two.Handle, true)
			t.same("owner", two.Attr.UID, uint32(aliceID))
		}},
	}
}

func createAgainCases() []testCase {
	seed := []Entry{file("f", 0o640, owner{aliceID, aliceID}, "content"), dir("d", 0o777, owner{}), symlink("l", "f")}
	return []testCase{
		{"exclusive create with another verifier is EEXIST", seed, func(t *tree) {
			_, err := t.Create(alice(), t.h("d"), "x", &vfs.Create{Mode: vfs.Exclusive, Verifier: [8]byte{1}})
			t.ok(err, "create")
			for _, v := range [][8]byte{{2}, {0, 0, 0, 0, 1}, {}} {
				_, err = t.Create(alice(), t.h("d"), "x", &vfs.Create{Mode: vfs.Exclusive, Verifier: v})
				t.fails(err, vfs.EEXIST)
			}
		}},
		{"exclusive create of an older file is EEXIST", seed, func(t *tree) {
			for _, name := range []string{"f", "d", "l"} {
				_, err := t.Create(root(), t.Root(), name, &vfs.Create{Mode: vfs.Exclusive, Verifier: [8]byte{9}})
				t.fails(err, vfs.EEXIST)
			}
		}},
		{"a removed name may be used for another object", seed, func(t *tree) {
			was := t.h("f")
			t.ok(t.remove(root(), "f"), "remove")
			made := t.create(root(), "f", 0o600)
			t.same("a new handle", made.Handle != was, true)
			t.hasContent("f", "")
			t.ok(t.remove(root(), "f"), "remove")
			t.mkdir(root(), "f", 0o755)
			t.same("names", t.names("f"), []string(nil))
		}},
		{
			"a new directory in the place of an old one is empty",
			[]Entry{dir("d", 0o755, owner{}), file("d/f", 0o644, owner{}, "x"), dir("d/e", 0o755, owner{})},
			func(t *tree) {
				t.ok(t.remove(root(), "d/f"), "remove")
				t.ok(t.rmdir(root(), "d/e"), "rmdir")
				t.ok(t.rmdir(root(), "d"), "rmdir")
				t.mkdir(root(), "d", 0o700)
				t.same("names", t.names("d"), []string(nil))
				t.missing("d/f")
			},
		},
		{"a new directory is empty and has the caller as owner and the wanted mode", seed, func(t *tree) {
			made := t.mkdir(bob(), "d/n", 0o1750)
			a := made.Attr
			if a.Type != vfs.Directory || a.Mode != 0o1750 || a.UID != bobID || a.GID != bobID || a.Nlink != 2 {
				t.Errorf("got %+v", a)
			}
			t.same("attributes", t.attr("d/n"), a)
			t.same("nlink above", t.attr("d").Nlink, uint32(3))
			t.same("names", t.names("d/n"), []string(nil))
		}},
		{"mkdir and symlink of an existing name are EEXIST", seed, func(t *tree) {
			for _, name := range []string{"f", "d", "l"} {
				_, err := t.Mkdir(root(), t.Root(), name, &vfs.SetAttr{})
				t.fails(err, vfs.EEXIST)
				_, err = t.Symlink(root(), t.Root(), name, "t", &vfs.SetAttr{})
				t.fails(err, vfs.EEXIST)
			}
		}},
	}
}

func specialCases() []testCase {
	seed := []Entry{dir("d", 0o777, owner{})}
	return []testCase{
		{"a symbolic link keeps any target", seed, func(t *tree) {
			for i, target := range []string{
				"x", "/abs/olute", "../..", "with\nnewline\xff", strings.Repeat("t/", 2047) + "t",
			} {
				name := string(rune('a' + i))
				made, err := t.Symlink(bob(), t.h("d"), name, target, &vfs.SetAttr{})
				t.ok(err, "symlink")
				a := made.Attr
				if a.Type != vfs.Symlink || a.UID != bobID || a.GID != bobID ||
					a.Size != uint64(len(target)) || a.Nlink != 1 {
					t.Errorf("got %+v", a)
				}
				got, err := t.Readlink(root(), t.h("d/"+name))
				t.ok(err, "readlink")
				t.same("target", got, target)
			}
		}},
		{"a symbolic link with an empty or too long target is refused", seed, func(t *tree) {
			_, err := t.Symlink(bob(), t.h("d"), "l", "", &vfs.SetAttr{})
			t.fails(err, vfs.ENOENT, vfs.EINVAL)
			_, err = t.Symlink(bob(), t.h("d"), "l", strings.Repeat("x", 5000), &vfs.SetAttr{})
			t.fails(err, vfs.ENAMETOOLONG)
			t.missing("d/l")
		}},
		{
			"symbolic links are never followed",
			[]Entry{dir("d", 0o755, owner{}), file("d/f", 0o644, owner{}, "x"), symlink("l", "d"), symlink("k", "d/f")},
			func(t *tree) {
				var a vfs.Attr
				_, err := t.Lookup(root(), t.h("l"), "f", &a)
				t.fails(err, vfs.ENOTDIR)
				_, err = t.Create(root(), t.h("l"), "n", &vfs.Create{})
				t.fails(err, vfs.ENOTDIR)
				t.fails(t.rmdir(root(), "l"), vfs.ENOTDIR)
				t.ok(t.remove(root(), "l"), "remove l")
				t.ok(t.remove(root(), "k"), "remove k")
				t.hasContent("d/f", "x")
			},
		},
		{"devices keep their numbers", seed, func(t *tree) {
			for i, n := range []vfs.Node{
				{Type: vfs.CharDevice, Major: 1, Minor: 5}, {Type: vfs.BlockDevice, Major: 8, Minor: 0},
				{Type: vfs.CharDevice, Major: 4095, Minor: 1<<20 - 1}, {Type: vfs.BlockDevice, Major: 259, Minor: 256},
			} {
				name := string(rune('a' + i))
				made, err := t.Mknod(root(), t.h("d"), name, &n, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o660})
				t.ok(err, "mknod")
				a := t.attr("d/" + name)
				t.same("attributes", made.Attr, a)
				t.same("device", vfs.Node{Type: a.Type, Major: a.Major, Minor: a.Minor}, n)
				t.same("mode", a.Mode, uint32(0o660))
			}
		}},
		{"FIFOs and sockets are made, linked and removed", seed, func(t *tree) {
			for _, typ := range []vfs.Type{vfs.FIFO, vfs.Socket} {
				made, err := t.Mknod(alice(), t.h("d"), "s", &vfs.Node{Type: typ}, &vfs.SetAttr{
					Valid: vfs.SetMode, Mode: 0o620,
				})
				t.ok(err, "mknod")
				t.same("type", made.Attr.Type, typ)
				t.same("mode", made.Attr.Mode, uint32(0o620))
				t.ok(t.link(alice(), "d/s", "d/s2"), "link")
				t.ok(t.remove(alice(), "d/s"), "remove")
				t.ok(t.remove(alice(), "d/s2"), "remove")
			}
		}},
		{"mknod makes no files, directories and links", seed, func(t *tree) {
			for _, typ := range []vfs.Type{vfs.Regular, vfs.Directory, vfs.Symlink, 0, 99} {
				_, err := t.Mknod(root(), t.h("d"), "n", &vfs.Node{Type: typ}, &vfs.SetAttr{})
				t.fails(err, vfs.EINVAL, vfs.EOPNOTSUPP)
			}
			t.missing("d/n")
		}},
		{"mknod of an existing name is EEXIST", []Entry{file("f", 0o644, owner{}, "")}, func(t *tree) {
			_, err := t.Mknod(root(), t.Root(), "f", &vfs.Node{Type: vfs.FIFO}, &vfs.SetAttr{})
			t.fails(err, vfs.EEXIST)
		}},
	}
}
