// Package problems keeps what is wrong now: the answer behind the problems that `dim status` shows.
//
// # Concepts
//
// A problem is about a Subject: a node, an image, this server's description, a disk. Whoever finds out that something
// failed calls List.Set with its subject, and calls it again with nil when it succeeds. What can be derived from facts
// at any time, such as a full disk, is not stored: its owner is a Source that List.All asks.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Sources are called without a lock held.
//
// # What it must not know
//
// How a problem arises or is repaired, and how it is shown.
package problems

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/control"
)

// Kind is the kind of thing that a problem is about, in words for people.
type Kind string

// The kinds, in the order in which List.All lists them.
const (
	KindDescription Kind = "description"
	KindSharedState Kind = "shared state"
	KindServer      Kind = "server"
	KindBoot        Kind = "boot"  // what every node needs to boot
	KindStore       Kind = "store" // where versions and replicas are
	KindDisk        Kind = "disk"
	KindImage       Kind = "image"
	KindVersion     Kind = "version"
	KindRollout     Kind = "rollout"
	KindReplicas    Kind = "replicas"
	KindNode        Kind = "node"
	KindPackages    Kind = "packages of" // nodes, a node set: they are not moved because of their packages
	KindJournal     Kind = "journal of boots"
	KindMounts      Kind = "file of mounts"
	KindDHCP        Kind = "DHCP server" // one that is not of the cluster
	KindMachine     Kind = "machine"     // one that is not in the description
)

// order ranks the kinds for List.All.
func (k Kind) order() int {
	return slices.Index(Kinds(), k)
}

// Kinds returns all kinds, in the order in which people read them.
func Kinds() []Kind {
	return []Kind{
		KindDescription, KindSharedState, KindServer, KindBoot, KindStore, KindDisk, KindImage, KindVersion,
		KindRollout, KindReplicas, KindPackages, KindNode, KindJournal, KindMounts, KindDHCP, KindMachine,
	}
}

// Subject is what a problem is about.
type Subject struct {
	Kind Kind
	Name string // "" where there is only one of its kind
}

// Node returns the subject of a node.
func Node[T ~string](name T) Subject { return Subject{KindNode, string(name)} }

// Image returns the subject of an image.
func Image[T ~string](name T) Subject { return Subject{KindImage, string(name)} }

// Of returns the subject of a kind of which there is only one.
func Of(k Kind) Subject { return Subject{Kind: k} }

// String returns the subject as people read it: "node n01", "shared state".
func (s Subject) String() string {
	if s.Name == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + " " + s.Name
}

// Problem is one thing that is wrong now.
type Problem struct {
	About Subject
	Text  string
	Hint  string    // what to do, where that is known
	Since time.Time // zero: not known
}

// Source derives problems from facts that its owner has. It may block until ctx ends.
type Source func(ctx context.Context) []Problem

// List is what is wrong now. The zero List is empty.
type List struct {
	mu      sync.Mutex
	set     map[Subject]Problem
	sources []Source
	others  []Source // those of AddOthers
}

// Add lets All ask a source.
func (l *List) Add(s Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sources = append(l.sources, s)
}

// AddOthers lets All, and not Own, ask a source: one of problems of nodes, other machines and other servers.
func (l *List) AddOthers(s Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.others = append(l.others, s)
}

// Set stores that something failed for a subject, in place of what failed before; a nil err removes it. The hint of a
// control.Error is that of the problem. Set reports whether this changes what All returns.
func (l *List) Set(s Subject, err error) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, had := l.set[s]
	switch {
	case err == nil:
		delete(l.set, s)
		return had
	case had && old.Text == err.Error():
		return false
	}
	if l.set == nil {
		l.set = map[Subject]Problem{}
	}
	p := Problem{About: s, Text: err.Error(), Since: time.Now()}
	if e, ok := errors.AsType[*control.Error](err); ok {
		p.Hint = e.Hint
	}
	l.set[s] = p
	return true
}

// Text returns what failed last for a subject; "" when nothing did.
func (l *List) Text(s Subject) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set[s].Text
}

// Remove removes the stored problems of all subjects for which gone returns true.
func (l *List) Remove(gone func(Subject) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.set {
		if gone(s) {
			delete(l.set, s)
		}
	}
}

// All returns what is wrong now, what was set and what the sources tell: in the order of the kinds, those of one kind
// by name.
func (l *List) All(ctx context.Context) []Problem {
	l.mu.Lock()
	sources := slices.Concat(l.sources, l.others)
	l.mu.Unlock()
	return l.ask(ctx, sources)
}

// Own is All without what the sources of AddOthers tell. It costs what this server has, and no visit of each node.
func (l *List) Own(ctx context.Context) []Problem {
	l.mu.Lock()
	sources := slices.Clone(l.sources)
	l.mu.Unlock()
	return l.ask(ctx, sources)
}

// ask returns what was set and what sources tell.
func (l *List) ask(ctx context.Context, sources []Source) []Problem {
	l.mu.Lock()
	list := slices.Collect(maps.Values(l.set))
	l.mu.Unlock()
	for _, s := range sources {
		list = append(list, s(ctx)...)
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.About.Kind.order(), b.About.Kind.order()), strings.Compare(a.About.Name, b.About.Name))
	})
	return list
}
