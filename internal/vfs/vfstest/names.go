package vfstest

import (
	"path"
	"slices"
	"strings"

	"dim/internal/vfs"
)

func nameCases() []testCase { return slices.Concat(goodNameCases(), badNameCases()) }

func goodNameCases() []testCase {
	n255, n256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	return []testCase{
		{"names of every byte are distinguished", everyByte(), func(t *tree) {
			var want []string
			for _, e := range everyByte() {
				want = append(want, e.Path)
				t.hasContent(e.Path, e.Path)
			}
			slices.Sort(want)
			t.same("names", t.names("."), want)
		}},
		{"names of every byte are made, renamed and removed", nil, func(t *tree) {
			for _, e := range everyByte() {
				t.create(root(), e.Path, 0o644)
				t.ok(t.rename(root(), e.Path, e.Path+"2"), "rename %q", e.Path)
				t.ok(t.remove(root(), e.Path+"2"), "remove %q", e.Path)
			}
			t.same("names", t.names("."), []string(nil))
		}},
		{"similar names are different", nil, func(t *tree) {
			names := []string{
				"A", "a", "\u00e9", "e\u0301", "\xe9", " a", "a ", "a.", "...", "..a", ".wh.a", "CON", "-rf",
				"*", "a\nb",
			}
			for _, n := range names {
				t.create(root(), n, 0o644)
			}
			slices.Sort(names)
			t.same("names", t.names("."), names)
		}},
		{
			"a name of 255 bytes is accepted everywhere",
			[]Entry{file(n255, 0o644, owner{}, "long"), dir("d", 0o755, owner{})},
			func(t *tree) {
				t.hasContent(n255, "long")
				t.ok(t.link(root(), n255, "d/"+n255), "link")
				t.ok(t.rename(root(), "d/"+n255, "d/"+strings.Repeat("m", 255)), "rename")
				t.ok(t.remove(root(), n255), "remove")
				t.mkdir(root(), n255, 0o755)
				t.same("names", t.names("."), []string{"d", n255})
			},
		},
		{"a name of 256 bytes is ENAMETOOLONG everywhere", nameSeed(), func(t *tree) {
			for what, err := range t.useName(n256) {
				if err != vfs.ENAMETOOLONG {
					t.Errorf("%s: got %v", what, err)
				}
			}
		}},
		{"names that are empty or contain a slash or a NUL are refused everywhere", nameSeed(), func(t *tree) {
			for _, name := range []string{"", "a/b", "/", "d/..", "f/", "a\x00b", "\x00"} {
				for what, err := range t.useName(name) {
					e, _ := err.(vfs.Errno)
					if !slices.Contains([]vfs.Errno{vfs.EINVAL, vfs.ENOENT, vfs.EACCES}, e) {
						t.Errorf("%s with %q: got %v", what, name, err)
					}
				}
			}
			t.same("names", t.names("."), []string{"d", "f"})
		}},
	}
}

func badNameCases() []testCase {
	return []testCase{
		{"dot and dot-dot are neither made nor removed nor renamed", nameSeed(), func(t *tree) {
			refused := []vfs.Errno{vfs.EINVAL, vfs.EEXIST, vfs.EISDIR, vfs.ENOTEMPTY, vfs.EBUSY, vfs.EPERM, vfs.EACCES}
			for _, name := range []string{".", ".."} {
				for what, err := range t.useName(name) {
					e, _ := err.(vfs.Errno)
					if what != "lookup" && !slices.Contains(refused, e) {
						t.Errorf("%s with %q: got %v", what, name, err)
					}
				}
			}
			t.same("names", t.names("."), []string{"d", "f"})
			t.same("names", t.names("d"), []string(nil))
		}},
		{"a name that does not exist is ENOENT", nameSeed(), func(t *tree) {
			var a vfs.Attr
			_, err := t.Lookup(root(), t.Root(), "none", &a)
			t.fails(err, vfs.ENOENT)
			t.fails(t.remove(root(), "none"), vfs.ENOENT)
			t.fails(t.rmdir(root(), "none"), vfs.ENOENT)
			t.fails(t.rename(root(), "none", "f"), vfs.ENOENT)
		}},
		{"an operation in an object that is no directory is ENOTDIR", nameSeed(), func(t *tree) {
			f := t.h("f")
			s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
			_, err := t.Create(root(), f, "n", &vfs.Create{Mode: vfs.Guarded, Attr: s})
			t.fails(err, vfs.ENOTDIR)
			_, err = t.Mkdir(root(), f, "n", &s)
			t.fails(err, vfs.ENOTDIR)
			_, err = t.Remove(root(), f, "n")
			t.fails(err, vfs.ENOTDIR)
			_, err = t.Rename(root(), t.Root(), "f", f, "n")
			t.fails(err, vfs.ENOTDIR)
			_, err = t.ReadDir(root(), f, 0, vfs.NamesOnly, func(*vfs.DirEntry) bool { return true })
			t.fails(err, vfs.ENOTDIR)
		}},
		{"a path of many directories works in both directions", deep(40), func(t *tree) {
			p := deep(40)[39].Path
			t.create(root(), p+"/leaf", 0o644)
			h := t.h(p)
			for range 40 {
				var a vfs.Attr
				var err error
				h, err = t.Lookup(root(), h, "..", &a)
				t.ok(err, "go up")
			}
			t.same("the way up ends at the root", h == t.Root(), true)
		}},
	}
}

func nameSeed() []Entry { return []Entry{dir("d", 0o755, owner{}), file("f", 0o644, owner{}, "")} }

// everyByte is files whose names have each byte that a name may have.
func everyByte() []Entry {
	var seed []Entry
	for b := 1; b < 256; b++ {
		if name := string([]byte{byte(b)}); b != '/' && b != '.' {
			seed = append(seed, file(name, 0o644, owner{}, name))
		}
	}
	return append(seed, file("...", 0o644, owner{}, "..."))
}

func deep(n int) []Entry {
	var seed []Entry
	p := ""
	for range n {
		p = path.Join(p, "a-directory")
		seed = append(seed, dir(p, 0o755, owner{}))
	}
	return seed
}

// useName calls every operation that takes a name with name, and returns the errors. It needs file f and directory d.
func (t *tree) useName(name string) map[string]error {
	t.Helper()
	r, errs := t.Root(), make(map[string]error)
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	var a vfs.Attr
	_, errs["lookup"] = t.Lookup(root(), r, name, &a)
	for what, mode := range map[string]vfs.CreateMode{
		"create unchecked": vfs.Unchecked, "create": vfs.Guarded, "create exclusive": vfs.Exclusive,
	} {
		_, errs[what] = t.Create(root(), r, name, &vfs.Create{Mode: mode, Attr: s})
	}
	_, errs["mkdir"] = t.Mkdir(root(), r, name, &s)
	_, errs["symlink"] = t.Symlink(root(), r, name, "target", &vfs.SetAttr{})
	_, errs["mknod"] = t.Mknod(root(), r, name, &vfs.Node{Type: vfs.FIFO}, &s)
	_, errs["link"] = t.Link(root(), t.h("f"), r, name)
	_, errs["remove"] = t.Remove(root(), r, name)
	_, errs["rmdir"] = t.Rmdir(root(), r, name)
	_, errs["rename from"] = t.Rename(root(), r, name, r, "new")
	_, errs["rename to"] = t.Rename(root(), r, "f", r, name)
	return errs
}
