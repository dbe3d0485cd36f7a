package vfstest

import "dim/internal/vfs"

func removeCases() []testCase {
	seed := []Entry{
		file("f", 0o644, 0, 0, "x"), dir("empty", 0o755, 0, 0), dir("full", 0o755, 0, 0), file("full/f", 0o644, 0, 0, ""), symlink("l", "full"),
	}
	return []testCase{
		{"a removed file is gone from lookup and listing", seed, func(t *tree) {
			t.ok(t.remove(root(), "f"), "remove")
			t.gone("f")
			t.same("names", t.names("."), []string{"empty", "full", "l"})
			t.fails(t.remove(root(), "f"), vfs.ENOENT)
		}},
		{"every kind of file is removed", kinds(), func(t *tree) {
			for _, e := range kinds() {
				if e.Type == vfs.Directory {
					t.ok(t.rmdir(root(), e.Path), "rmdir %s", e.Path)
				} else {
					t.ok(t.remove(root(), e.Path), "remove %s", e.Path)
				}
				t.gone(e.Path)
			}
			t.same("names", t.names("."), []string(nil))
		}},
		{"remove does not take directories, nor rmdir anything else", seed, func(t *tree) {
			t.fails(t.remove(root(), "empty"), vfs.EISDIR)
			t.fails(t.remove(root(), "full"), vfs.EISDIR)
			t.fails(t.rmdir(root(), "f"), vfs.ENOTDIR)
			t.fails(t.rmdir(root(), "l"), vfs.ENOTDIR)
			t.same("names", t.names("."), []string{"empty", "f", "full", "l"})
		}},
		{"rmdir takes an empty directory and lowers nlink above", seed, func(t *tree) {
			n := t.attr(".").Nlink
			t.ok(t.rmdir(root(), "empty"), "rmdir")
			t.gone("empty")
			t.same("nlink", t.attr(".").Nlink, n-1)
		}},
		{"rmdir of a directory that is not empty is ENOTEMPTY", seed, func(t *tree) {
			t.fails(t.rmdir(root(), "full"), vfs.ENOTEMPTY, vfs.EEXIST)
			t.ok(t.remove(root(), "full/f"), "remove")
			t.create(root(), "full/new", 0o644)
			t.fails(t.rmdir(root(), "full"), vfs.ENOTEMPTY, vfs.EEXIST)
			t.ok(t.remove(root(), "full/new"), "remove")
			t.ok(t.rmdir(root(), "full"), "rmdir")
			t.gone("full")
		}},
		{"nothing is made in a removed directory", seed, func(t *tree) {
			h := t.h("empty")
			t.ok(t.rmdir(root(), "empty"), "rmdir")
			_, err := t.Create(root(), h, "n", &vfs.Create{Mode: vfs.Guarded})
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			_, err = t.Mkdir(root(), h, "n", &vfs.SetAttr{})
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			_, err = t.Rename(root(), t.Root(), "f", h, "n")
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			t.holds("f", "x")
		}},
		{"a name is removed and made again many times", seed, func(t *tree) {
			for range 10 {
				t.ok(t.remove(root(), "f"), "remove")
				t.gone("f")
				t.create(root(), "f", 0o644)
				t.holds("f", "")
			}
		}},
	}
}

func linkCases() []testCase {
	seed := []Entry{
		file("f", 0o644, aliceID, aliceID, "shared"), dir("d", 0o777, 0, 0), dir("e", 0o755, 0, 0), symlink("l", "f"), file("other", 0o644, 0, 0, ""),
		file("p1", 0o644, 0, 0, "pair"), hardLink("e/p2", "p1"),
	}
	return []testCase{
		{"another name is the same file", seed, func(t *tree) {
			lc, err := t.Link(alice(), t.h("f"), t.h("d"), "g")
			t.ok(err, "link")
			t.same("nlink", lc.Attr.Nlink, uint32(2))
			t.same("attributes", t.attr("d/g"), lc.Attr)
			t.same("handle", t.h("d/g") == t.h("f"), true)
			t.write(alice(), "d/g", "SH", 0)
			t.holds("f", "SHared")
		}},
		{"a file lives until its last name goes", seed, func(t *tree) {
			h := t.h("f")
			t.ok(t.link(root(), "f", "d/g"), "link")
			t.ok(t.remove(root(), "f"), "remove")
			t.gone("f")
			t.same("nlink", t.attrOf(h).Nlink, uint32(1))
			t.holds("d/g", "shared")
			t.ok(t.remove(root(), "d/g"), "remove")
			t.stale(h)
		}},
		{"a write through one name shows through names that were there before", seed, func(t *tree) {
			t.write(root(), "e/p2", "PA", 0)
			t.holds("p1", "PAir")
			t.same("attributes", t.attr("p1"), t.attr("e/p2"))
			t.same("nlink", t.attr("p1").Nlink, uint32(2))
			t.same("handle", t.h("p1") == t.h("e/p2"), true)
		}},
		{"a lost name leaves the others that were there before", seed, func(t *tree) {
			t.ok(t.remove(root(), "p1"), "remove")
			t.same("nlink", t.attr("e/p2").Nlink, uint32(1))
			t.holds("e/p2", "pair")
			t.write(root(), "e/p2", "PA", 0)
			t.holds("e/p2", "PAir")
		}},
		{"a third name joins two that were there before", seed, func(t *tree) {
			t.ok(t.link(root(), "e/p2", "d/p3"), "link")
			for _, p := range []string{"p1", "e/p2", "d/p3"} {
				t.same("nlink of "+p, t.attr(p).Nlink, uint32(3))
			}
			t.ok(t.rename(root(), "p1", "d/p1"), "rename")
			t.same("nlink", t.attr("d/p1").Nlink, uint32(3))
		}},
		{"a link over an existing name is EEXIST", seed, func(t *tree) {
			for _, name := range []string{"other", "d", "l", "f"} {
				t.fails(t.link(root(), "f", name), vfs.EEXIST)
			}
			t.same("nlink", t.attr("f").Nlink, uint32(1))
		}},
		{"a directory gets no second name", seed, func(t *tree) {
			t.fails(t.link(root(), "e", "d/e"), vfs.EPERM)
			t.gone("d/e")
		}},
		{"a symbolic link is linked itself", seed, func(t *tree) {
			t.ok(t.link(root(), "l", "d/l2"), "link")
			t.same("type", t.attr("d/l2").Type, vfs.Symlink)
			t.same("nlink", t.attr("l").Nlink, uint32(2))
		}},
		{"what was removed gets no new name", seed, func(t *tree) {
			h := t.h("f")
			t.ok(t.remove(root(), "f"), "remove")
			_, err := t.Link(root(), h, t.h("d"), "g")
			t.fails(err, vfs.ESTALE)
			t.gone("d/g")
		}},
		{"a file may have many names", seed, func(t *tree) {
			h, d := t.h("f"), t.h("d")
			for i := range 100 {
				_, err := t.Link(root(), h, d, string(rune('0'+i)))
				t.ok(err, "link %d", i)
			}
			t.same("nlink", t.attr("f").Nlink, uint32(101))
			t.same("names", len(t.names("d")), 100)
		}},
	}
}
