package replica

import (
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// The cookies of "." and ".."; all others are at least lower.Spread.
const (
	cookieDot    = 1
	cookieDotDot = 2
)

// batch is how many entries are collected under the lock before they are yielded without it.
const batch = 64

// ReadDir lists dir in the order of cookies. A cookie is the hash of the name (lower.Hash) plus its rank among
// the names with the same hash. If a switch happens between two batches the call ends early: it lists entries
// of one version only.
func (r *Replica) ReadDir(
	c *vfs.Cred, dir vfs.Handle, cookie uint64, plus vfs.Plus, yield func(*vfs.DirEntry) bool,
) (bool, error) {
	buf := r.set.batches.Get().(*[batch]vfs.DirEntry)
	defer func() {
		clear(buf[:])
		r.set.batches.Put(buf)
	}()
	var first *view
	for {
		if err := r.rlock(); err != nil {
			return false, err
		}
		if first == nil {
			first = r.view
		} else if r.view != first {
			r.mu.RUnlock()
			return false, nil
		}
		l := listing{r: r, plus: plus, buf: buf[:]}
		end, err := l.fill(c, dir, cookie)
		r.mu.RUnlock()
		if err != nil {
			return false, r.edge(err)
		}
		for i := range buf[:l.n] {
			cookie = buf[i].Cookie
			if !yield(&buf[i]) {
				return false, nil
			}
		}
		if end {
			return true, nil
		}
	}
}

// fill collects the entries of dir after cookie, as many as there is room for. end tells whether these were the last.
func (l *listing) fill(c *vfs.Cred, dir vfs.Handle, cookie uint64) (end bool, err error) {
	r := l.r
	d, err := r.resolveDir(dir)
	if err != nil {
		return false, err
	}
	if !r.permits(c, d, vfs.MayRead) {
		return false, vfs.EACCES
	}
	if cookie < cookieDot {
		l.add(".", d, cookieDot)
	}
	if cookie < cookieDotDot {
		l.add("..", r.parent(d), cookieDotDot)
	}
	m := r.merge(d, cookie&^(lower.Spread-1))
	for l.err == nil {
		name, s, at, ok := m.next()
		if !ok {
			return true, nil
		}
		if at <= cookie {
			continue
		}
		if l.n == len(l.buf) {
			return false, nil
		}
		l.add(name, s, at)
	}
	return false, l.err
}

// listing is one batch of entries.
type listing struct {
	r    *Replica
	plus vfs.Plus
	buf  []vfs.DirEntry
	n    int
	err  error
}

func (l *listing) add(name string, s vnode, cookie uint64) {
	e := &l.buf[l.n]
	e.Name, e.Cookie, e.ID = name, cookie, uint64(l.r.id(s))
	if l.plus == vfs.WithAttr {
		e.Handle = l.r.handle(s)
		l.err = l.r.attr(s, &e.Attr)
	}
	l.n++
}

// merger walks the entries of one directory in the order of hash, then name, across the version and the
// dentries.
type merger struct {
	r        *Replica
	low, end lower.Ref
	kids     []*dentry
	hash     uint64 // of the last name returned
	rank     uint64 // its rank among the names with this hash
}

// merge starts at the first name whose hash is at least from.
func (r *Replica) merge(d vnode, from uint64) merger {
	m := merger{r: r}
	dir := d.low
	switch {
	case d.gone != nil:
		return m
	case d.at != nil:
		i, _ := d.at.seek(from, "")
		m.kids = d.at.kids[i:]
		if !d.at.merges() {
			return m
		}
		dir = d.at.low
	}
	m.low = r.view.index.Seek(dir, from)
	_, m.end = r.view.index.Children(dir)
	return m
}

// next returns the next entry that shows, with its cookie.
func (m *merger) next() (name string, s vnode, cookie uint64, ok bool) {
	x := m.r.view.index
	for m.low < m.end || len(m.kids) > 0 {
		order := -1 // the version's entry comes first
		switch {
		case m.low == m.end:
			order = 1
		case len(m.kids) > 0:
			order = -compareDentry(m.kids[0], x.NameHash(m.low), x.Name(m.low))
		}
		var hash uint64
		if order < 0 {
			name, hash, s, ok = x.Name(m.low), x.NameHash(m.low), vnode{low: m.low}, true
		} else {
			name, hash = m.kids[0].name, m.kids[0].hash
			s, ok = m.kids[0].vnode()
			m.kids = m.kids[1:]
		}
		if order <= 0 {
			m.low++
		}
		if !ok {
			continue
		}
		if hash == m.hash {
			m.rank++
		} else {
			m.hash, m.rank = hash, 0
		}
		return name, s, hash + m.rank, true
	}
	return "", vnode{}, 0, false
}
