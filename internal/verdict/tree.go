package verdict

import (
	"io"
	"io/fs"

	"dim/internal/rootpath"
)

// tree is a version's file system. Symbolic links are resolved within it.
type tree struct{ root fs.FS }

// maxUnit bounds what is read of a unit or a list of directories.
const maxUnit = 256 << 10

// resolve returns the path to which name leads, and the symbolic links on the way. ok is false if there is no such
// file.
func (t tree) resolve(name string) (real string, links []string, ok bool) {
	root, ok := t.root.(fs.ReadLinkFS)
	if !ok {
		return "", nil, false
	}
	real, links, err := rootpath.Resolve(root, name)
	if err != nil || real == "." {
		return "", links, false
	}
	return real, links, true
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
