package vfstest

import (
	"slices"

	"dim/internal/vfs"
)

func renameSeed() []Entry {
	return []Entry{
		file("f", 0o644, owner{aliceID, aliceID}, "eff"), file("g", 0o600, owner{bobID, bobID}, "gee"),
		symlink("l", "f"),
		dir("d", 0o755, owner{}), file("d/x", 0o644, owner{}, "ex"), dir("d/sub", 0o755, owner{}),
		file("d/sub/y", 0o644, owner{}, "why"),
		dir("empty", 0o711, owner{}), dir("e", 0o755, owner{}), file("h1", 0o644, owner{}, "hard"),
		hardLink("h2", "h1"),
		hardLink("e/h3", "h1"),
	}
}

func renameCases() []testCase { return slices.Concat(renameOntoCases(), renameAfterCases()) }

func renameOntoCases() []testCase {
	seed := renameSeed()
	return []testCase{
		{"a file keeps its content and attributes when it moves within its directory", seed, func(t *tree) {
			h, was := t.h("f"), t.attr("f")
			t.ok(t.rename(root(), "f", "n"), "rename")
			t.missing("f")
			now := t.attr("n")
			t.same("handle", t.h("n") == h, true)
			was.Ctime = now.Ctime // it may change or not
			t.same("attributes", now, was)
			t.hasContent("n", "eff")
		}},
		{"a file moves to another directory", seed, func(t *tree) {
			h := t.h("f")
			t.ok(t.rename(root(), "f", "d/sub/n"), "rename")
			t.missing("f")
			t.same("handle", t.h("d/sub/n") == h, true)
			t.same("names", t.names("d/sub"), []string{"n", "y"})
		}},
		{"a file that is moved over a file replaces it", seed, func(t *tree) {
			h, old := t.h("f"), t.h("g")
			t.ok(t.rename(root(), "f", "g"), "rename")
			t.missing("f")
			t.same("handle", t.h("g") == h, true)
			t.hasContent("g", "eff")
			t.stale(old)
		}},
		{"a file over a symbolic link replaces the link, not its target", seed, func(t *tree) {
			t.ok(t.rename(root(), "g", "l"), "rename")
			t.hasContent("l", "gee")
			t.hasContent("f", "eff")
		}},
		{"a symbolic link moves over a file", seed, func(t *tree) {
			t.ok(t.rename(root(), "l", "g"), "rename")
			target, err := t.Readlink(root(), t.h("g"))
			t.ok(err, "readlink")
			t.same("target", target, "f")
		}},
		{"a directory keeps its content when it moves", seed, func(t *tree) {
			h, x, y := t.h("d"), t.h("d/x"), t.h("d/sub/y")
			up := t.attr(".").Nlink
			t.ok(t.rename(root(), "d", "e/d2"), "rename")
			t.missing("d")
			for p, want := range map[string]vfs.Handle{"e/d2": h, "e/d2/x": x, "e/d2/sub/y": y} {
				t.same("handle of "+p, t.h(p) == want, true)
			}
			t.hasContent("e/d2/sub/y", "why")
			t.same("nlink of the root", t.attr(".").Nlink, up-1)
			t.same("nlink of e", t.attr("e").Nlink, uint32(3))
			var a vfs.Attr
			dd, err := t.Lookup(root(), h, "..", &a)
			t.ok(err, "look up dot-dot")
			t.same("dot-dot", dd == t.h("e"), true)
		}},
		{"a directory that is moved over an empty one replaces it", seed, func(t *tree) {
			h := t.h("d")
			up := t.attr(".").Nlink
			t.ok(t.rename(root(), "d", "empty"), "rename")
			t.missing("d")
			t.same("handle", t.h("empty") == h, true)
			t.same("mode", t.attr("empty").Mode, uint32(0o755))
			t.same("names", t.names("empty"), []string{"sub", "x"})
			t.same("nlink of the root", t.attr(".").Nlink, up-1)
		}},
	}
}

func renameAfterCases() []testCase {
	seed := renameSeed()
	return []testCase{
		{"a directory that is moved over one that was emptied replaces it", seed, func(t *tree) {
			t.ok(t.remove(root(), "d/sub/y"), "remove")
			t.ok(t.rename(root(), "empty", "d/sub"), "rename")
			t.same("names", t.names("d/sub"), []string(nil))
			t.same("mode", t.attr("d/sub").Mode, uint32(0o711))
		}},
		{"a rename of a name to itself changes nothing", seed, func(t *tree) {
			for _, p := range []string{"f", "d", "l"} {
				h := t.h(p)
				t.ok(t.rename(root(), p, p), "rename %s", p)
				t.same("handle", t.h(p) == h, true)
			}
		}},
		{"a rename of one name of a file to another one changes nothing", seed, func(t *tree) {
			t.ok(t.rename(root(), "h1", "h2"), "rename")
			t.ok(t.rename(root(), "h1", "e/h3"), "rename")
			for _, p := range []string{"h1", "h2", "e/h3"} {
				t.hasContent(p, "hard")
				t.same("nlink of "+p, t.attr(p).Nlink, uint32(3))
			}
		}},
		{"a file that replaces one name of another leaves the other names", seed, func(t *tree) {
			t.ok(t.rename(root(), "f", "h1"), "rename")
			t.hasContent("h1", "eff")
			t.hasContent("h2", "hard")
			t.same("nlink", t.attr("h2").Nlink, uint32(2))
		}},
		{"a move of one name of a file leaves the others", seed, func(t *tree) {
			t.ok(t.rename(root(), "h1", "d/sub/h"), "rename")
			t.missing("h1")
			t.same("handle", t.h("d/sub/h") == t.h("h2"), true)
			t.same("nlink", t.attr("e/h3").Nlink, uint32(3))
		}},
		{"a new file moves over an old one, as editors do", seed, func(t *tree) {
			t.create(root(), "f.new", 0o640)
			t.write(root(), "f.new", "new text", 0)
			t.ok(t.rename(root(), "f.new", "f"), "rename")
			t.hasContent("f", "new text")
			t.same("mode", t.attr("f").Mode, uint32(0o640))
			t.missing("f.new")
		}},
		{"the old name may be used again after a move", seed, func(t *tree) {
			t.ok(t.rename(root(), "d", "moved"), "rename")
			t.mkdir(root(), "d", 0o755)
			t.same("names", t.names("d"), []string(nil))
			t.ok(t.rename(root(), "f", "moved/f"), "rename")
			t.create(root(), "f", 0o644)
			t.hasContent("f", "")
			t.hasContent("moved/f", "eff")
		}},
		{"an object that moves there and back is unchanged", seed, func(t *tree) {
			h := t.h("d/sub")
			t.ok(t.rename(root(), "d/sub", "e/s"), "rename")
			t.ok(t.rename(root(), "e/s", "d/sub"), "rename back")
			t.same("handle", t.h("d/sub") == h, true)
			t.same("names", t.names("d"), []string{"sub", "x"})
			t.hasContent("d/sub/y", "why")
		}},
	}
}

func renameRefusedCases() []testCase {
	seed := renameSeed()
	refused := func(from, to string, want ...vfs.Errno) func(t *tree) {
		return func(t *tree) {
			names := t.names(".")
			t.fails(t.rename(root(), from, to), want...)
			t.same("names", t.names("."), names)
			t.h(from)
		}
	}
	return []testCase{
		{"a directory over one that is not empty is ENOTEMPTY", seed, refused("e", "d", vfs.ENOTEMPTY, vfs.EEXIST)},
		{"a file over a directory is EISDIR", seed, refused("f", "d", vfs.EISDIR, vfs.EEXIST)},
		{"a file over an empty directory is EISDIR", seed, refused("f", "empty", vfs.EISDIR, vfs.EEXIST)},
		{"a directory over a file is ENOTDIR", seed, refused("empty", "f", vfs.ENOTDIR, vfs.EEXIST)},
		{"a directory over a symbolic link is ENOTDIR", seed, refused("empty", "l", vfs.ENOTDIR, vfs.EEXIST)},
		{"a directory into itself is EINVAL", seed, refused("d", "d/n", vfs.EINVAL)},
		{"a directory into its own subtree is EINVAL", seed, refused("d", "d/sub/n", vfs.EINVAL)},
		{"a directory over a directory of its own subtree is EINVAL", seed, refused("d", "d/sub", vfs.EINVAL)},
		{"a move over the directory above is ENOTEMPTY", seed, refused("d/sub", "d", vfs.ENOTEMPTY, vfs.EEXIST)},
		{"a name that does not exist is ENOENT even over one that does", seed, func(t *tree) {
			t.fails(t.rename(root(), "none", "f"), vfs.ENOENT)
			t.hasContent("f", "eff")
		}},
	}
}
