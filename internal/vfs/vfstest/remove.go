package vfstest

import "dim/internal/vfs"

func removeCases() []testCase {
	seed := []Entry{
		file("f", 0o644, owner{}, "x"), dir("empty", 0o755, owner{}), dir("full", 0o755, owner{}),
		file("full/f", 0o644, owner{}, ""), symlink("l", "full"),
	}
	return []testCase{
		{"a removed file is neither found nor listed", seed, func(t *tree) {
			t.ok(t.remove(root(), "f"), "remove")
			t.missing("f")
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
				t.missing(e.Path)
			}
			t.same("names", t.names("."), []string(nil))
		}},
		{"remove refuses directories and rmdir all else", seed, func(t *tree) {
			t.fails(t.remove(root(), "empty"), vfs.EISDIR)
			t.fails(t.remove(root(), "full"), vfs.EISDIR)
			t.fails(t.rmdir(root(), "f"), vfs.ENOTDIR)
			t.fails(t.rmdir(root(), "l"), vfs.ENOTDIR)
			t.same("names", t.names("."), []string{"empty", "f", "full", "l"})
		}},
		{"rmdir removes an empty directory and decrements nlink of the directory above", seed, func(t *tree) {
			n := t.attr(".").Nlink
			t.ok(t.rmdir(root(), "empty"), "rmdir")
			t.missing("empty")
			t.same("nlink", t.attr(".").Nlink, n-1)
		}},
		{"rmdir of a directory that is not empty is ENOTEMPTY", seed, func(t *tree) {
			t.fails(t.rmdir(root(), "full"), vfs.ENOTEMPTY, vfs.EEXIST)
			t.ok(t.remove(root(), "full/f"), "remove")
			t.create(root(), "full/new", 0o644)
			t.fails(t.rmdir(root(), "full"), vfs.ENOTEMPTY, vfs.EEXIST)
			t.ok(t.remove(root(), "full/new"), "remove")
			t.ok(t.rmdir(root(), "full"), "rmdir")
			t.missing("full")
		}},
		{"no object can be made in a removed directory", seed, func(t *tree) {
			h := t.h("empty")
			t.ok(t.rmdir(root(), "empty"), "rmdir")
			_, err := t.Create(root(), h, "n", &vfs.Create{Mode: vfs.Guarded})
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			_, err = t.Mkdir(root(), h, "n", &vfs.SetAttr{})
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			_, err = t.Rename(root(), t.Root(), "f", h, "n")
			t.fails(err, vfs.ESTALE, vfs.ENOENT)
			t.hasContent("f", "x")
		}},
		{"a name is removed and made again many times", seed, func(t *tree) {
			for range 10 {
				t.ok(t.remove(root(), "f"), "remove")
				t.missing("f")
				t.create(root(), "f", 0o644)
				t.hasContent("f", "")
			}
		}},
	}
}

func linkCases() []testCase {
	seed := []Entry{
		file("f", 0o644, owner{aliceID, aliceID}, "shared"), dir("d", 0o777, owner{}), dir("e", 0o755, owner{}),
		symlink("l", "f"), file("other", 0o644, owner{}, ""),
		file("p1", 0o644, owner{}, "pair"), hardLink("e/p2", "p1"),
	}
	return []testCase{
		{"another name leads to the same file", seed, func(t *tree) {
			lc, err := t.Link(alice(), t.h("f"), t.h("d"), "g")
			t.ok(err, "link")
			t.same("nlink", lc.Attr.Nlink, uint32(2))
			t.same("attributes", t.attr("d/g"), lc.Attr)
			t.same("handle", t.h("d/g") == t.h("f"), true)
			t.write(alice(), "d/g", "SH", 0)
			t.hasContent("f", "SHared")
		}},
		{"a file exists until its last name is removed", seed, func(t *tree) {
			h := t.h("f")
			t.ok(t.link(root(), "f", "d/g"), "link")
			t.ok(t.remove(root(), "f"), "remove")
			t.missing("f")
			t.same("nlink", t.attrOf(h).Nlink, uint32(1))
			t.hasContent("d/g", "shared")
			t.ok(t.remove(root(), "d/g"), "remove")
			t.stale(h)
		}},
		{"a write through one name is visible through older names", seed, func(t *tree) {
			t.write(root(), "e/p2", "PA", 0)
			t.hasContent("p1", "PAir")
			t.same("attributes", t.attr("p1"), t.attr("e/p2"))
			t.same("nlink", t.attr("p1").Nlink, uint32(2))
			t.same("handle", t.h("p1") == t.h("e/p2"), true)
		}},
		{"the removal of a name leaves the older ones", seed, func(t *tree) {
			t.ok(t.remove(root(), "p1"), "remove")
			t.same("nlink", t.attr("e/p2").Nlink, uint32(1))
			t.hasContent("e/p2", "pair")
			t.write(root(), "e/p2", "PA", 0)
			t.hasContent("e/p2", "PAir")
		}},
		{"a third name is one of the same file as two older ones", seed, func(t *tree) {
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
		{"a directory cannot have a second name", seed, func(t *tree) {
			t.fails(t.link(root(), "e", "d/e"), vfs.EPERM)
			t.missing("d/e")
		}},
		{"a link to a symbolic link is one of the link itself", seed, func(t *tree) {
			t.ok(t.link(root(), "l", "d/l2"), "link")
			t.same("type", t.attr("d/l2").Type, vfs.Symlink)
			t.same("nlink", t.attr("l").Nlink, uint32(2))
		}},
		{"a removed file cannot get a new name", seed, func(t *tree) {
			h := t.h("f")
			t.ok(t.remove(root(), "f"), "remove")
			_, err := t.Link(root(), h, t.h("d"), "g")
			t.fails(err, vfs.ESTALE)
			t.missing("d/g")
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
