package serving

import (
	"maps"
	"strconv"
	"strings"
	"sync"

	"dim/internal/caller"
	"dim/internal/nfs"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// LentPrefix is what the paths of lent roots begin with.
const LentPrefix = "/storm/"

// loan is a number of roots that belong to no node.
type loan struct {
	prefix string
	roots  []*replica.Replica
	admits func(caller.Caller) bool
	done   func() // leave, made once

	mu    sync.Mutex
	ended bool
	calls int
	idle  chan struct{} // closed when it has ended and no call uses a root
}

// Lend exports roots that belong to no node, for a load test: number i at prefix + "i", where prefix begins with
// LentPrefix. Those whom admits accepts may use them, nobody else; admits must be fast. Only one loan may last at a
// time. end ends it, and returns when no call uses the roots any more.
func (s *Server) Lend(prefix string, roots []*replica.Replica, admits func(caller.Caller) bool) (end func()) {
	l := &loan{prefix: prefix, roots: roots, admits: admits, idle: make(chan struct{})}
	l.done = l.leave
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.table.Load()
	t := &exportTable{trees: maps.Clone(old.trees), nodes: old.nodes, lent: l}
	for _, r := range roots {
		t.trees[r.Tree()] = &export{fs: r, lent: l, noted: new(lastCall)}
	}
	s.table.Store(t)
	return func() { s.endLoan(l) }
}

func (s *Server) endLoan(l *loan) {
	s.changing.Lock()
	old := s.table.Load()
	t := &exportTable{trees: maps.Clone(old.trees), nodes: old.nodes}
	maps.DeleteFunc(t.trees, func(_ replica.Tree, x *export) bool { return x.lent == l })
	s.table.Store(t)
	s.changing.Unlock()
	l.end()
	<-l.idle
}

// mountLent returns the lent root at a path.
func (a *access) mountLent(path string) (vfs.FS, error) {
	l := a.s.table.Load().lent
	if l == nil || !l.admits(a.who) {
		return nil, vfs.EACCES // the caller does not learn whether there is one
	}
	number, ok := strings.CutPrefix(path, l.prefix)
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || i >= len(l.roots) {
		return nil, vfs.ENOENT
	}
	return l.roots[i], nil
}

// export begins a call for a lent root.
func (l *loan) export(x *export) (nfs.Export, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nfs.Export{}, vfs.ESTALE
	}
	l.calls++
	return nfs.Export{FS: x.fs, Done: l.done}, nil
}

// leave ends a call.
func (l *loan) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls--
	l.settle()
}

func (l *loan) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.settle()
}

func (l *loan) settle() {
	if l.ended && l.calls == 0 {
		close(l.idle)
	}
}
