package vfstest

import (
	"slices"

	"dim/internal/vfs"
)

func handleCases() []testCase { return slices.Concat(lifeOfHandleCases(), badHandleCases()) }

func lifeOfHandleCases() []testCase {
	seed := []Entry{
		dir("d", 0o755, owner{}), file("d/f", 0o644, owner{}, "content"), dir("d/sub", 0o755, owner{}),
		file("g", 0o644, owner{}, "other"),
		file("p", 0o644, owner{}, "pair"), hardLink("q", "p"), symlink("l", "x"),
	}
	return []testCase{
		{"handles remain valid when their objects and the directories above move", seed, func(t *tree) {
			f, sub, d := t.h("d/f"), t.h("d/sub"), t.h("d")
			t.ok(t.rename(root(), "d/f", "d/sub/f2"), "rename")
			t.ok(t.rename(root(), "d", "elsewhere"), "rename")
			t.same("content", t.content(f), "content")
			t.same("handle of the file", t.h("elsewhere/sub/f2") == f, true)
			t.same("handle of sub", t.h("elsewhere/sub") == sub, true)
			t.same("handle of d", t.h("elsewhere") == d, true)
		}},
		{"handles remain the same when their objects change", seed, func(t *tree) {
			f, d, id := t.h("d/f"), t.h("d"), t.attr("d/f").ID
			t.write(root(), "d/f", "CONTENT", 0)
			t.set(root(), "d/f", vfs.SetAttr{
				Valid: vfs.SetMode | vfs.SetUID | vfs.SetSize, Mode: 0o600, UID: 9, Size: 3,
			})
			t.create(root(), "d/new", 0o644)
			t.set(root(), "d", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700})
			t.same("file", t.h("d/f") == f, true)
			t.same("directory", t.h("d") == d, true)
			t.same("id", t.attr("d/f").ID, id)
			t.same("content", t.content(f), "CON")
		}},
		{"the handle of a removed file is stale in every operation, or reads retained content", seed, func(t *tree) {
			h := t.h("d/f")
			t.ok(t.remove(root(), "d/f"), "remove")
			if t.stale(h) {
				t.same("content", t.content(h), "content")
				return
			}
			_, _, err := t.Read(root(), h, make([]byte, 1), 0)
			t.fails(err, vfs.ESTALE)
			_, err = t.Write(root(), h, []byte("x"), 0, vfs.Unstable)
			t.fails(err, vfs.ESTALE)
			_, err = t.SetAttr(root(), h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600})
			t.fails(err, vfs.ESTALE)
			_, err = t.Commit(root(), h)
			t.fails(err, vfs.ESTALE)
			var a vfs.Attr
			_, err = t.Access(root(), h, vfs.AccessRead, &a)
			t.fails(err, vfs.ESTALE)
		}},
		{"the handle of a removed directory is stale in every operation", seed, func(t *tree) {
			h := t.h("d/sub")
			t.ok(t.rmdir(root(), "d/sub"), "rmdir")
			t.stale(h)
			var a vfs.Attr
			for _, name := range []string{"x", ".", ".."} {
				_, err := t.Lookup(root(), h, name, &a)
				t.fails(err, vfs.ESTALE)
			}
			_, err := t.ReadDir(root(), h, 0, vfs.NamesOnly, func(*vfs.DirEntry) bool { return true })
			t.fails(err, vfs.ESTALE)
		}},
	}
}

func badHandleCases() []testCase {
	seed := []Entry{
		dir("d", 0o755, owner{}), file("d/f", 0o644, owner{}, "content"), dir("d/sub", 0o755, owner{}),
		file("g", 0o644, owner{}, "other"),
		file("p", 0o644, owner{}, "pair"), hardLink("q", "p"), symlink("l", "x"),
	}
	return []testCase{
		{"the handle of a replaced file is stale and that of the new one works", seed, func(t *tree) {
			old, h := t.h("d/f"), t.h("g")
			t.ok(t.rename(root(), "g", "d/f"), "rename")
			t.stale(old)
			t.same("content", t.content(h), "other")
		}},
		{"a handle works as long as its object has a name", seed, func(t *tree) {
			h := t.h("p")
			t.ok(t.remove(root(), "p"), "remove")
			t.same("content", t.content(h), "pair")
			t.same("nlink", t.attrOf(h).Nlink, uint32(1))
			t.ok(t.remove(root(), "q"), "remove")
			t.stale(h)
		}},
		{"the handle of a removed symbolic link is stale", seed, func(t *tree) {
			h := t.h("l")
			t.ok(t.remove(root(), "l"), "remove")
			_, err := t.Readlink(root(), h)
			t.fails(err, vfs.ESTALE)
		}},
		{"bytes that never were a handle are refused", seed, func(t *tree) {
			good := t.h("d/f")
			for _, b := range [][]byte{
				nil, {0}, {255}, make([]byte, 3), make([]byte, 64), good.Bytes()[:len(good.Bytes())-1],
			} {
				h, ok := vfs.MakeHandle(b)
				if !ok {
					t.Fatalf("%d bytes make no handle", len(b))
				}
				var a vfs.Attr
				t.fails(t.Attr(h, &a), vfs.EBADHANDLE, vfs.ESTALE)
				_, err := t.Lookup(root(), h, "x", &a)
				t.fails(err, vfs.EBADHANDLE, vfs.ESTALE)
				_, err = t.Remove(root(), h, "x")
				t.fails(err, vfs.EBADHANDLE, vfs.ESTALE)
				_, err = t.StatFS(h)
				t.fails(err, vfs.EBADHANDLE, vfs.ESTALE)
			}
		}},
		{"a handle with one byte changed is no handle of another object of the tree", seed, func(t *tree) {
			good := t.h("d/f")
			known := map[uint64]bool{}
			for _, p := range []string{".", "d", "d/sub", "g", "p", "l"} {
				known[t.attr(p).ID] = true
			}
			for i := range good.Bytes() {
				b := append([]byte(nil), good.Bytes()...)
				b[i] ^= 0x40
				h, _ := vfs.MakeHandle(b)
				var a vfs.Attr
				if err := t.Attr(h, &a); err == nil && known[a.ID] {
					t.Errorf("byte %d changed leads to id %d", i, a.ID)
				}
			}
		}},
	}
}
