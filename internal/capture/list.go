package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// worker is one goroutine of a scan.
type worker struct {
	*scan
	pool *pool
	ctx  context.Context
	buf  []byte // for listings
}

func (w *worker) do(t task) error {
	if t.to > 0 {
		defer t.d.release()
		return w.readItems(t.d, t.from, t.to)
	}
	return w.list(t.d)
}

// list lists d, compares it with its note, and adds tasks for the entries that differ and the directories in it.
func (w *worker) list(d *dir) error {
	if d.parent != nil {
		fd, err := openAt(d.parent.fd, d.name, unix.O_DIRECTORY)
		d.parent.release()
		if err != nil {
			d.gone = true
			w.reportError(d.path(), err)
			return nil
		}
		d.fd = fd
	}
	l := lister{worker: w, d: d, same: d.note != nil, room: image.MaxPath - d.pathLen()}
	if d.note != nil {
		l.old, l.reliableBefore = d.note.entries, d.note.reliableBefore()
	}
	err := l.visit()
	if err != nil {
		unix.Close(d.fd)
		d.gone, d.items, d.children, d.same = true, nil, nil, false
		w.reportError(d.path(), err)
		return nil
	}
	if w.linksChanged.Load() {
		unix.Close(d.fd)
		return errLinks
	}
	l.push()
	return nil
}

// lister compares one directory with its note while the names are read. It makes items only from the first difference
// on.
type lister struct {
	*worker
	d     *dir
	same  bool
	n     int // while same: number of names that are equal to their notes, in order
	old   []note
	index map[string]int // of old, made when it is needed
	bytes uint64
	room  int // for a name, in bytes, before the path is too long

	reliableBefore time.Time // see dirNote
}

// visit lists the directory, or only visits the children on the way to touched directories.
func (l *lister) visit() error {
	if !l.passThrough() {
		if err := l.list(); err != nil {
			return err
		}
	}
	return l.attributes()
}

func (l *lister) list() error {
	for {
		n, err := unix.Getdents(l.d.fd, l.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for buf := l.buf[:n]; len(buf) > 0; {
			var e dirent
			if e, buf, err = nextDirent(buf); err != nil {
				return err
			}
			if err := l.name(&e); err != nil {
				return err
			}
		}
	}
	if l.same && l.n < len(l.old) {
		l.startItems()
	}
	l.d.same = l.same
	l.seenFiles.Add(uint64(max(l.n, len(l.d.items))))
	l.seenBytes.Add(l.bytes)
	return nil
}

// name handles one name of the listing.
func (l *lister) name(e *dirent) error {
	switch {
	case string(e.name) == ".":
		return l.checkIdentity(e.ino)
	case string(e.name) == ".." || e.kind == unix.DT_SOCK:
		return nil
	case !l.d.match.Idle() && l.d.match.Covers(string(e.name)):
		return nil
	}
	if len(e.name) > l.room {
		return fmt.Errorf("the path of %.20q in it is longer than %d bytes", e.name, image.MaxPath)
	}
	var x unix.Statx_t
	if err := statx(l.d.fd, e.cstr, statxFlags, &x); err != nil {
		l.reportError(image.JoinPath(l.d.path(), string(e.name)), err)
		return nil
	}
	s := l.dev.stamp(&x)
	if s.kind() == unix.S_IFSOCK {
		return nil
	}
	if l.omitted(e.name, &s) {
		s.omit(s.flags | flagOmitted)
	}
	if l.same && l.n < len(l.old) {
		if o := &l.old[l.n]; o.stamp == s && o.name == string(e.name) && l.trusted(&s) {
			l.unchanged(l.n, o)
			l.n++
			return nil
		}
	}
	if l.same {
		l.startItems()
	}
	l.add(string(e.name), s)
	return nil
}

// checkIdentity checks that d is the directory that was found in its parent. The listing has its inode number, which
// costs nothing. If that differs, statx decides: on some file systems it may differ, and a directory may have been
// moved or mounted there meanwhile.
func (l *lister) checkIdentity(ino uint64) error {
	d := l.d
	if ino == d.stamp.ino {
		return nil
	}
	var x unix.Statx_t
	if err := statxFD(d.fd, &x); err != nil {
		return err
	}
	s := l.dev.stamp(&x)
	if s.id() == d.stamp.id() && s.flags == d.stamp.flags {
		return nil
	}
	if s.flags&flagMount != 0 {
		return unix.ESTALE // mounted meanwhile: the next capture will find a mount point
	}
	d.stamp, d.known = s, false
	return nil
}

// omitted reports whether an entry is captured without its content.
func (l *lister) omitted(name []byte, s *stamp) bool {
	if s.flags&flagMount != 0 {
		return true
	}
	if !s.isDir() {
		return false
	}
	if l.d.parent == nil && systemDir(string(name)) {
		return true
	}
	for _, own := range l.own {
		if own == s.id() {
			return true
		}
	}
	return !l.d.match.Idle() && l.d.match.Enter(string(name)).Everything()
}

// systemDir reports whether a directory of the master's root belongs to the running system.
func systemDir(name string) bool { return name == "proc" || name == "sys" || name == "dev" }

// trusted reports whether an entry with the stamp of its note is unchanged for certain. It is not if it changed at
// about the time of the note. The stamp of an omitted directory does not show changes of its xattrs.
func (l *lister) trusted(s *stamp) bool {
	return s.before(l.reliableBefore) && (s.flags&(flagOmitted|flagMount) != flagOmitted)
}

// unchanged handles a name that is equal to its note, which has the index at.
func (l *lister) unchanged(at int, o *note) {
	switch {
	case o.stamp.isDir():
		if o.stamp.flags&flagOmitted == 0 && l.enters(o) {
			l.child(&dir{name: o.name, at: at, stamp: o.stamp, known: true}, o)
		}
	case o.stamp.nlink > 1:
		l.addToGroup(at, &o.stamp)
	default:
		l.bytes += o.stamp.size
	}
}

// child adds a directory. C has its name, stamp and index, and is known if the stamp is that of its note o, which may
// be nil.
func (l *lister) child(c *dir, o *note) *dir {
	c.parent, c.touch = l.d, l.d.touch.at(c.name)
	same := false
	if o != nil && o.child != nil {
		c.note, same = o.child, o.stamp.id() == c.stamp.id()
	}
	c.deep = l.d.deep || !same || c.touch.is(touchedTree)
	c.listed = c.deep || o.stamp != c.stamp || c.touch.is(touchedDir)
	if !l.d.match.Idle() {
		c.match = l.d.match.Enter(c.name)
	}
	l.d.children = append(l.d.children, c)
	return c
}

// addToGroup adds the name with index at to its hard-link group.
func (l *lister) addToGroup(at int, s *stamp) *group {
	if l.partial {
		return nil // unchanged, or the scan is repeated as a whole
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[s.id()]
	if g == nil {
		g = &group{stamp: *s}
		l.groups[s.id()] = g
	}
	g.members = append(g.members, member{l.d, at})
	return g
}

// startItems makes items of the names so far, because the next one differs.
func (l *lister) startItems() {
	l.same = false
	l.itemize(l.d, l.old[:l.n])
}

// itemize makes items of names of d that are equal to their notes.
func (c *scan) itemize(d *dir, notes []note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.same = false
	d.items = make([]item, len(notes))
	for i := range notes {
		o := &notes[i]
		d.items[i] = item{name: o.name, stamp: o.stamp, note: i}
		if !o.stamp.isDir() && o.stamp.nlink > 1 {
			d.items[i].group = c.groups[o.stamp.id()]
		}
	}
	for _, child := range d.children {
		d.items[child.at].child = child
	}
}

// add adds a name to a directory that is not same.
func (l *lister) add(name string, s stamp) {
	it := item{name: name, stamp: s, note: -1}
	at := len(l.d.items)
	o, noted := l.find(name)
	if noted >= 0 && o.stamp == s && l.trusted(&s) {
		it.note = noted
	}
	if it.note < 0 && s.flags&flagOmitted == 0 {
		l.changed.Store(true)
	}
	switch {
	case s.isDir():
		if s.flags&flagOmitted == 0 {
			if it.note < 0 || l.enters(o) {
				it.child = l.child(&dir{name: name, at: at, stamp: s, known: it.note >= 0}, o)
			}
		}
	case s.nlink > 1:
		it.group = l.addToGroup(at, &s)
		if l.partial && it.note < 0 {
			l.linksChanged.Store(true)
		}
	case it.note >= 0:
		l.bytes += s.size
	}
	l.d.items = append(l.d.items, it)
}

// find returns the note of name and its index, or -1.
func (l *lister) find(name string) (*note, int) {
	if len(l.old) == 0 {
		return nil, -1
	}
	if at := len(l.d.items); at < len(l.old) && l.old[at].name == name {
		return &l.old[at], at
	}
	if l.index == nil {
		l.index = make(map[string]int, len(l.old))
		for i := range l.old {
			l.index[l.old[i].name] = i
		}
	}
	if at, ok := l.index[name]; ok {
		return &l.old[at], at
	}
	return nil, -1
}

// attributes reads the attributes of the directory that are not in its stamp.
func (l *lister) attributes() (err error) {
	if !l.d.known && l.d.parent != nil {
		l.d.xattrs, err = readXattrs(fdXattrs(l.d.fd))
	}
	return err
}

// The size of a task that reads items.
const (
	itemsPerTask = 32
	bytesPerTask = 4 << 20
)

// push adds the tasks for a directory. The files are added last and so are read first; then the directory can be
// closed.
func (l *lister) push() {
	d := l.d
	var tasks []task
	for _, c := range d.children {
		tasks = append(tasks, task{d: c})
	}
	from, count, bytes := 0, 0, uint64(0)
	for i := range d.items {
		it := &d.items[i]
		if it.note >= 0 || it.child != nil {
			continue
		}
		if count == 0 {
			from = i
		}
		count++
		bytes += it.stamp.size
		if count == itemsPerTask || bytes >= bytesPerTask {
			tasks = append(tasks, task{d, from, i + 1})
			count, bytes = 0, 0
		}
	}
	if count > 0 {
		tasks = append(tasks, task{d, from, len(d.items)})
	}
	if len(tasks) == 0 {
		unix.Close(d.fd)
		return
	}
	d.refs.Store(int32(len(tasks)))
	l.pool.push(tasks...)
}
