package vfstest

import (
	"strings"

	"dim/internal/vfs"
)

func attrCases() []testCase {
	return []testCase{
		{"the root is a directory of root", nil, func(t *tree) {
			a := t.attr(".")
			if a.Type != vfs.Directory || a.Mode != 0o755 || a.UID != 0 || a.GID != 0 || a.Nlink < 2 {
				t.Errorf("got %+v", a)
			}
		}},
		{
			"dot of a directory is itself and dot-dot of the root is the root",
			[]Entry{dir("d", 0o755, owner{}), dir("d/e", 0o755, owner{})},
			dots,
		},
		{"every kind of file has its attributes", kinds(), showsKinds},
		{"lookup and getattr return the same", kinds(), func(t *tree) {
			for _, e := range kinds() {
				_, a, err := t.find(e.Path)
				t.ok(err, "look up %q", e.Path)
				t.same(e.Path, t.attr(e.Path), a)
			}
		}},
		{"ids of different objects differ and the FSID is one", kinds(), func(t *tree) {
			ids := map[uint64]string{t.attr(".").ID: "."}
			for _, e := range kinds() {
				a := t.attr(e.Path)
				if was, ok := ids[a.ID]; ok {
					t.Errorf("%s and %s have id %d", was, e.Path, a.ID)
				}
				ids[a.ID] = e.Path
				t.same("FSID", a.FSID, t.attr(".").FSID)
			}
		}},
		{"only a symbolic link has a target", kinds(), func(t *tree) {
			target, err := t.Readlink(bob(), t.h("link"))
			t.ok(err, "readlink")
			t.same("target", target, "to/nowhere")
			for _, p := range []string{".", "dir", "file", "fifo"} {
				_, err := t.Readlink(root(), t.h(p))
				t.fails(err, vfs.EINVAL)
			}
		}},
		{"a symbolic link holds 4095 bytes", []Entry{symlink("l", strings.Repeat("x", 4095))}, func(t *tree) {
			target, err := t.Readlink(root(), t.h("l"))
			t.ok(err, "readlink")
			t.same("target", target, strings.Repeat("x", 4095))
			t.same("size", t.attr("l").Size, uint64(4095))
		}},
		{
			"a sparse file reads as zeros where nothing was written",
			[]Entry{{Path: "s", Type: vfs.Regular, Mode: 0o644, Content: "head", Size: 1 << 20, Mtime: aDay}},
			func(t *tree) {
				t.same("size", t.attr("s").Size, uint64(1<<20))
				t.hasContent("s", "head"+strings.Repeat("\x00", 1<<20-4))
			},
		},
		{
			"a directory counts its subdirectories in nlink",
			[]Entry{
				dir("d", 0o755, owner{}), dir("d/a", 0o755, owner{}), dir("d/b", 0o755, owner{}),
				file("d/f", 0o644, owner{}, ""),
			},
			func(t *tree) {
				t.same("nlink of d", t.attr("d").Nlink, uint32(4))
				t.same("nlink of d/a", t.attr("d/a").Nlink, uint32(2))
			},
		},
		{
			"all names of a file have one handle and one id, and count as links",
			[]Entry{file("a", 0o644, owner{}, "x"), hardLink("b", "a"), dir("d", 0o755, owner{}), hardLink("d/c", "a")},
			func(t *tree) {
				for _, p := range []string{"b", "d/c"} {
					t.same("handle of "+p, t.h(p) == t.h("a"), true)
					t.same("attributes of "+p, t.attr(p), t.attr("a"))
				}
				t.same("nlink", t.attr("a").Nlink, uint32(3))
			},
		},
		{"statfs returns plausible numbers", nil, statFS},
		{
			"extended attributes are shown",
			[]Entry{
				{
					Path: "f", Type: vfs.Regular, Mode: 0o644, Mtime: aDay,
					Xattrs: map[string]string{"user.note": "h\x00llo"},
				},
			},
			xattrs,
		},
		{"access is granted by class and mode", accessSeed(), access},
		{"a read of a directory is EISDIR and of other kinds EINVAL", kinds(), func(t *tree) {
			for p, want := range map[string]vfs.Errno{
				"dir": vfs.EISDIR, "link": vfs.EINVAL, "fifo": vfs.EINVAL, "null": vfs.EINVAL,
			} {
				_, _, err := t.Read(root(), t.h(p), make([]byte, 1), 0)
				t.fails(err, want)
			}
		}},
		{"a lookup in an object that is no directory is ENOTDIR", kinds(), func(t *tree) {
			for _, p := range []string{"file", "link", "fifo"} {
				var a vfs.Attr
				for _, name := range []string{"x", ".", ".."} {
					_, err := t.Lookup(root(), t.h(p), name, &a)
					t.fails(err, vfs.ENOTDIR)
				}
			}
		}},
	}
}

func kinds() []Entry {
	return []Entry{
		{
			Path: "file", Type: vfs.Regular, Mode: 0o640, UID: aliceID, GID: team, Content: "hello",
			Mtime: vfs.Time{Sec: 1_234_567_890, Nsec: 987_654_321},
		},
		{Path: "suid", Type: vfs.Regular, Mode: 0o6755, UID: 0, GID: 5, Content: "#!", Mtime: vfs.Time{Sec: 1}},
		{Path: "old", Type: vfs.Regular, Mode: 0o444, Mtime: vfs.Time{Sec: 0}},
		{
			Path: "dir", Type: vfs.Directory, Mode: 0o3775, UID: bobID, GID: team,
			Mtime: vfs.Time{Sec: 1_500_000_000, Nsec: 1},
		},
		{
			Path: "link", Type: vfs.Symlink, UID: aliceID, GID: other, Target: "to/nowhere",
			Mtime: vfs.Time{Sec: 1_600_000_000, Nsec: 999_999_999},
		},
		{Path: "null", Type: vfs.CharDevice, Mode: 0o666, Major: 1, Minor: 3, Mtime: aDay},
		{Path: "disk", Type: vfs.BlockDevice, Mode: 0o660, GID: 6, Major: 259, Minor: 70000, Mtime: aDay},
		{Path: "fifo", Type: vfs.FIFO, Mode: 0o600, UID: aliceID, Mtime: aDay},
	}
}

func showsKinds(t *tree) {
	for _, e := range kinds() {
		a := t.attr(e.Path)
		want := a
		want.Type, want.UID, want.GID, want.Mtime = e.Type, e.UID, e.GID, e.Mtime
		want.Major, want.Minor = e.Major, e.Minor
		switch e.Type {
		case vfs.Symlink:
			want.Size = uint64(len(e.Target))
		case vfs.Directory:
			want.Mode, want.Nlink = e.Mode, 2
		default:
			want.Mode, want.Nlink, want.Size = e.Mode, 1, uint64(len(e.Content))
		}
		t.same(e.Path, a, want)
	}
}

func dots(t *tree) {
	for _, c := range []struct{ dir, name, want string }{
		{".", ".", "."}, {".", "..", "."}, {"d", ".", "d"}, {"d", "..", "."}, {"d/e", "..", "d"},
	} {
		var a vfs.Attr
		h, err := t.Lookup(root(), t.h(c.dir), c.name, &a)
		t.ok(err, "look up %s in %s", c.name, c.dir)
		if h != t.h(c.want) {
			t.Errorf("%s of %s is not %s", c.name, c.dir, c.want)
		}
		t.same("id", a.ID, t.attr(c.want).ID)
	}
}

func statFS(t *tree) {
	s, err := t.StatFS(t.Root())
	t.ok(err, "statfs")
	if s.Bytes == 0 || s.BytesFree > s.Bytes || s.BytesAvail > s.BytesFree ||
		s.FilesFree > s.Files || s.FilesAvail > s.FilesFree || s.NameMax != 255 {
		t.Errorf("got %+v", s)
	}
}

func xattrs(t *tree) {
	x, ok := t.FS.(vfs.XattrReader)
	if !ok {
		t.Skip("this tree has no extended attributes")
	}
	v, err := x.Xattr(t.h("f"), "user.note")
	t.ok(err, "get user.note")
	t.same("user.note", string(v), "h\x00llo")
	_, err = x.Xattr(t.h("f"), "user.none")
	t.fails(err, vfs.ENODATA)
	names, err := x.Xattrs(t.h("f"))
	t.ok(err, "list")
	if !strings.Contains("\x00"+strings.Join(names, "\x00")+"\x00", "\x00user.note\x00") {
		t.Errorf("user.note is not among %q", names)
	}
}

func accessSeed() []Entry {
	return []Entry{
		file("f751", 0o751, owner{aliceID, team}, ""), file("f604", 0o604, owner{aliceID, team}, ""),
		file("f600", 0o600, owner{aliceID, team}, ""), dir("d750", 0o750, owner{aliceID, team}),
		dir("d731", 0o731, owner{aliceID, team}),
	}
}

func access(t *tree) {
	const (
		r, x, w = vfs.AccessRead, vfs.AccessExecute, vfs.AccessModify | vfs.AccessExtend
		lookup  = vfs.AccessLookup
		dirw    = vfs.AccessModify | vfs.AccessExtend | vfs.AccessDelete
		all     = 0x3f
	)
	for _, c := range []struct {
		who  *vfs.Cred
		path string
		want uint32
		need uint32
		not  uint32
	}{
		{alice(), "f751", all, r | w | x, 0},
		{carol(), "f751", all, r | x, w},
		{bob(), "f751", all, x, r | w},
		{bob(), "f751", r | w, 0, r | w | x},
		{carol(), "f604", all, 0, r | w | x}, // the group has fewer permissions than the others
		{bob(), "f604", all, r, w | x},
		{root(), "f600", all, r | w, x},
		{root(), "f751", all, r | w | x, 0},
		{alice(), "d750", all, r | lookup | dirw, 0},
		{carol(), "d750", all, r | lookup, dirw},
		{bob(), "d750", all, 0, r | lookup | dirw},
		{carol(), "d731", all, dirw | lookup, r},
		{bob(), "d731", all, lookup, r | dirw},
	} {
		// A tree that is read-only may grant less.
		var a vfs.Attr
		got, err := t.Access(c.who, t.h(c.path), c.want, &a)
		t.ok(err, "access %s", c.path)
		t.same("attributes", a, t.attr(c.path))
		if got&c.not != 0 || got&^c.want != 0 {
			t.Errorf("user %d on %s: granted %#x, must not have %#x", c.who.UID, c.path, got, c.not)
		}
		need, reading := c.need&^vfs.AccessDelete, uint32(r|x|lookup)
		if t.writable() && got&need != need || got&reading != need&reading {
			t.Errorf("user %d on %s: granted %#x, must have %#x", c.who.UID, c.path, got, need)
		}
	}
}

// writable reports whether the tree can be changed.
func (t *tree) writable() bool {
	_, err := t.SetAttr(root(), t.Root(), &vfs.SetAttr{})
	return err != vfs.EROFS
}
