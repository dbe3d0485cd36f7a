package vfstest

import "dim/internal/vfs"

func readOnlyCases() []testCase {
	seed := append(nameSeed(), symlink("l", "f"), file("d/g", 0o666, owner{bobID, bobID}, "gee"))
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	return []testCase{
		{"every change is EROFS", seed, func(t *tree) {
			r, f := t.Root(), t.h("f")
			calls := map[string]func() error{
				"setattr": func() error { _, err := t.SetAttr(root(), f, &s); return err },
				"write":   func() error { _, err := t.Write(root(), f, []byte("x"), 0, vfs.FileSync); return err },
				"create": func() error {
					_, err := t.Create(root(), r, "n", &vfs.Create{Mode: vfs.Guarded, Attr: s})
					return err
				},
				"mkdir":   func() error { _, err := t.Mkdir(root(), r, "n", &s); return err },
				"symlink": func() error { _, err := t.Symlink(root(), r, "n", "t", &vfs.SetAttr{}); return err },
				"mknod": func() error {
					_, err := t.Mknod(root(), r, "n", &vfs.Node{Type: vfs.FIFO}, &s)
					return err
				},
				"link":   func() error { _, err := t.Link(root(), f, r, "n"); return err },
				"remove": func() error { _, err := t.Remove(root(), r, "f"); return err },
				"rmdir":  func() error { _, err := t.Rmdir(root(), r, "d"); return err },
				"rename": func() error { _, err := t.Rename(root(), r, "f", r, "n"); return err },
				"truncate": func() error {
					_, err := t.SetAttr(root(), f, &vfs.SetAttr{Valid: vfs.SetSize})
					return err
				},
			}
			for what, call := range calls {
				if err := call(); err != vfs.EROFS {
					t.Errorf("%s: got %v", what, err)
				}
			}
			t.same("names", t.names("."), []string{"d", "f", "l"})
		}},
		{"reading works", seed, func(t *tree) {
			t.hasContent("d/g", "gee")
			t.same("names", t.names("d"), []string{"g"})
		}},
		{"no permission to write is granted to anyone", seed, func(t *tree) {
			for _, c := range []*vfs.Cred{root(), bob()} {
				for _, p := range []string{"d", "d/g"} {
					var a vfs.Attr
					got, err := t.Access(c, t.h(p), 0x3f, &a)
					t.ok(err, "access")
					if got&(vfs.AccessModify|vfs.AccessExtend|vfs.AccessDelete) != 0 {
						t.Errorf("user %d on %s: granted %#x", c.UID, p, got)
					}
				}
			}
		}},
	}
}
