package vfstest

import (
	"slices"

	"dim/internal/vfs"
)

func timeCases() []testCase { return slices.Concat(setTimeCases(), changedTimeCases()) }

func setTimeCases() []testCase {
	seed := []Entry{
		file("f", 0o664, owner{aliceID, team}, "data"), dir("d", 0o755, owner{aliceID, team}),
		file("d/g", 0o644, owner{aliceID, team}, ""),
	}
	return []testCase{
		{"times are kept to the nanosecond", seed, func(t *tree) {
			for _, v := range []vfs.Time{
				{Sec: 1, Nsec: 1}, {Sec: 2_000_000_000, Nsec: 999_999_999}, {Sec: 0, Nsec: 0},
				{Sec: 1<<31 - 1, Nsec: 5},
			} {
				t.set(alice(), "f", vfs.SetAttr{
					Valid: vfs.SetMtime | vfs.SetAtime, Mtime: v, Atime: vfs.Time{Sec: v.Sec, Nsec: v.Nsec / 2},
				})
				a := t.attr("f")
				t.same("mtime", a.Mtime, v)
				t.same("atime", a.Atime, vfs.Time{Sec: v.Sec, Nsec: v.Nsec / 2})
			}
		}},
		{"times after 2038 are kept", seed, func(t *tree) {
			v := vfs.Time{Sec: 1 << 32, Nsec: 3}
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMtime, Mtime: v})
			t.same("mtime", t.attr("f").Mtime, v)
		}},
		{"one time is set without the other", seed, func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{
				Valid: vfs.SetMtime | vfs.SetAtime, Mtime: vfs.Time{Sec: 10}, Atime: vfs.Time{Sec: 20},
			})
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetAtime, Atime: vfs.Time{Sec: 30}})
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMtime, Mtime: vfs.Time{Sec: 40}})
			a := t.attr("f")
			t.same("times", []vfs.Time{a.Atime, a.Mtime}, []vfs.Time{{Sec: 30}, {Sec: 40}})
		}},
		{"now is the time of the server", seed, func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMtimeNow | vfs.SetAtimeNow})
			a := t.attr("f")
			t.later("mtime", aDay, a.Mtime)
			t.later("atime", aDay, a.Atime)
		}},
		{"only the owner sets times to values", seed, func(t *tree) {
			t.setFails(carol(), "f", vfs.SetAttr{Valid: vfs.SetMtime, Mtime: vfs.Time{Sec: 1}}, vfs.EPERM)
			t.setFails(bob(), "f", vfs.SetAttr{Valid: vfs.SetAtime, Atime: vfs.Time{Sec: 1}}, vfs.EPERM)
		}},
		{"whoever may write sets times to now", seed, func(t *tree) {
			t.set(carol(), "f", vfs.SetAttr{Valid: vfs.SetMtimeNow | vfs.SetAtimeNow})
			t.setFails(bob(), "f", vfs.SetAttr{Valid: vfs.SetMtimeNow | vfs.SetAtimeNow}, vfs.EACCES)
		}},
		{"setting an earlier time makes the ctime later", seed, func(t *tree) {
			was := t.attr("f")
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetMtime, Mtime: vfs.Time{Sec: 1}})
			t.later("ctime", was.Ctime, t.attr("f").Ctime)
		}},
		{"each of many changes in a row makes the ctime later", seed, func(t *tree) {
			h := t.h("f")
			last := t.attrOf(h).Ctime
			for i := range 50 {
				_, err := t.SetAttr(alice(), h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600 + uint32(i%2)})
				t.ok(err, "set mode")
				now := t.attrOf(h).Ctime
				t.later("ctime", last, now)
				last = now
			}
		}},
	}
}

func changedTimeCases() []testCase {
	seed := []Entry{
		file("f", 0o664, owner{aliceID, team}, "data"), dir("d", 0o755, owner{aliceID, team}),
		file("d/g", 0o644, owner{aliceID, team}, ""), file("g", 0o644, owner{}, ""),
	}
	return []testCase{
		{"each of many changes in a directory makes its ctime later", seed, func(t *tree) {
			last := t.attr("d")
			for range 20 {
				t.create(alice(), "d/x", 0o644)
				made := t.attr("d")
				t.later("ctime", last.Ctime, made.Ctime)
				t.ok(t.remove(alice(), "d/x"), "remove")
				last = t.attr("d")
				t.later("ctime", made.Ctime, last.Ctime)
				if last.Mtime.Before(made.Mtime) {
					t.Error("the mtime went back")
				}
			}
		}},
		{"a write makes mtime and ctime later", seed, func(t *tree) {
			was := t.attr("f")
			t.write(alice(), "f", "DATA", 0)
			now := t.attr("f")
			t.later("mtime", was.Mtime, now.Mtime)
			t.later("ctime", was.Ctime, now.Ctime)
		}},
		{"a change in a directory makes its times later, and not those of the directory above", seed, func(t *tree) {
			tick := t.clock("g")
			up := t.attr(".")
			for _, do := range []func(){
				func() { t.create(alice(), "d/new", 0o644) },
				func() { t.mkdir(alice(), "d/sub", 0o755) },
				func() { t.ok(t.link(alice(), "f", "d/ln"), "link") },
				func() { t.ok(t.rename(alice(), "d/ln", "d/ln2"), "rename") },
				func() { t.ok(t.remove(alice(), "d/ln2"), "remove") },
				func() { t.ok(t.rmdir(alice(), "d/sub"), "rmdir") },
			} {
				was := t.attr("d")
				tick(was.Ctime)
				do()
				now := t.attr("d")
				t.later("mtime", was.Mtime, now.Mtime)
				t.later("ctime", was.Ctime, now.Ctime)
			}
			t.same("mtime above", t.attr(".").Mtime, up.Mtime)
		}},
		{"a change of a file leaves the mtime of its directory", seed, func(t *tree) {
			was := t.attr("d")
			t.write(alice(), "d/g", "more", 0)
			t.set(alice(), "d/g", vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600})
			t.same("mtime", t.attr("d").Mtime, was.Mtime)
		}},
		{"a new name and a removed name make the ctime of a file later and leave its mtime", seed, func(t *tree) {
			tick := t.clock("g")
			for _, do := range []func(){
				func() { t.ok(t.link(alice(), "f", "d/ln"), "link") },
				func() { t.ok(t.remove(alice(), "d/ln"), "remove") },
			} {
				was := t.attr("f")
				tick(was.Ctime)
				do()
				now := t.attr("f")
				t.later("ctime", was.Ctime, now.Ctime)
				t.same("mtime", now.Mtime, was.Mtime)
			}
		}},
		{"the caller may set the times of a new file", seed, func(t *tree) {
			s := vfs.SetAttr{Valid: vfs.SetMode | vfs.SetMtime, Mode: 0o600, Mtime: vfs.Time{Sec: 77, Nsec: 8}}
			made, err := t.Create(alice(), t.h("d"), "n", &vfs.Create{Mode: vfs.Guarded, Attr: s})
			t.ok(err, "create")
			t.same("mtime", made.Attr.Mtime, vfs.Time{Sec: 77, Nsec: 8})
		}},
	}
}

// clock returns a function that waits until time stamps of the disk are later than a given one. Before Linux 6.13,
// and on file systems without finer stamps since, all changes within one tick of the kernel's clock get the same
// stamp. The function writes to the file at path, which has no other use.
func (t *tree) clock(path string) (tick func(after vfs.Time)) {
	return func(after vfs.Time) {
		t.Helper()
		for range 10_000 {
			t.write(root(), path, "x", 0)
			if after.Before(t.attr(path).Mtime) {
				return
			}
		}
		t.Fatalf("the time stamps of the disk remain at %v", after)
	}
}
