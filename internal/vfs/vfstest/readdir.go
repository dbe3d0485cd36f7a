package vfstest

import (
	"fmt"
	"slices"
	"testing"

	"dim/internal/vfs"
)

func readDirCases() []testCase { return slices.Concat(listingCases(), cookieCases()) }

func listingCases() []testCase {
	few := []Entry{
		dir("d", 0o755, owner{}), file("d/a", 0o644, owner{aliceID, 0}, "aaa"), dir("d/b", 0o700, owner{}),
		symlink("d/c", "x"),
		file("d/e", 0o600, owner{}, ""), hardLink("d/f", "d/e"),
		{Path: "d/g", Type: vfs.FIFO, Mode: 0o644, Mtime: aDay},
	}
	return []testCase{
		{"an empty directory lists dot and dot-dot", []Entry{dir("d", 0o755, owner{})}, func(t *tree) {
			es := t.list("d", vfs.NamesOnly, 100)
			t.same("entries", entryNames(es), []string{".", ".."})
			if len(es) != 2 || es[0].Cookie != 1 || es[1].Cookie != 2 ||
				es[0].ID != t.attr("d").ID || es[1].ID != t.attr(".").ID {
				t.Errorf("got %+v", es)
			}
		}},
		{"dot-dot in the listing of the root is the root", nil, func(t *tree) {
			for _, e := range t.list(".", vfs.NamesOnly, 100) {
				t.same("id of "+e.Name, e.ID, t.attr(".").ID)
			}
		}},
		{"a listing has every name once, with its id", few, func(t *tree) {
			es := t.list("d", vfs.NamesOnly, 100)
			t.same("names", sorted(entryNames(es)), []string{".", "..", "a", "b", "c", "e", "f", "g"})
			for _, e := range es[2:] {
				t.same("id of "+e.Name, e.ID, t.attr("d/"+e.Name).ID)
			}
		}},
		{"a listing with attributes has those of a lookup", few, func(t *tree) {
			for _, e := range t.list("d", vfs.WithAttr, 100) {
				var a vfs.Attr
				h, err := t.Lookup(root(), t.h("d"), e.Name, &a)
				t.ok(err, "look up %s", e.Name)
				t.same("handle of "+e.Name, e.Handle == h, true)
				t.same("attributes of "+e.Name, e.Attr, a)
				t.same("id of "+e.Name, e.ID, a.ID)
			}
		}},
		{"a listing is the same in pages of any size", few, func(t *tree) {
			want := t.list("d", vfs.NamesOnly, 100)
			for page := 1; page < 9; page++ {
				t.same(fmt.Sprintf("pages of %d", page), t.list("d", vfs.NamesOnly, page), want)
			}
		}},
		{"cookies are the same with and without attributes, and in every listing", few, func(t *tree) {
			want := cookies(t.list("d", vfs.NamesOnly, 100))
			t.same("cookies", cookies(t.list("d", vfs.WithAttr, 3)), want)
			t.create(root(), "d/new", 0o644)
			t.ok(t.remove(root(), "d/a"), "remove")
			got := cookies(t.list("d", vfs.NamesOnly, 100))
			delete(got, "new")
			delete(want, "a")
			t.same("cookies after a change", got, want)
		}},
	}
}

func cookieCases() []testCase {
	few := []Entry{
		dir("d", 0o755, owner{}), file("d/a", 0o644, owner{aliceID, 0}, "aaa"), dir("d/b", 0o700, owner{}),
		symlink("d/c", "x"),
		file("d/e", 0o600, owner{}, ""), hardLink("d/f", "d/e"),
		{Path: "d/g", Type: vfs.FIFO, Mode: 0o644, Mtime: aDay},
	}
	return []testCase{
		{"a cookie is valid after its name was removed", few, func(t *tree) {
			es := t.list("d", vfs.NamesOnly, 100)
			at := es[4]
			t.removeAny("d/" + at.Name)
			rest := t.listFrom("d", at.Cookie)
			t.same("the rest", entryNames(rest), entryNames(es[5:]))
		}},
		{"a name that is made again has its former cookie", few, func(t *tree) {
			was := cookies(t.list("d", vfs.NamesOnly, 100))["a"]
			t.ok(t.remove(root(), "d/a"), "remove")
			t.create(root(), "d/a", 0o644)
			t.same("cookie", cookies(t.list("d", vfs.NamesOnly, 100))["a"], was)
		}},
		{"a listing after the last name ends at once", few, func(t *tree) {
			es := t.list("d", vfs.NamesOnly, 100)
			t.same("entries", len(t.listFrom("d", es[len(es)-1].Cookie)), 0)
			t.same("entries", len(t.listFrom("d", 1<<63-1)), 0)
		}},
		{"yield may call the tree", few, func(t *tree) {
			_, err := t.ReadDir(root(), t.h("d"), 0, vfs.WithAttr, func(e *vfs.DirEntry) bool {
				if e.Name == "a" {
					t.ok(t.remove(root(), "d/a"), "remove")
					t.create(root(), "d/made-meanwhile", 0o644)
				}
				return true
			})
			t.ok(err, "list")
			t.missing("d/a")
		}},
		{"a listing has all earlier changes", few, func(t *tree) {
			t.ok(t.remove(root(), "d/a"), "remove")
			t.ok(t.rename(root(), "d/b", "d/z"), "rename")
			t.mkdir(root(), "d/a2", 0o755)
			t.same("names", t.names("d"), []string{"a2", "c", "e", "f", "g", "z"})
		}},
		{"a directory of 10,000 names is listed completely", many(), func(t *tree) {
			es := t.list("d", vfs.NamesOnly, 1000)
			t.same("entries", len(es), len(many())+1)
			es = t.list("d", vfs.WithAttr, 5000)
			t.same("entries with attributes", len(es), len(many())+1)
		}},
		{
			"a listing of 10,000 names neither omits nor repeats names that exist throughout while others change",
			many(),
			changingDirectory,
		},
	}
}

// many is a directory of 10,000 files, or of 1,000 with -short.
func many() []Entry {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	seed := []Entry{dir("d", 0o755, owner{})}
	for i := range n {
		seed = append(seed, file(fmt.Sprintf("d/file-%05d", i), 0o644, owner{}, ""))
	}
	return seed
}

func changingDirectory(t *tree) {
	d := t.h("d")
	stay := make(map[string]int)
	for _, e := range many()[1:] {
		stay[e.Path[len("d/"):]] = 0
	}
	var cookie uint64
	for round := 0; ; round++ {
		n := 0
		end, err := t.ReadDir(root(), d, cookie, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
			if n == 331 {
				return false
			}
			n++
			cookie = e.Cookie
			if _, ok := stay[e.Name]; ok {
				stay[e.Name]++
			}
			return true
		})
		t.ok(err, "list")
		if end {
			break
		}
		gone := fmt.Sprintf("file-%05d", round*7)
		_, err = t.Remove(root(), d, gone)
		t.ok(err, "remove")
		delete(stay, gone)
		t.create(root(), fmt.Sprintf("d/new-%d", round), 0o644)
		moved := fmt.Sprintf("file-%05d", round*7+3)
		_, err = t.Rename(root(), d, moved, d, "moved-"+moved)
		t.ok(err, "rename")
		delete(stay, moved)
	}
	for name, times := range stay {
		if times != 1 {
			t.Errorf("%s was listed %d times", name, times)
		}
	}
}

// list lists p in pages of a number of entries, each of which starts at the last cookie of the one before.
func (t *tree) list(p string, plus vfs.Plus, page int) []vfs.DirEntry {
	t.Helper()
	var all []vfs.DirEntry
	var cookie uint64
	for range 100_000 {
		n := 0
		end, err := t.ReadDir(root(), t.h(p), cookie, plus, func(e *vfs.DirEntry) bool {
			if n == page {
				return false
			}
			n++
			if e.Cookie == 0 || e.Cookie >= 1<<63 { // offsets of directories are signed in Linux
				t.Errorf("%q has cookie %#x", e.Name, e.Cookie)
			}
			all, cookie = append(all, *e), e.Cookie
			return true
		})
		t.ok(err, "list %q", p)
		if end {
			return all
		}
	}
	t.Fatalf("the listing of %q does not end", p)
	return nil
}

func (t *tree) listFrom(p string, cookie uint64) []vfs.DirEntry {
	t.Helper()
	var all []vfs.DirEntry
	end, err := t.ReadDir(root(), t.h(p), cookie, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
		all = append(all, *e)
		return true
	})
	t.ok(err, "list %q", p)
	t.same("end", end, true)
	return all
}

func (t *tree) removeAny(p string) {
	t.Helper()
	err := t.remove(root(), p)
	if err == vfs.EISDIR {
		err = t.rmdir(root(), p)
	}
	t.ok(err, "remove %q", p)
}

func entryNames(es []vfs.DirEntry) []string {
	var names []string
	for _, e := range es {
		names = append(names, e.Name)
	}
	return names
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

func cookies(es []vfs.DirEntry) map[string]uint64 {
	m := make(map[string]uint64)
	for _, e := range es {
		m[e.Name] = e.Cookie
	}
	return m
}
