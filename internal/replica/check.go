package replica

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
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
	Path  string // from the replica's directory, or from the set's
	Text  string
	Mends bool // what a crash leaves: the next use of the layer puts it right
}

// problemsMax bounds what is listed of one replica.
const problemsMax = 1000

// Check reads what is on the disk of r, and compares it with what is served from memory. Changes of names wait meanwhile.
func (r *Replica) Check() (Checked, error) {
	if err := r.rlock(); err != nil {
		return Checked{Node: r.node, Image: r.image}, err
	}
	defer r.mu.RUnlock()
	c := newChecker(r.set, r.node, r.image)
	c.served = r
	c.run()
	if c.Entries > 0 && !r.recorded && r.state.fresh {
		c.problem("switches.log", false, "does not tell over which version the layer is")
	}
	return c.Checked, nil
}

// CheckDir checks all replicas in a directory that no Set has open. Problems of the directory itself are of a replica without a name.
func CheckDir(dir string) ([]Checked, error) {
	fd, err := unix.Open(dir, openDir|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("check replicas %s: %w", dir, err)
	}
	defer unix.Close(fd)
	s := &Set{path: dir, dir: fd}
	known, whole := s.checkJournal()
	nodes, err := listDir(fd)
	if err != nil {
		return nil, err
	}
	slices.Sort(nodes)
	list := []Checked{whole}
	for _, node := range nodes {
		if slices.Contains([]string{"format", "sync", "switches.log", "switches.log.new"}, node) {
			continue
		}
		images, err := s.list(node)
		if err != nil {
			list[0].Problems = append(list[0].Problems, Problem{Path: node, Text: "is no directory of a node's replicas: " + err.Error()})
			continue
		}
		for _, im := range images {
			c := newChecker(s, node, im)
			c.run()
			if c.Entries > 0 && !known[node+"/"+im] {
				c.problem("switches.log", false, "does not tell over which version the layer is")
			}
			list = append(list, c.Checked)
		}
	}
	return list, nil
}

// checkJournal reads switches.log without a change, and tells which replicas it knows.
func (s *Set) checkJournal() (known map[string]bool, whole Checked) {
	j := &journal{versions: make(map[image.Digest]*image.Version), states: make(map[string]*state)}
	steps := make(map[stepKey]*step)
	torn, err := durable.ReadLog(filepath.Join(s.path, "switches.log"), func(b []byte) error {
		var r record
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		return j.replay(&r, steps)
	})
	switch {
	case os.IsNotExist(err):
	case err != nil:
		whole.Problems = append(whole.Problems, Problem{Path: "switches.log", Text: err.Error()})
	case torn > 0:
		whole.Problems = append(whole.Problems, Problem{Path: "switches.log", Text: fmt.Sprintf("ends with %d bytes of a record that was cut short", torn), Mends: true})
	}
	known = make(map[string]bool, len(j.states))
	for dir := range j.states {
		known[dir] = true
	}
	return known, whole
}

// list returns the names in a directory of the set, sorted.
func (s *Set) list(path string) ([]string, error) {
	fd, err := s.openBeneath(path, openDir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := listDir(fd)
	slices.Sort(names)
	return names, err
}

// checker checks one replica's directory.
type checker struct {
	Checked
	set    *Set
	dir    string
	served *Replica // whose memory is compared with the disk; nil: nobody serves it
	ids    map[image.ID]inode
	links  map[inode]*linkCount
}

// linkCount counts the names of an inode.
type linkCount struct {
	path  string
	names uint64
	want  uint64
}

func newChecker(s *Set, node, im string) *checker {
	return &checker{
		Checked: Checked{Node: node, Image: im}, set: s, dir: node + "/" + im, ids: make(map[image.ID]inode), links: make(map[inode]*linkCount),
	}
}

func (c *checker) problem(path string, mends bool, format string, args ...any) {
	if len(c.Problems) < problemsMax {
		c.Problems = append(c.Problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), Mends: mends})
	}
}

func (c *checker) run() {
	names, err := c.set.list(c.dir)
	if err == unix.ENOENT {
		return // the node has written nothing
	}
	if err != nil {
		c.problem(c.dir, false, "cannot be read: %v", err)
		return
	}
	for _, name := range names {
		switch name {
		case "upper":
			c.layerDir("upper")
		case "work":
			c.work()
		case "saved":
			c.stamped("saved", c.savedDir)
		case snapshotArea:
			c.stamped(snapshotArea, c.snapshot)
		default:
			c.problem(name, false, "does not belong here")
		}
	}
	for _, l := range c.links {
		if l.names != l.want {
			c.problem(l.path, false, "has %d names, %d of them here: a file outside would change with it", l.want, l.names)
		}
	}
	if c.served != nil {
		c.compare(c.served.root)
	}
}

// each calls do for what is in a directory, with its open file, and returns the directories in it that do wants to be entered.
func (c *checker) each(path string, do func(fd int, name, at string, st *unix.Stat_t) (enter bool)) {
	fd, err := c.set.openBeneath(c.dir+"/"+path, openDir)
	if err != nil {
		if err != unix.ENOENT || !passing(path) {
			c.problem(path, false, "cannot be read: %v", err)
		}
		return
	}
	names, err := listDir(fd)
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

// passing reports whether what stands at a path may go while it is looked at: a call may be done with it.
func passing(at string) bool { return strings.HasPrefix(at, "work/") || strings.Contains(at, "/#") }

// layerDir checks the layer: whiteouts, ids, marks, lengths.
func (c *checker) layerDir(top string) {
	opaque := make(map[string]bool)
	c.each(top, func(fd int, name, at string, st *unix.Stat_t) bool {
		above := opaque[parentPath(at)]
		if isWhiteout(st) {
			if above {
				c.problem(at, false, "is a whiteout where nothing of the version shows")
			}
			return false
		}
		c.Entries++
		c.entry(fd, name, at, st, true)
		opaque[at] = above || c.opaque(fd, name, at, st)
		if len(at)-len(top)-1 > pathMax {
			c.problem(at, false, "has a path of %d bytes; %d at most", len(at)-len(top)-1, pathMax)
		}
		return true
	})
}

func (c *checker) opaque(fd int, name, at string, st *unix.Stat_t) bool {
	v, err := getXattr(fd, name, xattrOpaque, make([]byte, 64))
	switch {
	case err != nil:
		return false
	case vfs.TypeOf(st.Mode) != vfs.Directory:
		c.problem(at, false, "is marked opaque and is no directory")
	case string(v) != "y":
		c.problem(at, false, "has %q for trusted.overlay.opaque", v)
	}
	return string(v) == "y"
}

// entry checks one object. Ids are compared where unique says so.
func (c *checker) entry(fd int, name, at string, st *unix.Stat_t, unique bool) {
	ino := inode{st.Dev, st.Ino}
	if kind := vfs.TypeOf(st.Mode); kind != vfs.Directory {
		if kind == vfs.Regular && unique && c.links[ino] == nil {
			c.Bytes += uint64(st.Size)
		}
		c.link(ino, at, uint64(st.Nlink))
	}
	if hasXattr(fd, name, xattrGroup) {
		c.problem(at, c.served == nil, "lacks names of its hard-link group")
	}
	v, err := getXattr(fd, name, xattrID, make([]byte, 64))
	if err == unix.ENODATA {
		return // made by hand: it gets one
	}
	id, origin, ok := parseIDValue(v)
	switch {
	case err != nil || !ok:
		c.problem(at, true, "has a trusted.dim.id of %d bytes", len(v))
	case origin != nil && vfs.TypeOf(st.Mode) != vfs.Regular:
		c.problem(at, false, "has a digest in its trusted.dim.id and is no regular file")
	case !unique:
	case c.ids[id] != (inode{}) && c.ids[id] != ino:
		c.problem(at, true, "has the id of another entry, %016x", uint64(id))
	default:
		c.ids[id] = ino
	}
}

func (c *checker) link(ino inode, at string, want uint64) {
	l := c.links[ino]
	if l == nil {
		l = &linkCount{path: at, want: want}
		c.links[ino] = l
	}
	l.names++
}

// work checks that nothing was left: what a call is just making has a name with "#".
func (c *checker) work() {
	c.each("work", func(_ int, name, at string, st *unix.Stat_t) bool {
		if vfs.TypeOf(st.Mode) != vfs.Directory {
			c.link(inode{st.Dev, st.Ino}, at, uint64(st.Nlink))
		}
		switch {
		case c.served == nil && strings.Count(at, "/") == 1:
			c.problem(at, true, "was left by a crash or an emergency mount")
		case c.served != nil && strings.Count(at, "/") == 1 && name[0] != '#':
			c.problem(at, false, "does not belong here")
		}
		return true
	})
}

// stamped checks that all in an area are directories named by stamps, and each of them by check.
func (c *checker) stamped(area string, check func(dir string)) {
	names, err := c.set.list(c.dir + "/" + area)
	if err != nil {
		c.problem(area, false, "cannot be read: %v", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "#") {
			c.problem(area+"/"+name, true, "was left by a crash, or is being made or removed")
			c.linksIn(area, name)
			continue
		}
		if _, err := time.Parse(stampFormat, name); err != nil {
			c.problem(area+"/"+name, false, "is not named by a time")
			continue
		}
		check(area + "/" + name)
	}
}

// linksIn counts the names of files in what is half made or half removed: others of their names may be where they belong.
func (c *checker) linksIn(area, name string) {
	count := func(_ int, _, at string, st *unix.Stat_t) bool {
		if vfs.TypeOf(st.Mode) != vfs.Directory {
			c.link(inode{st.Dev, st.Ino}, at, uint64(st.Nlink))
		}
		return true
	}
	var st unix.Stat_t
	if err := c.set.stat(c.dir+"/"+area+"/"+name, &st); err != nil {
		return
	}
	if count(-1, name, area+"/"+name, &st); vfs.TypeOf(st.Mode) == vfs.Directory {
		c.each(area+"/"+name, count)
	}
}

func (c *checker) savedDir(dir string) {
	c.each(dir, func(fd int, name, at string, st *unix.Stat_t) bool {
		isDir := vfs.TypeOf(st.Mode) == vfs.Directory
		if v, err := getXattr(fd, name, xattrSaved, make([]byte, 64)); err == nil && !(isDir && string(v) == string(AsideAttributes) || !isDir && string(v) == "forgotten") {
			c.problem(at, false, "has %q for trusted.dim.saved", v)
		}
		if isWhiteout(st) {
			return false
		}
		c.Saved++
		c.entry(fd, name, at, st, false)
		if _, err := getXattr(fd, name, xattrID, make([]byte, 64)); err == unix.ENODATA && !isDir {
			c.problem(at, false, "has no trusted.dim.id: who has it open cannot find it")
		}
		return true
	})
}

// snapshot checks one snapshot: what is told of it, and its entries.
func (c *checker) snapshot(dir string) {
	fd, err := c.set.openBeneath(c.dir+"/"+dir, openDir)
	if err != nil {
		c.problem(dir, false, "cannot be read: %v", err)
		return
	}
	over, _ := xattrValue(procPath(fd, "."), xattrOver)
	unix.Close(fd)
	if len(parseOver(over)) == 0 {
		c.problem(dir, false, "does not tell over which version the layer was")
	}
	c.each(dir, func(fd int, name, at string, st *unix.Stat_t) bool {
		if !isWhiteout(st) {
			c.entry(fd, name, at, st, false)
		}
		return true
	})
}

// compare checks that what is served from memory at and below p is what is on the disk.
func (c *checker) compare(p *place) {
	at := strings.TrimSuffix("upper/"+p.path(), "/")
	if p.obj != nil || p.white {
		var st unix.Stat_t
		err := c.set.stat(c.dir+"/"+at, &st)
		switch {
		case err != nil:
			c.problem(at, false, "is served and cannot be read: %v", err)
		case p.white != isWhiteout(&st) || p.obj != nil && p.obj.kind != vfs.TypeOf(st.Mode):
			c.problem(at, false, "is served as something else than it is")
		}
	}
	for _, k := range p.kids {
		c.compare(k)
	}
}

// stat is lstat(2) of a path from the set's directory.
func (s *Set) stat(path string, st *unix.Stat_t) error {
	fd, err := s.openBeneath(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, st)
}
