package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/image/treediff"
)

// regular returns the entry of a file, after some edits.
func regular(edits ...func(*image.Entry)) *image.Entry {
	e := &image.Entry{
		Name: "a", Type: image.Regular, Mode: 0o644, UID: 1, GID: 2, Mtime: image.Time{Sec: 3}, Size: 4, Nlink: 1,
		Digest: image.Sum([]byte("text")), Xattrs: []image.Xattr{{Name: "user.x", Value: []byte("1")}},
	}
	for _, edit := range edits {
		edit(e)
	}
	return e
}

// of returns the entry of another type than a file.
func of(t image.Type, edits ...func(*image.Entry)) *image.Entry {
	return regular(append([]func(*image.Entry){func(e *image.Entry) { e.Type = t }}, edits...)...)
}

func TestAChangeIsShownByWhatHasChanged(t *testing.T) {
	type entry = image.Entry
	shown := func(kind control.ChangeKind, typ string, size, was uint64, what string) control.Change {
		return control.Change{Path: "/etc/a", Kind: kind, Type: typ, Size: size, Was: was, What: what}
	}
	attributes := func(what string) control.Change { return shown(control.Attributes, "file", 4, 0, what) }
	for _, tt := range []struct {
		name     string
		old, new *entry
		want     control.Change
	}{
		{"a new file", nil, regular(), shown(control.Added, "file", 4, 0, "")},
		{"a file that is gone", regular(), nil, shown(control.Removed, "file", 4, 0, "")},
		{"another content", regular(), regular(func(e *entry) { e.Digest[0]++; e.Size = 9; e.Mode = 0 }),
			shown(control.Content, "file", 9, 4, "")},
		{"another type", regular(), of(image.Symlink, func(e *entry) { e.Target = "b" }),
			shown(control.Content, "symlink", 4, 4, "file → symlink to b")},
		{"a directory in the place of a link", of(image.Symlink, func(e *entry) { e.Target = "usr/lib" }),
			of(image.Directory), shown(control.Content, "directory", 4, 4, "symlink to usr/lib → directory")},
		{"another target", of(image.Symlink), of(image.Symlink, func(e *entry) { e.Target = "b" }),
			shown(control.Content, "symlink", 4, 4, "")},
		{"another device", of(image.CharDevice), of(image.CharDevice, func(e *entry) { e.Minor++ }),
			shown(control.Content, "character device", 4, 4, "")},
		{"another listing of a directory", of(image.Directory),
			of(image.Directory, func(e *entry) { e.Digest[0]++; e.Mtime.Sec++ }),
			shown(control.Attributes, "directory", 4, 0, "time")},
		{"the mode", regular(), regular(func(e *entry) { e.Mode = 0 }), attributes("mode")},
		{"the owner", regular(), regular(func(e *entry) { e.UID++ }), attributes("owner")},
		{"the group", regular(), regular(func(e *entry) { e.GID++ }), attributes("owner")},
		{"the time", regular(), regular(func(e *entry) { e.Mtime.Nsec++ }), attributes("time")},
		{"another hard link", regular(), regular(func(e *entry) { e.Link, e.Nlink = "b", 2 }), attributes("links")},
		{"a hole", regular(), regular(func(e *entry) { e.Data = []image.Extent{{Length: 1}} }), attributes("holes")},
		{"an attribute of another value", regular(), regular(func(e *entry) {
			e.Xattrs = []image.Xattr{{Name: "user.x", Value: []byte("2")}}
		}), attributes("xattr")},
		{"one attribute less", regular(), regular(func(e *entry) { e.Xattrs = nil }), attributes("xattr")},
		{"several", regular(), regular(func(e *entry) { e.Mode, e.UID, e.Mtime.Sec, e.Xattrs = 0, 9, 9, nil }),
			attributes("mode owner time xattr")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := changed(treediff.Change{Path: "etc/a", Old: tt.old, New: tt.new})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
