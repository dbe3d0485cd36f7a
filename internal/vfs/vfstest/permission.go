package vfstest

import (
	"slices"

	"dim/internal/vfs"
)

// permissionCases are about permissions. The owner is alice, carol is in the group (a supplementary one), bob is
// one of the others.
func permissionCases() []testCase {
	return slices.Concat(fileAccessCases(), directoryAccessCases(), makingAccessCases())
}

func fileAccessCases() []testCase {
	classes := []Entry{
		file("owner", 0o400, owner{aliceID, team}, "o"), file("group", 0o040, owner{aliceID, team}, "g"),
		file("others", 0o004, owner{aliceID, team}, "x"),
		file("exec", 0o011, owner{aliceID, team}, "e"), file("none", 0, owner{aliceID, team}, "n"),
		file("write", 0o022, owner{aliceID, team}, "w"),
	}
	dirs := []Entry{
		dir("r", 0o744, owner{0, team}), file("r/f", 0o644, owner{}, ""),
		dir("x", 0o711, owner{0, team}), file("x/f", 0o644, owner{}, ""),
		dir("rx", 0o755, owner{0, team}), file("rx/f", 0o644, owner{}, ""), dir("rx/d", 0o755, owner{}),
		dir("w", 0o733, owner{0, team}), file("w/f", 0o644, owner{}, ""),
		dir("g", 0o770, owner{0, team}), file("g/f", 0o644, owner{}, ""),
		dir("wo", 0o722, owner{0, team}), file("wo/f", 0o644, owner{}, ""),
	}
	return []testCase{
		{"exactly one class decides about reading", classes, func(t *tree) {
			for _, c := range []struct {
				who  *vfs.Cred
				path string
				err  error
			}{
				{alice(), "owner", nil}, {carol(), "owner", vfs.EACCES}, {bob(), "owner", vfs.EACCES},
				{root(), "owner", nil},
				{carol(), "group", nil}, {bob(), "group", vfs.EACCES}, {root(), "none", nil},
				{bob(), "others", nil}, {carol(), "others", vfs.EACCES}, {bob(), "none", vfs.EACCES},
			} {
				_, _, err := t.Read(c.who, t.h(c.path), make([]byte, 1), 0)
				if err != c.err {
					t.Errorf("user %d reads %s: %v, want %v", c.who.UID, c.path, err, c.err)
				}
			}
		}},
		{"the owner reads and writes whatever the mode", classes, func(t *tree) {
			for _, p := range []string{"owner", "group", "none"} {
				_, _, err := t.Read(alice(), t.h(p), make([]byte, 1), 0)
				t.ok(err, "read %s", p)
				t.write(alice(), p, "z", 0)
			}
		}},
		{"execute permission is enough to read", classes, func(t *tree) {
			for _, c := range []*vfs.Cred{carol(), bob()} {
				_, _, err := t.Read(c, t.h("exec"), make([]byte, 1), 0)
				t.ok(err, "read by user %d", c.UID)
			}
		}},
		{"only those with permission write", classes, func(t *tree) {
			t.write(carol(), "write", "1", 0)
			t.write(bob(), "write", "2", 0)
			t.write(root(), "none", "3", 0)
			_, err := t.Write(bob(), t.h("others"), []byte("no"), 0, vfs.Unstable)
			t.fails(err, vfs.EACCES)
			_, err = t.Write(carol(), t.h("group"), []byte("no"), 0, vfs.FileSync)
			t.fails(err, vfs.EACCES)
			t.hasContent("others", "x")
		}},
		{"a lookup needs search permission", dirs, func(t *tree) {
			var a vfs.Attr
			for _, p := range []string{"x", "rx", "w"} {
				_, err := t.Lookup(bob(), t.h(p), "f", &a)
				t.ok(err, "look up in %s", p)
			}
			for _, p := range []string{"r", "g", "wo"} {
				for _, name := range []string{"f", "none"} {
					_, err := t.Lookup(bob(), t.h(p), name, &a)
					t.fails(err, vfs.EACCES)
				}
			}
			_, err := t.Lookup(alice(), t.h("g"), "f", &a)
			t.ok(err, "look up by a supplementary group")
			_, err = t.Lookup(root(), t.h("g"), "f", &a)
			t.ok(err, "look up by root")
		}},
	}
}

func directoryAccessCases() []testCase {
	dirs := []Entry{
		dir("r", 0o744, owner{0, team}), file("r/f", 0o644, owner{}, ""),
		dir("x", 0o711, owner{0, team}), file("x/f", 0o644, owner{}, ""),
		dir("rx", 0o755, owner{0, team}), file("rx/f", 0o644, owner{}, ""), dir("rx/d", 0o755, owner{}),
		dir("w", 0o733, owner{0, team}), file("w/f", 0o644, owner{}, ""),
		dir("g", 0o770, owner{0, team}), file("g/f", 0o644, owner{}, ""),
		dir("wo", 0o722, owner{0, team}), file("wo/f", 0o644, owner{}, ""),
	}
	return []testCase{
		{"a listing needs read permission", dirs, func(t *tree) {
			list := func(c *vfs.Cred, p string) error {
				_, err := t.ReadDir(c, t.h(p), 0, vfs.NamesOnly, func(*vfs.DirEntry) bool { return true })
				return err
			}
			t.ok(list(bob(), "r"), "list r")
			t.ok(list(bob(), "rx"), "list rx")
			t.ok(list(carol(), "g"), "list g")
			t.fails(list(bob(), "x"), vfs.EACCES)
			t.fails(list(bob(), "w"), vfs.EACCES)
			t.fails(list(bob(), "g"), vfs.EACCES)
		}},
		{"making needs write and search permission in the directory", dirs, func(t *tree) {
			s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
			for _, p := range []string{"r", "x", "rx", "g", "wo"} {
				d := t.h(p)
				_, err := t.tryCreate(bob(), p+"/n", 0o644)
				t.fails(err, vfs.EACCES)
				_, err = t.Mkdir(bob(), d, "n", &s)
				t.fails(err, vfs.EACCES)
				_, err = t.Symlink(bob(), d, "n", "t", &vfs.SetAttr{})
				t.fails(err, vfs.EACCES)
				_, err = t.Mknod(bob(), d, "n", &vfs.Node{Type: vfs.FIFO}, &s)
				t.fails(err, vfs.EACCES)
				t.fails(t.link(bob(), "rx/f", p+"/n"), vfs.EACCES)
				t.missing(p + "/n")
			}
			t.create(bob(), "w/n", 0o644)
			t.create(carol(), "g/n", 0o644)
			t.create(root(), "r/n", 0o644)
		}},
		{"removing needs write and search permission in the directory, none on the file", dirs, func(t *tree) {
			for _, p := range []string{"r/f", "x/f", "rx/f", "g/f", "wo/f"} {
				t.fails(t.remove(bob(), p), vfs.EACCES)
			}
			t.fails(t.rmdir(bob(), "rx/d"), vfs.EACCES)
			t.ok(t.remove(bob(), "w/f"), "remove w/f")
			t.ok(t.remove(carol(), "g/f"), "remove g/f")
			t.ok(t.remove(root(), "r/f"), "remove r/f")
		}},
		{"renaming needs write and search permission in both directories", dirs, func(t *tree) {
			t.fails(t.rename(bob(), "rx/f", "w/n"), vfs.EACCES)
			t.fails(t.rename(bob(), "w/f", "rx/n"), vfs.EACCES)
			t.fails(t.rename(bob(), "w/f", "rx/f"), vfs.EACCES)
			t.fails(t.rename(bob(), "wo/f", "wo/n"), vfs.EACCES)
			t.ok(t.rename(bob(), "w/f", "w/n"), "rename within w")
			t.ok(t.rename(carol(), "g/f", "w/g"), "rename from g to w")
		}},
	}
}

func makingAccessCases() []testCase {
	dirs := []Entry{
		dir("r", 0o744, owner{0, team}), file("r/f", 0o644, owner{}, ""),
		dir("x", 0o711, owner{0, team}), file("x/f", 0o644, owner{}, ""),
		dir("rx", 0o755, owner{0, team}), file("rx/f", 0o644, owner{}, ""), dir("rx/d", 0o755, owner{}),
		dir("w", 0o733, owner{0, team}), file("w/f", 0o644, owner{}, ""),
		dir("g", 0o770, owner{0, team}), file("g/f", 0o644, owner{}, ""),
		dir("wo", 0o722, owner{0, team}), file("wo/f", 0o644, owner{}, ""),
	}
	return []testCase{
		{"a directory that moves must be writable, because its dot-dot changes", []Entry{
			dir("a", 0o777, owner{}), dir("a/mine", 0o755, owner{bobID, bobID}),
			dir("a/his", 0o755, owner{aliceID, aliceID}),
			dir("b", 0o777, owner{}),
		}, func(t *tree) {
			t.ok(t.rename(bob(), "a/mine", "b/mine"), "rename own directory")
			t.fails(t.rename(bob(), "a/his", "b/his"), vfs.EACCES)
			t.ok(t.rename(bob(), "a/his", "a/still-his"), "rename in place")
		}},
		{"an existing name is reported before a missing permission", dirs, func(t *tree) {
			_, err := t.Mkdir(bob(), t.h("rx"), "f", &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755})
			t.fails(err, vfs.EEXIST)
			t.fails(t.remove(bob(), "rx/none"), vfs.ENOENT)
		}},
		{
			"unchecked create returns an existing file without write permission in the directory",
			[]Entry{dir("d", 0o755, owner{}), file("d/f", 0o666, owner{}, "abc")},
			func(t *tree) {
				how := vfs.Create{Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetMode | vfs.SetSize, Mode: 0o600}}
				_, err := t.Create(bob(), t.h("d"), "f", &how)
				t.ok(err, "create")
				t.same("mode", t.attr("d/f").Mode, uint32(0o666))
				t.same("size", t.attr("d/f").Size, uint64(0))
			},
		},
		{
			"create does not truncate an existing file without write permission",
			[]Entry{dir("d", 0o777, owner{}), file("d/f", 0o644, owner{}, "abc")},
			func(t *tree) {
				how := vfs.Create{Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetSize}}
				_, err := t.Create(bob(), t.h("d"), "f", &how)
				t.fails(err, vfs.EACCES)
				t.hasContent("d/f", "abc")
			},
		},
		{
			"only root makes devices, and every user makes FIFOs and sockets",
			[]Entry{dir("d", 0o777, owner{})},
			func(t *tree) {
				s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o666}
				for _, typ := range []vfs.Type{vfs.CharDevice, vfs.BlockDevice} {
					_, err := t.Mknod(bob(), t.h("d"), "dev", &vfs.Node{Type: typ, Major: 1, Minor: 3}, &s)
					t.fails(err, vfs.EPERM)
				}
				for i, typ := range []vfs.Type{vfs.FIFO, vfs.Socket} {
					made, err := t.Mknod(bob(), t.h("d"), string(rune('a'+i)), &vfs.Node{Type: typ}, &s)
					t.ok(err, "mknod")
					t.same("owner", []uint32{made.Attr.UID, made.Attr.GID}, []uint32{bobID, bobID})
				}
			},
		},
		{"a new file cannot have another owner than the caller", []Entry{dir("d", 0o777, owner{})}, func(t *tree) {
			how := vfs.Create{
				Mode: vfs.Guarded,
				Attr: vfs.SetAttr{Valid: vfs.SetMode | vfs.SetUID, Mode: 0o644, UID: aliceID},
			}
			_, err := t.Create(bob(), t.h("d"), "f", &how)
			t.fails(err, vfs.EPERM)
			t.missing("d/f")
			_, err = t.Create(root(), t.h("d"), "f", &how)
			t.ok(err, "create by root")
			t.same("owner", t.attr("d/f").UID, uint32(aliceID))
		}},
	}
}

func stickyCases() []testCase {
	seed := []Entry{
		dir("tmp", 0o1777, owner{}), file("tmp/hers", 0o666, owner{aliceID, aliceID}, ""),
		dir("tmp/herd", 0o777, owner{aliceID, aliceID}),
		file("tmp/his", 0o666, owner{bobID, bobID}, ""), dir("bobs", 0o1777, owner{bobID, bobID}),
		file("bobs/hers", 0o600, owner{aliceID, aliceID}, ""),
		dir("open", 0o777, owner{}), file("open/his", 0o644, owner{bobID, bobID}, ""),
	}
	return []testCase{
		{"a user cannot remove the files of others", seed, func(t *tree) {
			t.fails(t.remove(bob(), "tmp/hers"), vfs.EPERM, vfs.EACCES)
			t.fails(t.rmdir(bob(), "tmp/herd"), vfs.EPERM, vfs.EACCES)
		}},
		{"a user cannot rename the files of others", seed, func(t *tree) {
			t.fails(t.rename(bob(), "tmp/hers", "tmp/x"), vfs.EPERM, vfs.EACCES)
			t.fails(t.rename(bob(), "tmp/herd", "tmp/x"), vfs.EPERM, vfs.EACCES)
		}},
		{"a user cannot replace the files of others by a rename", seed, func(t *tree) {
			t.fails(t.rename(bob(), "tmp/his", "tmp/hers"), vfs.EPERM, vfs.EACCES)
			t.fails(t.rename(bob(), "open/his", "tmp/hers"), vfs.EPERM, vfs.EACCES)
		}},
		{"the owner of the file removes and renames it", seed, func(t *tree) {
			t.ok(t.rename(alice(), "tmp/hers", "tmp/x"), "rename")
			t.ok(t.remove(alice(), "tmp/x"), "remove")
			t.ok(t.rmdir(alice(), "tmp/herd"), "rmdir")
		}},
		{"the owner of the directory removes the files of others", seed, func(t *tree) {
			t.ok(t.remove(bob(), "bobs/hers"), "remove")
		}},
		{"root removes anything", seed, func(t *tree) { t.ok(t.remove(root(), "tmp/hers"), "remove") }},
		{"every user makes and links files there", seed, func(t *tree) {
			t.create(carol(), "tmp/c", 0o644)
			t.ok(t.link(carol(), "tmp/c", "tmp/c2"), "link")
		}},
	}
}
