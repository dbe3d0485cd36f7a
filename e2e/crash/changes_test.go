package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"dim/internal/vfs"
)

// drawing chooses a random change and applies it to the state.
type drawing struct {
	rand *rand.Rand
	s    state
}

var names = []string{"a", "b", "c", "d", "e"}

// in returns the directory of a path, which handles can find, and the name.
func in(p string) (dir, name string) {
	if dir = path.Dir(p); dir == "." {
		return "", p
	}
	return "/" + dir, path.Base(p)
}

// some returns a path of an entry of one of the kinds, or "" if there is none.
func (d drawing) some(kinds ...vfs.Type) string {
	var all []string
	for p, e := range d.s {
		if slices.Contains(kinds, e.kind) {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return all[d.rand.IntN(len(all))]
}

// any returns a path in some directory. It may exist or not.
func (d drawing) any() string {
	name := names[d.rand.IntN(len(names))]
	if dir := d.some(vfs.Directory); dir != "" && d.rand.IntN(2) == 0 && strings.Count(dir, "/") < 2 {
		return dir + "/" + name
	}
	return name
}

// free returns a path that does not exist, or "" if it did not find one.
func (d drawing) free() string {
	if p := d.any(); d.s[p] == nil {
		return p
	}
	return ""
}

func (d drawing) empty(dir string) bool {
	for p := range d.s {
		if strings.HasPrefix(p, dir+"/") {
			return false
		}
	}
	return true
}

func mode(m uint32) vfs.SetAttr { return vfs.SetAttr{Valid: vfs.SetMode, Mode: m} }

// make returns a change that creates e at p by a call on the directory.
func (d drawing) make(p, what string, e *entry,
	call func(fs vfs.FS, dir vfs.Handle, name string) error) (change, bool) {
	if p == "" {
		return change{}, false
	}
	d.s[p] = e
	dir, name := in(p)
	return change{text: what + " " + p, do: func(fs vfs.FS, h handles) error {
		at, err := h(dir)
		if err != nil {
			return err
		}
		return call(fs, at, name)
	}}, true
}

func (d drawing) create() (change, bool) {
	m := []uint32{0o600, 0o644, 0o755}[d.rand.IntN(3)]
	return d.make(d.free(), "create", &entry{kind: vfs.Regular, mode: m},
		func(fs vfs.FS, dir vfs.Handle, name string) error {
			_, err := fs.Create(root, dir, name, &vfs.Create{Mode: vfs.Guarded, Attr: mode(m)})
			return err
		})
}

func (d drawing) mkdir() (change, bool) {
	s := mode(0o755)
	return d.make(d.free(), "mkdir", &entry{kind: vfs.Directory, mode: 0o755},
		func(fs vfs.FS, dir vfs.Handle, name string) error {
			_, err := fs.Mkdir(root, dir, name, &s)
			return err
		})
}

func (d drawing) symlink() (change, bool) {
	target := fmt.Sprint("to-", d.rand.IntN(100))
	return d.make(d.free(), "symlink", &entry{kind: vfs.Symlink, mode: 0o777, target: target},
		func(fs vfs.FS, dir vfs.Handle, name string) error {
			_, err := fs.Symlink(root, dir, name, target, &vfs.SetAttr{})
			return err
		})
}

func (d drawing) link() (change, bool) {
	from, to := d.some(vfs.Regular), d.free()
	if from == "" || to == "" {
		return change{}, false
	}
	d.s[to] = d.s[from]
	dir, name := in(to)
	return change{text: "link " + from + " " + to, do: func(fs vfs.FS, h handles) error {
		f, err := h("/" + from)
		if err != nil {
			return err
		}
		at, err := h(dir)
		if err == nil {
			_, err = fs.Link(root, f, at, name)
		}
		return err
	}}, true
}

// on returns a change of the object at p.
func (d drawing) on(p, text string, call func(fs vfs.FS, h vfs.Handle) error) (change, bool) {
	return change{text: text, do: func(fs vfs.FS, h handles) error {
		f, err := h("/" + p)
		if err != nil {
			return err
		}
		return call(fs, f)
	}}, true
}

func (d drawing) write() (change, bool) {
	p := d.some(vfs.Regular)
	if p == "" {
		return change{}, false
	}
	e := d.s[p]
	off := d.rand.IntN(len(e.content) + 1)
	data := strings.Repeat(string(rune('A'+d.rand.IntN(26))), 1+d.rand.IntN(9000))
	if len(e.content) < off+len(data) {
		e.content += strings.Repeat("\x00", off+len(data)-len(e.content))
	}
	e.content = e.content[:off] + data + e.content[off+len(data):]
	stability := []vfs.Stability{vfs.FileSync, vfs.Unstable}[d.rand.IntN(2)]
	c, ok := d.on(p, fmt.Sprintf("write %s at %d %d of %q, %d", p, off, len(data), data[:1], stability),
		func(fs vfs.FS, h vfs.Handle) error {
			_, err := fs.Write(root, h, []byte(data), uint64(off), stability)
			if err == nil && stability == vfs.Unstable {
				_, err = fs.Commit(root, h)
			}
			return err
		})
	c.path = p
	return c, ok
}

func (d drawing) truncate() (change, bool) {
	p := d.some(vfs.Regular)
	if p == "" {
		return change{}, false
	}
	e := d.s[p]
	size := d.rand.IntN(len(e.content) + 300)
	e.content = (e.content + strings.Repeat("\x00", 300))[:size]
	c, ok := d.on(p, fmt.Sprintf("truncate %s to %d", p, size), func(fs vfs.FS, h vfs.Handle) error {
		_, err := fs.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetSize, Size: uint64(size)})
		return err
	})
	c.path = p
	return c, ok
}

func (d drawing) chmod() (change, bool) {
	p := d.some(vfs.Regular, vfs.Directory)
	if p == "" {
		return change{}, false
	}
	s := vfs.SetAttr{Valid: vfs.SetMode | vfs.SetUID, Mode: []uint32{0o640, 0o711, 0o777}[d.rand.IntN(3)],
		UID: uint32(d.rand.IntN(3))}
	d.s[p].uid = s.UID
	half := d.s.clone() // the server needs two system calls: a crash may come between them
	d.s[p].mode = s.Mode
	c, ok := d.on(p, fmt.Sprintf("chmod %s %o %d", p, s.Mode, s.UID), func(fs vfs.FS, h vfs.Handle) error {
		_, err := fs.SetAttr(root, h, &s)
		return err
	})
	c.half = half
	return c, ok
}

func (d drawing) remove() (change, bool) {
	p := d.some(vfs.Regular, vfs.Symlink)
	if p == "" || len(d.s) < 6 {
		return change{}, false
	}
	delete(d.s, p)
	dir, name := in(p)
	return change{text: "remove " + p, do: func(fs vfs.FS, h handles) error {
		at, err := h(dir)
		if err == nil {
			_, err = fs.Remove(root, at, name)
		}
		return err
	}}, true
}

func (d drawing) rmdir() (change, bool) {
	p := d.some(vfs.Directory)
	if p == "" || !d.empty(p) {
		return change{}, false
	}
	delete(d.s, p)
	dir, name := in(p)
	return change{text: "rmdir " + p, do: func(fs vfs.FS, h handles) error {
		at, err := h(dir)
		if err == nil {
			_, err = fs.Rmdir(root, at, name)
		}
		return err
	}}, true
}

// rename moves over nothing, a file over a file, or a directory over an empty one.
func (d drawing) rename() (change, bool) {
	from, to := d.some(vfs.Regular, vfs.Symlink, vfs.Directory), d.any()
	if from == "" || from == to || strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/") {
		return change{}, false
	}
	isDir := d.s[from].kind == vfs.Directory
	if over := d.s[to]; over != nil && ((over.kind == vfs.Directory) != isDir || isDir && !d.empty(to)) {
		return change{}, false
	}
	if isDir && strings.Count(to, "/") > 0 {
		return change{}, false // otherwise the tree becomes ever deeper
	}
	d.move(from, to)
	fromDir, fromName := in(from)
	toDir, toName := in(to)
	return change{text: "rename " + from + " " + to, do: func(fs vfs.FS, h handles) error {
		f, err := h(fromDir)
		if err != nil {
			return err
		}
		t, err := h(toDir)
		if err == nil {
			_, err = fs.Rename(root, f, fromName, t, toName)
		}
		return err
	}}, true
}

func (d drawing) move(from, to string) {
	if d.s[from] == d.s[to] {
		return // both names of one file stay
	}
	d.s[to] = d.s[from]
	delete(d.s, from)
	for _, p := range slices.Collect(maps.Keys(d.s)) {
		if below, ok := strings.CutPrefix(p, from+"/"); ok {
			d.s[to+"/"+below] = d.s[p]
			delete(d.s, p)
		}
	}
}
