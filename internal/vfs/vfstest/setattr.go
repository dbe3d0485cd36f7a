package vfstest

import (
	"slices"
	"strings"

	"dim/internal/vfs"
)

func setAttrCases() []testCase { return slices.Concat(ownerCases(), guardAndSizeCases()) }

func ownerCases() []testCase {
	mine := []Entry{file("f", 0o644, owner{aliceID, aliceID}, "0123456789"), dir("d", 0o755, owner{aliceID, aliceID})}
	return []testCase{
		{"a change of the mode by the owner changes the ctime and not the mtime", mine, func(t *tree) {
			for _, p := range []string{"f", "d"} {
				was := t.attr(p)
				t.set(alice(), p, vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o1705})
				now := t.attr(p)
				t.same("mode", now.Mode, uint32(0o1705))
				t.same("mtime", now.Mtime, was.Mtime)
				t.same("id", now.ID, was.ID)
				t.later("ctime", was.Ctime, now.Ctime)
			}
		}},
		{"only the owner and root change the mode", mine, func(t *tree) {
			t.setFails(bob(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o777}, vfs.EPERM)
			t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o7777})
			t.same("mode", t.attr("f").Mode, uint32(0o7777))
		}},
		{"root changes the owner", mine, func(t *tree) {
			t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetUID | vfs.SetGID, UID: 70000, GID: 80000})
			a := t.attr("f")
			t.same("owner", []uint32{a.UID, a.GID}, []uint32{70000, 80000})
			t.hasContent("f", "0123456789")
		}},
		{"the owner may change the group to one of hers and to no other", mine, func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetGID, GID: team})
			t.same("group", t.attr("f").GID, uint32(team))
			t.setFails(alice(), "f", vfs.SetAttr{Valid: vfs.SetGID, GID: other}, vfs.EPERM)
			t.setFails(carol(), "f", vfs.SetAttr{Valid: vfs.SetGID, GID: carolID}, vfs.EPERM)
		}},
		{"the owner may set the present owner and no other", mine, func(t *tree) {
			t.setFails(alice(), "f", vfs.SetAttr{Valid: vfs.SetUID, UID: bobID}, vfs.EPERM)
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetUID | vfs.SetGID, UID: aliceID, GID: aliceID})
		}},
		{"a change that is partly refused changes nothing", mine, func(t *tree) {
			t.setFails(alice(), "f", vfs.SetAttr{
				Valid: vfs.SetMode | vfs.SetSize | vfs.SetUID, Mode: 0o600, Size: 3, UID: bobID,
			}, vfs.EPERM)
			t.hasContent("f", "0123456789")
		}},
		{"several attributes change in one call", mine, func(t *tree) {
			t.set(root(), "f", vfs.SetAttr{
				Valid: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetSize | vfs.SetMtime,
				Mode:  0o600, UID: bobID, GID: other, Size: 4, Mtime: vfs.Time{Sec: 99, Nsec: 7},
			})
			a := t.attr("f")
			t.same("mode, owner, group", []uint32{a.Mode, a.UID, a.GID}, []uint32{0o600, bobID, other})
			t.same("mtime", a.Mtime, vfs.Time{Sec: 99, Nsec: 7})
			t.hasContent("f", "0123")
		}},
		{"an empty change is no error", mine, func(t *tree) { t.set(alice(), "f", vfs.SetAttr{}) }},
	}
}

func guardAndSizeCases() []testCase {
	mine := []Entry{file("f", 0o644, owner{aliceID, aliceID}, "0123456789"), dir("d", 0o755, owner{aliceID, aliceID})}
	return []testCase{
		{"a guard that matches allows the change", mine, func(t *tree) {
			ctime := t.attr("f").Ctime
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600, Guard: &ctime})
			t.same("mode", t.attr("f").Mode, uint32(0o600))
		}},
		{"a guard that differs prevents the change with EAGAIN", mine, func(t *tree) {
			ctime := t.attr("f").Ctime
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o640})
			t.setFails(alice(), "f", vfs.SetAttr{
				Valid: vfs.SetMode | vfs.SetSize, Mode: 0o600, Guard: &ctime,
			}, vfs.EAGAIN)
		}},
		{"a file is truncated, and extended with zeros", mine, sizes},
		{
			"the owner sets the size of a file whose mode forbids it",
			[]Entry{file("f", 0o044, owner{aliceID, aliceID}, "abc")},
			func(t *tree) {
				t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 1})
				t.setFails(bob(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 0}, vfs.EACCES)
			},
		},
		{"whoever may write sets the size", []Entry{file("f", 0o662, owner{aliceID, team}, "abcdef")}, func(t *tree) {
			t.set(carol(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 4})
			t.set(bob(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 2})
			t.hasContent("f", "ab")
		}},
		{"only regular files have a size to set", kinds(), func(t *tree) {
			t.setFails(root(), "dir", vfs.SetAttr{Valid: vfs.SetSize}, vfs.EISDIR, vfs.EINVAL)
			t.setFails(root(), "fifo", vfs.SetAttr{Valid: vfs.SetSize}, vfs.EINVAL)
			t.setFails(root(), "link", vfs.SetAttr{Valid: vfs.SetSize}, vfs.EINVAL)
		}},
		{"a size beyond 63 bits is refused", mine, func(t *tree) {
			t.setFails(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 1 << 63}, vfs.EFBIG, vfs.EINVAL)
			t.setFails(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 1<<64 - 1}, vfs.EFBIG, vfs.EINVAL)
		}},
		{"every kind of file changes owner and times", kinds(), func(t *tree) {
			for _, e := range kinds() {
				t.set(root(), e.Path, vfs.SetAttr{Valid: vfs.SetUID | vfs.SetGID, UID: 11, GID: 12})
				t.set(root(), e.Path, vfs.SetAttr{
					Valid: vfs.SetMtime | vfs.SetAtime, Mtime: vfs.Time{Sec: 5, Nsec: 6},
					Atime: vfs.Time{Sec: 7, Nsec: 8},
				})
				a := t.attr(e.Path)
				t.same(e.Path+" owner", []uint32{a.UID, a.GID}, []uint32{11, 12})
				t.same(e.Path+" times", []vfs.Time{a.Mtime, a.Atime}, []vfs.Time{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}})
				t.same(e.Path+" type", a.Type, e.Type)
			}
		}},
		{
			"the attributes of one name are those of all its names",
			[]Entry{file("a", 0o644, owner{}, "x"), hardLink("b", "a")},
			func(t *tree) {
				t.set(root(), "b", vfs.SetAttr{Valid: vfs.SetMode | vfs.SetSize, Mode: 0o600, Size: 9})
				t.same("attributes", t.attr("a"), t.attr("b"))
				t.same("mode", t.attr("a").Mode, uint32(0o600))
				t.same("nlink", t.attr("a").Nlink, uint32(2))
			},
		},
		{"the root directory changes too", nil, func(t *tree) {
			t.set(root(), ".", vfs.SetAttr{Valid: vfs.SetMode | vfs.SetUID, Mode: 0o711, UID: 4})
			a := t.attr(".")
			t.same("mode, owner", []uint32{a.Mode, a.UID}, []uint32{0o711, 4})
		}},
	}
}

func sizes(t *tree) {
	for _, c := range []struct {
		size uint64
		want string
	}{
		{4, "0123"},
		{6, "0123\x00\x00"},
		{6, "0123\x00\x00"},
		{0, ""},
		{5000, strings.Repeat("\x00", 5000)},
	} {
		t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMtime, Mtime: aDay})
		was := t.attr("f")
		ch := t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: c.size})
		t.hasContent("f", c.want)
		t.same("size", ch.After.Size, c.size)
		if was.Size != c.size {
			t.later("mtime", was.Mtime, ch.After.Mtime)
			t.later("ctime", was.Ctime, ch.After.Ctime)
		}
	}
}

// privilegeCases are about the setuid and setgid bits, which changes by users clear.
func privilegeCases() []testCase {
	suid := func(mode uint32) []Entry {
		return []Entry{file("f", mode, owner{aliceID, team}, "x"), dir("d", 0o2755, owner{aliceID, team})}
	}
	mode := func(t *tree, p string, want uint32) {
		t.Helper()
		if got := t.attr(p).Mode; got != want {
			t.Errorf("mode of %s is %#o, want %#o", p, got, want)
		}
	}
	return []testCase{
		{"a write by a user clears setuid and setgid", suid(0o6777), func(t *tree) {
			t.write(bob(), "f", "y", 0)
			mode(t, "f", 0o777)
		}},
		{"a write by the owner clears them as well", suid(0o6755), func(t *tree) {
			t.write(alice(), "f", "y", 0)
			mode(t, "f", 0o755)
		}},
		{"a write by root keeps them", suid(0o6755), func(t *tree) {
			t.write(root(), "f", "y", 0)
			mode(t, "f", 0o6755)
		}},
		{"a new size set by a user clears them", suid(0o6777), func(t *tree) {
			t.set(bob(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 0})
			mode(t, "f", 0o777)
		}},
		{"an empty write keeps them", suid(0o6777), func(t *tree) {
			t.write(bob(), "f", "", 0)
			mode(t, "f", 0o6777)
		}},
		{"a write keeps setgid without group execution", suid(0o2666), func(t *tree) {
			t.write(alice(), "f", "y", 0)
			mode(t, "f", 0o2666)
		}},
		{"a new group set by a user clears them on a file and not on a directory", suid(0o6755), func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetGID, GID: aliceID})
			mode(t, "f", 0o755)
			t.set(alice(), "d", vfs.SetAttr{Valid: vfs.SetGID, GID: aliceID})
			mode(t, "d", 0o2755)
		}},
		{
			"a user cannot set setgid for a group that he is not in",
			[]Entry{file("f", 0o644, owner{aliceID, other}, ""), dir("d", 0o755, owner{aliceID, other})},
			func(t *tree) {
				t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o2755})
				mode(t, "f", 0o755)
				t.set(alice(), "d", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o2755})
				mode(t, "d", 0o755)
				t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o2755})
				mode(t, "f", 0o2755)
			},
		},
		{"a user may set setgid for a supplementary group", suid(0o644), func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o6755})
			mode(t, "f", 0o6755)
		}},
		{
			"new objects in a setgid directory have its group, and new directories inherit setgid",
			[]Entry{dir("d", 0o2777, owner{0, team})},
			func(t *tree) {
				f, s := t.create(bob(), "d/f", 0o644), t.mkdir(bob(), "d/s", 0o755)
				t.same("file", []uint32{f.Attr.UID, f.Attr.GID, f.Attr.Mode}, []uint32{bobID, team, 0o644})
				t.same("directory", []uint32{s.Attr.UID, s.Attr.GID, s.Attr.Mode}, []uint32{bobID, team, 0o2755})
			},
		},
		{"new objects elsewhere have the group of the caller", []Entry{dir("d", 0o777, owner{0, team})}, func(t *tree) {
			f, s := t.create(bob(), "d/f", 0o644), t.mkdir(bob(), "d/s", 0o755)
			t.same("file", []uint32{f.Attr.UID, f.Attr.GID, f.Attr.Mode}, []uint32{bobID, bobID, 0o644})
			t.same("directory", []uint32{s.Attr.UID, s.Attr.GID, s.Attr.Mode}, []uint32{bobID, bobID, 0o755})
		}},
	}
}
