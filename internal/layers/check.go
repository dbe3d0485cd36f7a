package layers

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// Checked is what a check found in one replica's directory.
type Checked struct {
	Node     string
	Image    string
	Entries  int // in the layer
	Bytes    uint64
	Saved    int // in the saved area
	Problems []Problem
}

// Problem is something that docs/formats/layer.md does not allow.
type Problem struct {
	Path       string // from the replica's directory, or from the set's
	Text       string
	Repairable bool // it is left by a crash, and the next use of the layer repairs it
}

// leftByCrash is what is wrong with an entry whose name begins with "#".
const leftByCrash = "was left by a crash, or is being made or removed"

// problemsMax bounds what is listed of one replica.
const problemsMax = 1000

// Check reads what is on disk, and compares it with what is served from memory. Changes of names wait
// meanwhile.
func (l Layer) Check() (Checked, error) {
	node, image := l.r.Name()
	c := newChecker(l.root, node, image)
	err := l.r.View(func(top replica.LayerEntry) error {
		c.served = true
		c.run()
		c.compare(top)
		if c.Entries > 0 && l.r.Unrecorded() {
			c.problem(journal, false, "does not tell over which version the layer is")
		}
		return nil
	})
	return c.Checked, err
}

// journal is the name of the journal in the directory of all replicas.
const journal = "switches.log"

// CheckDir checks all replicas in a directory that no Set has open. The first result, without a node, has the
// problems of the directory itself.
func CheckDir(dir string) ([]Checked, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("check replicas %s: %w", dir, err)
	}
	defer unix.Close(fd)
	root := layer.Dir(fd)
	known, whole := checkJournal(dir)
	nodes, err := root.List(".")
	if err != nil {
		return nil, err
	}
	list := []Checked{whole}
	for _, node := range nodes {
		if slices.Contains([]string{"format", "sync", ".staged", journal, journal + ".new"}, node) ||
			strings.HasPrefix(node, journal+".damaged-") {
			continue
		}
		if strings.HasPrefix(node, "#") {
			list[0].Problems = append(list[0].Problems, Problem{Path: node, Text: leftByCrash, Repairable: true})
			continue
		}
		images, err := root.List(node)
		if err != nil {
			p := Problem{Path: node, Text: "is no directory of a node's replicas: " + err.Error()}
			list[0].Problems = append(list[0].Problems, p)
			continue
		}
		for _, im := range images {
			c := newChecker(root, node, im)
			c.run()
			if c.Entries > 0 && !known[node+"/"+im] {
				c.problem(journal, false, "does not tell over which version the layer is")
			}
			list = append(list, c.Checked)
		}
	}
	return list, nil
}

// checkJournal reads the journal without changing it. It returns the replicas in it.
func checkJournal(dir string) (known map[string]bool, whole Checked) {
	known, damaged, cut, err := replica.CheckJournal(dir)
	for _, at := range damaged {
		text := fmt.Sprintf("is damaged at byte %d; the next start keeps a copy and puts right what it can", at)
		whole.Problems = append(whole.Problems, Problem{Path: journal, Text: text})
	}
	switch {
	case os.IsNotExist(err):
	case err != nil:
		whole.Problems = append(whole.Problems, Problem{Path: journal, Text: err.Error()})
	case cut > 0:
		text := fmt.Sprintf("ends with %d bytes of a record that was cut short", cut)
		whole.Problems = append(whole.Problems, Problem{Path: journal, Text: text, Repairable: true})
	}
	return known, whole
}

// checker checks one replica's directory.
type checker struct {
	Checked
	root   layer.Dir
	home   layer.Home
	served bool // the replica is in use
	ids    map[fileid.ID]layer.Inode
	links  map[layer.Inode]*linkCount
}

// linkCount counts the names of an inode.
type linkCount struct {
	path  string
	names uint64
	want  uint64
}

func newChecker(root layer.Dir, node, im string) *checker {
	return &checker{
		Checked: Checked{Node: node, Image: im}, root: root, home: layer.Home(node + "/" + im),
		ids: make(map[fileid.ID]layer.Inode), links: make(map[layer.Inode]*linkCount),
	}
}

func (c *checker) problem(path string, repairable bool, format string, args ...any) {
	if len(c.Problems) < problemsMax {
		c.Problems = append(c.Problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), Repairable: repairable})
	}
}

func (c *checker) run() {
	names, err := c.root.List(string(c.home))
	if err == unix.ENOENT {
		return // the node has written nothing
	}
	if err != nil {
		c.problem(string(c.home), false, "cannot be read: %v", err)
		return
	}
	const here = layer.Home("")
	for _, name := range names {
		switch name {
		case here.Upper(""):
			c.layerDir(name)
		case here.Work():
			c.work()
		case here.Saved():
			c.stamped(name, c.savedDir)
		case here.Snapshots():
			c.stamped(name, c.snapshot)
		default:
			c.problem(name, false, "does not belong here")
		}
	}
	for _, l := range c.links {
		if l.names != l.want {
			const text = "has %d names, %d of them here: a file outside would change with it"
			c.problem(l.path, false, text, l.want, l.names)
		}
	}
}

// each calls do for the entries of a directory, with its open file. Then it enters the directories for which do
// returns true.
func (c *checker) each(path string, do func(fd int, name, at string, st *unix.Stat_t) (enter bool)) {
	fd, err := c.root.OpenDir(c.home.Join(path))
	if err != nil {
		if err != unix.ENOENT || !passing(path) {
			c.problem(path, false, "cannot be read: %v", err)
		}
		return
	}
	names, err := layer.Dir(fd).Names()
	if err != nil {
		c.problem(path, false, "cannot be read: %v", err)
	}
	slices.Sort(names)
	var below []string
	for _, name := range names {
		at := path + "/" + name
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err != unix.ENOENT || !passing(at) {
				c.problem(at, false, "cannot be read: %v", err)
			}
			continue
		}
		if do(fd, name, at, &st) && vfs.TypeOf(st.Mode) == vfs.Directory {
			below = append(below, at)
		}
	}
	unix.Close(fd)
	for _, at := range below {
		c.each(at, do)
	}
}

// passing reports whether what is at a path may disappear at any time, because a call is done with it.
func passing(at string) bool { return strings.HasPrefix(at, "work/") || strings.Contains(at, "/#") }

// layerDir checks the layer: whiteouts, ids, marks, lengths.
func (c *checker) layerDir(top string) {
	opaque := make(map[string]bool)
	c.each(top, func(fd int, name, at string, st *unix.Stat_t) bool {
		above := opaque[parentPath(at)]
		if layer.IsWhiteout(st) {
			if above {
				c.problem(at, false, "is a whiteout where nothing of the version shows")
			}
			return false
		}
		c.Entries++
		c.entry(layer.At(fd, name), at, st, true)
		opaque[at] = above || c.opaque(layer.At(fd, name), at, st)
		if len(at)-len(top)-1 > layer.PathMax {
			c.problem(at, false, "has a path of %d bytes; %d at most", len(at)-len(top)-1, layer.PathMax)
		}
		return true
	})
}

func (c *checker) opaque(e layer.Entry, at string, st *unix.Stat_t) bool {
	v := e.OpaqueValue(make([]byte, 64))
	switch {
	case v == "":
		return false
	case vfs.TypeOf(st.Mode) != vfs.Directory:
		c.problem(at, false, "is marked opaque and is no directory")
	case v != "y":
		c.problem(at, false, "has %q for trusted.overlay.opaque", v)
	}
	return v == "y"
}

// entry checks one object. If unique is true its id is compared with the others.
func (c *checker) entry(e layer.Entry, at string, st *unix.Stat_t, unique bool) {
	ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
	if kind := vfs.TypeOf(st.Mode); kind != vfs.Directory {
		if kind == vfs.Regular && unique && c.links[ino] == nil {
			c.Bytes += uint64(st.Size)
		}
		c.link(ino, at, uint64(st.Nlink))
	}
	if e.PartOfGroup() {
		c.problem(at, !c.served, "lacks names of its hard-link group")
	}
	id, origin, ok, err := e.ID(make([]byte, 64))
	if err == unix.ENODATA {
		return // made by hand: it gets one
	}
	switch {
	case err != nil || !ok:
		v, _ := e.Xattr("trusted.dim.id", make([]byte, 64))
		c.problem(at, true, "has a trusted.dim.id of %d bytes", len(v))
	case origin != nil && vfs.TypeOf(st.Mode) != vfs.Regular:
		c.problem(at, false, "has a digest in its trusted.dim.id and is no regular file")
	case !unique:
	case c.ids[id] != (layer.Inode{}) && c.ids[id] != ino:
		c.problem(at, true, "has the id of another entry, %016x", uint64(id))
	default:
		c.ids[id] = ino
	}
}

func (c *checker) link(ino layer.Inode, at string, want uint64) {
	l := c.links[ino]
	if l == nil {
		l = &linkCount{path: at, want: want}
		c.links[ino] = l
	}
	l.names++
}

// work checks that nothing was left in work/. What a call is making has a name with "#".
func (c *checker) work() {
	c.each("work", func(_ int, name, at string, st *unix.Stat_t) bool {
		if vfs.TypeOf(st.Mode) != vfs.Directory {
			c.link(layer.Inode{Dev: st.Dev, Ino: st.Ino}, at, uint64(st.Nlink))
		}
		switch {
		case !c.served && strings.Count(at, "/") == 1:
			c.problem(at, true, "was left by a crash or an emergency mount")
		case c.served && strings.Count(at, "/") == 1 && name[0] != '#':
			c.problem(at, false, "does not belong here")
		}
		return true
	})
}

// stamped checks that the entries of an area are directories named by stamps. check checks each of them.
func (c *checker) stamped(area string, check func(dir string)) {
	names, err := c.root.List(c.home.Join(area))
	if err != nil {
		c.problem(area, false, "cannot be read: %v", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "#") {
			c.problem(area+"/"+name, true, leftByCrash)
			c.linksIn(area, name)
			continue
		}
		if _, err := layer.ParseStamp(name); err != nil {
			c.problem(area+"/"+name, false, "is not named by a time")
			continue
		}
		check(area + "/" + name)
	}
}

// linksIn counts the names of files in a directory that is being made or removed: other names of these files
// may be where they belong.
func (c *checker) linksIn(area, name string) {
	count := func(_ int, _, at string, st *unix.Stat_t) bool {
		if vfs.TypeOf(st.Mode) != vfs.Directory {
			c.link(layer.Inode{Dev: st.Dev, Ino: st.Ino}, at, uint64(st.Nlink))
		}
		return true
	}
	var st unix.Stat_t
	if err := c.root.Stat(c.home.Join(area+"/"+name), &st); err != nil {
		return
	}
	if count(-1, name, area+"/"+name, &st); vfs.TypeOf(st.Mode) == vfs.Directory {
		c.each(area+"/"+name, count)
	}
}

func (c *checker) savedDir(dir string) {
	c.each(dir, func(fd int, name, at string, st *unix.Stat_t) bool {
		kind := vfs.TypeOf(st.Mode)
		if mark, bad := layer.At(fd, name).BadSavedMark(kind); bad {
			c.problem(at, false, "has %q for trusted.dim.saved", mark)
		}
		if layer.IsWhiteout(st) {
			return false
		}
		c.Saved++
		c.entry(layer.At(fd, name), at, st, false)
		if _, _, _, err := layer.At(fd, name).ID(make([]byte, 64)); err == unix.ENODATA && kind != vfs.Directory {
			c.problem(at, false, "has no trusted.dim.id: who has it open cannot find it")
		}
		return true
	})
}

// snapshot checks one snapshot: its description and its entries.
func (c *checker) snapshot(dir string) {
	fd, err := c.root.OpenDir(c.home.Join(dir))
	if err != nil {
		c.problem(dir, false, "cannot be read: %v", err)
		return
	}
	info := layer.At(fd, ".").SnapshotInfo()
	unix.Close(fd)
	if len(info.Over) == 0 {
		c.problem(dir, false, "does not tell over which version the layer was")
	}
	c.each(dir, func(fd int, name, at string, st *unix.Stat_t) bool {
		if !layer.IsWhiteout(st) {
			c.entry(layer.At(fd, name), at, st, false)
		}
		return true
	})
}

// compare checks that what is served from memory at entry and below is what is on the disk.
func (c *checker) compare(entry replica.LayerEntry) {
	at := layer.Home("").Upper(entry.Path())
	if entry.Kind() != 0 || entry.Whiteout() {
		var st unix.Stat_t
		err := c.root.Stat(c.home.Join(at), &st)
		switch {
		case err != nil:
			c.problem(at, false, "is served and cannot be read: %v", err)
		case entry.Whiteout() != layer.IsWhiteout(&st) || entry.Kind() != 0 && entry.Kind() != vfs.TypeOf(st.Mode):
			c.problem(at, false, "is served as something else than it is")
		}
	}
	for below := range entry.Entries() {
		c.compare(below)
	}
}
