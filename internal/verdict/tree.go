package verdict

import (
	"io"
	"io/fs"
	"path"
	"strings"
)

// tree is a version's file system. Symbolic links are resolved within it.
type tree struct{ root fs.FS }

// Bounds of what is read.
const (
	maxLinks = 40
	maxUnit  = 256 << 10
)

// resolve returns the path to which name leads, and the symbolic links on the way. ok is false if there is no such
// file.
func (t tree) resolve(name string) (real string, links []string, ok bool) {
	fsys, can := t.root.(fs.ReadLinkFS)
	if !can {
		return "", nil, false
	}
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if real = path.Dir(real); real == "." {
				real = ""
			}
			continue
		}
		at := path.Join(real, part)
		fi, err := fsys.Lstat(at)
		if err != nil {
			return "", links, false
		}
		if fi.Mode().Type() != fs.ModeSymlink {
			real = at
			continue
		}
		target, err := fsys.ReadLink(at)
		if links = append(links, at); err != nil || len(links) > maxLinks {
			return "", links, false
		}
		if path.IsAbs(target) {
			real = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return real, links, real != ""
}

// names returns the names in a directory, none if it does not exist.
func (t tree) names(dir string) []string {
	entries, err := fs.ReadDir(t.root, dir)
	if err != nil {
		return nil
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Name()
	}
	return list
}

// text returns the first limit bytes of a regular file, "" if there is no such file.
func (t tree) text(name string, limit int64) string {
	real, _, ok := t.resolve(name)
	if !ok {
		return ""
	}
	if fi, err := fs.Stat(t.root, real); err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	f, err := t.root.Open(real)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, limit))
	return string(b)
}
