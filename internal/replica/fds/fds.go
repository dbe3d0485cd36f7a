// Package fds keeps files open between calls: a bounded cache of file descriptors with reference counts, so that
// a protocol without open and close costs no open for each read. It knows numbers and keys only, not what they name.
//
// # Concurrency
//
// All methods may be called concurrently. A File stays open until its last Release, also when the cache has dropped it
// in the meantime. Locks are never held while a file is opened or closed.
package fds

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
)

// Key names what a file is open for.
type Key struct {
	Kind byte
	ID   [32]byte
}

// File is one open file. FD is valid until Release.
type File struct {
	FD int

	shard *shard
	key   Key
	refs  int // guarded by shard.mu; the cache has one while the file is in it
	prev  *File
	next  *File

	flush    durable.Flush
	failures atomic.Uint64
}

const shards = 16

// Cache holds open files, at most a given number beyond those in use.
type Cache struct {
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	files map[Key]*File
	ring  File // of the files in the cache: the latest used is next, the oldest prev
	max   int
}

// New returns a cache of about max files.
func New(max int) *Cache {
	c := &Cache{}
	for i := range c.shards {
		s := &c.shards[i]
		s.files = make(map[Key]*File)
		s.ring.next, s.ring.prev = &s.ring, &s.ring
		s.max = (max + shards - 1) / shards
	}
	return c
}

func (c *Cache) shard(k Key) *shard { return &c.shards[(k.ID[0]^k.ID[7]^k.ID[15]^k.Kind)%shards] }

// Get returns the file for k. If it is not in the cache it opens it with open. The caller must Release it.
func (c *Cache) Get(k Key, open func() (fd int, err error)) (*File, error) {
	s := c.shard(k)
	s.mu.Lock()
	if f := s.files[k]; f != nil {
		f.refs++
		f.toFront()
		s.mu.Unlock()
		return f, nil
	}
	s.mu.Unlock()
	fd, err := open()
	if err != nil {
		return nil, err
	}
	return c.Put(k, fd), nil
}

// Lookup returns the file for k if it is in the cache. The caller must Release it.
func (c *Cache) Lookup(k Key) (*File, bool) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[k]
	if f == nil {
		return nil, false
	}
	f.refs++
	f.toFront()
	return f, true
}

// Acquire makes one more Release necessary. The caller must hold the file already.
func (f *File) Acquire() {
	f.shard.mu.Lock()
	f.refs++
	f.shard.mu.Unlock()
}

// Put adds an open file for k to the cache and returns it as Get does. If the cache has one already, fd is
// closed.
func (c *Cache) Put(k Key, fd int) *File {
	s := c.shard(k)
	s.mu.Lock()
	if f := s.files[k]; f != nil {
		f.refs++
		f.toFront()
		s.mu.Unlock()
		unix.Close(fd)
		return f
	}
	f := &File{FD: fd, shard: s, key: k, refs: 2}
	s.files[k] = f
	f.insert()
	var old *File
	if len(s.files) > s.max {
		old = s.ring.prev
		old.takeOut()
	}
	closing := old != nil && old.refs == 0
	s.mu.Unlock()
	if closing {
		unix.Close(old.FD)
	}
	return f
}

// Drop removes the file for k from the cache. Those that use it may go on.
func (c *Cache) Drop(k Key) {
	s := c.shard(k)
	s.mu.Lock()
	f := s.files[k]
	if f != nil {
		f.takeOut()
	}
	closing := f != nil && f.refs == 0
	s.mu.Unlock()
	if closing {
		unix.Close(f.FD)
	}
}

// DropAll drops the files whose keys match.
func (c *Cache) DropAll(match func(Key) bool) {
	for i := range c.shards {
		s := &c.shards[i]
		var keys []Key
		s.mu.Lock()
		for k := range s.files {
			if match(k) {
				keys = append(keys, k)
			}
		}
		s.mu.Unlock()
		for _, k := range keys {
			c.Drop(k)
		}
	}
}

// Close drops all files.
func (c *Cache) Close() {
	for i := range c.shards {
		s := &c.shards[i]
		for {
			s.mu.Lock()
			f := s.ring.prev
			s.mu.Unlock()
			if f == &s.ring {
				break
			}
			c.Drop(f.key)
		}
	}
}

// Key returns what the file was opened for.
func (f *File) Key() Key { return f.key }

// Descriptor returns FD.
func (f *File) Descriptor() int { return f.FD }

// Release ends one use of the file.
func (f *File) Release() {
	s := f.shard
	s.mu.Lock()
	f.refs--
	closing := f.refs == 0
	s.mu.Unlock()
	if closing {
		unix.Close(f.FD)
	}
}

func (f *File) insert() {
	ring := &f.shard.ring
	f.next, f.prev = ring.next, ring
	f.next.prev, ring.next = f, f
}

func (f *File) toFront() {
	f.next.prev, f.prev.next = f.prev, f.next
	f.insert()
}

func (f *File) takeOut() {
	f.next.prev, f.prev.next = f.prev, f.next
	delete(f.shard.files, f.key)
	f.refs--
}
