package capture

import (
	"context"
	"errors"
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

// list lists d, compares it with its note, and pushes what is to be done below it.
func (w *worker) list(d *dir) error {
	if d.parent != nil {
		fd, err := openAt(d.parent.fd, d.name, unix.O_DIRECTORY)
		d.parent.release()
		if err != nil {
			d.gone = true
			w.fault(d.path(), err)
			return nil
		}
		d.fd = fd
	}
	l := lister{worker: w, d: d, same: d.note != nil}
	if d.note != nil {
		l.old, l.sure = d.note.entries, d.note.sure()
	}
	err := l.look()
	if err != nil {
		unix.Close(d.fd)
		d.gone, d.items, d.children, d.same = true, nil, nil, false
		w.fault(d.path(), err)
		return nil
	}
	if w.relink.Load() {
		unix.Close(d.fd)
		return errLinks
	}
	l.push()
	return nil
}

// lister compares one directory with its note as the names come. As long as all is as noted it makes nothing; at the
// first difference what was equal so far becomes items.
type lister struct {
	*worker
	d     *dir
	same  bool
	n     int // names that are as noted, in order, while same
	old   []note
	sure  time.Time
	index map[string]int // of old, made when needed
	bytes uint64
}

// look lists the directory, or only passes through it.
func (l *lister) look() error {
	if !l.pass() {
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
		l.differ()
	}
	l.d.same = l.same
	l.seenFiles.Add(uint64(max(l.n, len(l.d.items))))
	l.seenBytes.Add(l.bytes)
	return nil
}

// name deals with one name of the listing.
func (l *lister) name(e *dirent) error {
	switch {
	case string(e.name) == ".":
		return l.checkIdentity(e.ino)
	case string(e.name) == ".." || e.kind == unix.DT_SOCK:
		return nil
	case !l.d.match.Idle() && l.d.match.Covers(string(e.name)):
		return nil
	}
	var x unix.Statx_t
	if err := statx(l.d.fd, e.cstr, statxFlags, &x); err != nil {
		l.fault(image.JoinPath(l.d.path(), string(e.name)), err)
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
		l.differ()
	}
	l.add(string(e.name), s)
	return nil
}

// checkIdentity makes sure that d is the directory that was found in its parent. The inode number in the listing tells for nothing; only
// where it differs, as on some file systems it may, or as when something was mounted or moved there just now, the kernel is asked.
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
		return unix.ESTALE // a mount: the next capture sees it as one
	}
	d.stamp, d.known = s, false
	return nil
}

// omitted reports whether s stays in the capture without its content.
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

// trusted reports whether an entry that has the noted stamp is certainly what it was. It may not be if it changed about
// when it was noted. Nor does an omitted directory's stamp tell of its xattrs.
func (l *lister) trusted(s *stamp) bool {
	return s.before(l.sure) && (s.flags&(flagOmitted|flagMount) != flagOmitted)
}

// unchanged takes in the name at, which is as noted.
func (l *lister) unchanged(at int, o *note) {
	switch {
	case o.stamp.isDir():
		if o.stamp.flags&flagOmitted == 0 && l.enters(o) {
			l.child(at, o.name, &o.stamp, o, true)
		}
	case o.stamp.nlink > 1:
		l.join(at, &o.stamp)
	default:
		l.bytes += o.stamp.size
	}
}

// child adds the directory at, which is known if it has the stamp that was noted.
func (l *lister) child(at int, name string, s *stamp, o *note, known bool) *dir {
	c := &dir{parent: l.d, name: name, at: at, stamp: *s, known: known, touch: l.d.touch.at(name)}
	same := false
	if o != nil && o.child != nil {
		c.note, same = o.child, o.stamp.id() == s.id()
	}
	c.deep = l.d.deep || !same || c.touch.is(touchedTree)
	c.listed = c.deep || o.stamp != *s || c.touch.is(touchedDir)
	if !l.d.match.Idle() {
		c.match = l.d.match.Enter(name)
	}
	l.d.children = append(l.d.children, c)
	return c
}

// join adds the name at to its hard-link group.
func (l *lister) join(at int, s *stamp) *group {
	if l.partial {
		return nil // as noted, or all is done again
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

// differ ends the time of being the same.
func (l *lister) differ() {
	l.same = false
	l.itemize(l.d, l.old[:l.n])
}

// itemize makes items of names of d that are as noted.
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

// add takes in a name of a directory that is not the same.
func (l *lister) add(name string, s stamp) {
	it := item{name: name, stamp: s, note: -1}
	at := len(l.d.items)
	o, noted := l.find(name)
	if noted >= 0 && o.stamp == s && l.trusted(&s) {
		it.note = noted
	}
	if it.note < 0 && s.flags&flagOmitted == 0 {
		l.renote.Store(true)
	}
	switch {
	case s.isDir():
		if s.flags&flagOmitted == 0 {
			if it.note < 0 || l.enters(o) {
				it.child = l.child(at, name, &s, o, it.note >= 0)
			}
		}
	case s.nlink > 1:
		it.group = l.join(at, &s)
		if l.partial && it.note < 0 {
			l.relink.Store(true)
		}
	case it.note >= 0:
		l.bytes += s.size
	}
	if it.note < 0 && !s.isDir() && s.flags&flagMount != 0 && s.kind() == unix.S_IFREG {
		l.report(Problem{Path: image.JoinPath(l.d.path(), name), Kind: MountPoint})
	}
	l.d.items = append(l.d.items, it)
}

// find returns the note of name and its place, or -1.
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

// attributes reads what a directory's stamp does not tell.
func (l *lister) attributes() (err error) {
	if !l.d.known && l.d.parent != nil {
		l.d.xattrs, err = readXattrs(fdXattrs(l.d.fd))
	}
	return err
}

// A task reads so many items, or so many bytes.
const (
	itemsPerTask = 32
	bytesPerTask = 4 << 20
)

// push hands out what is to be done: directories below the files, so that the files, which are taken first, let go of this directory.
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
