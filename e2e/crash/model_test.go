package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/vfs"
)

// state is what a directory shows, by path.
type state map[string]*entry

// entry is one object; names of one file share it.
type entry struct {
	kind    vfs.Type
	mode    uint32
	uid     uint32
	content string
	target  string
}

func (s state) clone() state {
	out, known := make(state, len(s)), make(map[*entry]*entry)
	for path, e := range s {
		c := known[e]
		if c == nil {
			copied := *e
			c = &copied
			known[e] = c
		}
		out[path] = c
	}
	return out
}

// lines returns s as lines that can be compared.
func (s state) lines() map[string]string {
	names := make(map[*entry][]string)
	for _, path := range slices.Sorted(maps.Keys(s)) {
		names[s[path]] = append(names[s[path]], path)
	}
	out := make(map[string]string, len(s))
	for path, e := range s {
		out[path] = line(e, names[e])
	}
	return out
}

func line(e *entry, names []string) string {
	l := fmt.Sprintf("%d %o %d %q %q", e.kind, e.mode, e.uid, e.target, e.content)
	if len(names) > 1 {
		l += " = " + strings.Join(names, " ")
	}
	return l
}

func (s state) equal(o state) bool { return maps.Equal(s.lines(), o.lines()) }

// torn reports whether s can be the result of an interrupted write or truncation that led from before to after:
// equal except for bytes of one file, each of which is old or new. File systems write zeros behind the new end
// of a file before they shorten it.
func (s state) torn(path string, before, after state) bool {
	old, is, want := before[path], s[path], after[path]
	if old == nil || is == nil || want == nil {
		return false
	}
	if len(is.content) < min(len(old.content), len(want.content)) ||
		len(is.content) > max(len(old.content), len(want.content)) {
		return false
	}
	for i := range len(is.content) {
		if b := is.content[i]; b != at(old.content, i) && b != at(want.content, i) {
			return false
		}
	}
	rest := after.clone()
	rest[path].content = is.content
	return s.equal(rest)
}

// at is byte i of a file: 0 behind its end.
func at(content string, i int) byte {
	if i < len(content) {
		return content[i]
	}
	return 0
}

// observe reads what the directory h shows.
func observe(fs vfs.FS, h vfs.Handle, above string, known map[uint64]*entry, into state) error {
	type found struct {
		path string
		h    vfs.Handle
		a    vfs.Attr
	}
	var list []found
	_, err := fs.ReadDir(root, h, 0, vfs.WithAttr, func(de *vfs.DirEntry) bool {
		if de.Name != "." && de.Name != ".." {
			list = append(list, found{path: above + de.Name})
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", above, err)
	}
	for _, f := range list {
		if f.h, err = fs.Lookup(root, h, strings.TrimPrefix(f.path, above), &f.a); err != nil {
			return fmt.Errorf("look up %s: %w", f.path, err)
		}
		e := known[f.a.ID]
		if e == nil {
			e = &entry{kind: f.a.Type, mode: f.a.Mode, uid: f.a.UID}
			known[f.a.ID] = e
		}
		if f.a.Type == vfs.Symlink {
			e.mode = 0o777 // it has no meaning
		}
		into[f.path] = e
		switch f.a.Type {
		case vfs.Symlink:
			e.target, err = fs.Readlink(root, f.h)
		case vfs.Regular:
			buf := make([]byte, f.a.Size)
			var n int
			n, _, err = fs.Read(root, f.h, buf, 0)
			e.content = string(buf[:n])
		case vfs.Directory:
			err = observe(fs, f.h, f.path+"/", known, into)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
	}
	return nil
}
