// Package bounds keeps what is in use, by who uses it, within a limit for each user and one for all of them:
// connections by address, transfers by client, calls by user. It bounds how often a user does something, too.
//
// It must not know what is counted, nor what happens to what is refused.
package bounds

import (
	"slices"
	"sync"
)

// Limit is how much may be in use at a time. 0 is no limit.
type Limit struct {
	Each int // by one key
	All  int // by all keys
}

// Table is what is in use. The zero Table is empty and ready for use. It may be used by any number of goroutines, and
// calls no function of others. It uses memory only for keys that have values.
type Table[K, V comparable] struct {
	mu  sync.Mutex
	len int
	of  map[K][]V // oldest first
}

// Add adds v to what key uses, and reports whether the limit allows that. The limit is an argument because it changes
// with the cluster description.
func (t *Table[K, V]) Add(key K, v V, l Limit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.All > 0 && t.len >= l.All || l.Each > 0 && len(t.of[key]) >= l.Each {
		return false
	}
	if t.of == nil {
		t.of = make(map[K][]V)
	}
	t.of[key] = append(t.of[key], v)
	t.len++
	return true
}

// Remove ends the use of v. It does nothing if key does not use v.
func (t *Table[K, V]) Remove(key K, v V) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.of[key]
	i := slices.Index(list, v)
	switch {
	case i < 0:
		return
	case len(list) == 1:
		delete(t.of, key)
	default:
		t.of[key] = slices.Delete(list, i, i+1)
	}
	t.len--
}

// Of returns what key uses, the oldest first.
func (t *Table[K, V]) Of(key K) []V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.of[key])
}
