package coord

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mirror has all keys at one revision, and the State that they say. Keys of the history are not among them: they are
// read when a person asks for them. Reads and watches bring the mirror forward: they transfer and decode only values
// that have changed, so that a description of thousands of nodes is not decoded again because a number was reserved. A
// read also transfers the names of all keys, because it finds keys that were deleted by their absence.
type mirror struct {
	mu         sync.Mutex
	generation int // grows whenever all has to be read again
	store      string
	revision   int64 // 0: nothing was read yet
	keys       map[string]entry
	state      State           // that keys say, but for those of stale
	stale      map[string]bool // keys that have changed since state was made
	decoded    int             // keys that were decoded so far
}

// entry is the value of a key and the revision of its last change.
type entry struct {
	value    []byte
	revision int64
}

var errGeneration = errors.New("the state was read again")

// present returns the state as it is now, and the generation for mirror.apply.
func (c *Coord) present(ctx context.Context) (s State, generation int, err error) {
	for range attempts {
		since := c.mirror.position()
		r, err := c.txn(ctx, nil, c.changesSince(since))
		if err != nil {
			return State{}, 0, err
		}
		if s, generation, err = c.mirror.take(r, since, c.prefix); !errors.Is(err, errGeneration) {
			return s, generation, err
		}
	}
	return State{}, 0, ErrConflict
}

// changesSince returns gets of the keys that have changed since a revision, and of the names of all, from which those
// are missing that were deleted.
func (c *Coord) changesSince(revision int64) (gets []clientv3.Op) {
	first := c.prefix + historyKey
	after := clientv3.GetPrefixRangeEnd(first)
	end := clientv3.GetPrefixRangeEnd(c.prefix)
	for _, option := range []clientv3.OpOption{clientv3.WithMinModRev(revision + 1), clientv3.WithKeysOnly()} {
		gets = append(gets, clientv3.OpGet(c.prefix, clientv3.WithRange(first), option),
			clientv3.OpGet(after, clientv3.WithRange(end), option))
	}
	return gets
}

// position returns the revision of the mirror.
func (m *mirror) position() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// reset lets all keys be read again.
func (m *mirror) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
}

func (m *mirror) clear() {
	m.generation++
	m.revision, m.keys, m.stale = 0, map[string]entry{}, map[string]bool{}
	m.state = State{}
	m.state.makeMaps()
}

// take brings the mirror forward to an answer to changesSince. The error is errGeneration if the answer does not fit:
// the mirror was reset meanwhile, or the etcd is another one or was put back from a copy.
func (m *mirror) take(r *clientv3.TxnResponse, since int64, prefix string) (State, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	store, revision := fmt.Sprintf("%x", r.Header.ClusterId), r.Header.Revision
	if since > 0 && (store != m.store || revision < since || m.revision == 0) {
		m.clear()
		return State{}, 0, errGeneration
	}
	if since == 0 && store != m.store {
		m.clear()
	}
	if m.store = store; revision > m.revision {
		m.forward(r, prefix)
		m.revision = revision
	}
	s, err := m.now()
	return s, m.generation, err
}

func (m *mirror) forward(r *clientv3.TxnResponse, prefix string) {
	for _, part := range r.Responses[:2] {
		for _, kv := range part.GetResponseRange().Kvs {
			m.set(strings.TrimPrefix(string(kv.Key), prefix), entry{kv.Value, kv.ModRevision})
		}
	}
	there := make(map[string]bool, len(m.keys))
	for _, part := range r.Responses[2:] {
		for _, kv := range part.GetResponseRange().Kvs {
			there[strings.TrimPrefix(string(kv.Key), prefix)] = true
		}
	}
	for key := range m.keys {
		if !there[key] {
			m.remove(key)
		}
	}
}

func (m *mirror) set(key string, e entry) {
	if m.keys[key].revision != e.revision {
		m.keys[key], m.stale[key] = e, true
	}
}

func (m *mirror) remove(key string) {
	delete(m.keys, key)
	m.stale[key] = true
}

// apply brings the mirror forward by events of a watch, unless a read has brought it further already, and returns the
// state then. The error is errGeneration if the mirror was reset after the watch began.
func (m *mirror) apply(generation int, prefix string, events []*clientv3.Event) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if generation != m.generation {
		return State{}, errGeneration
	}
	last := m.revision
	for _, e := range events {
		key, revision := strings.TrimPrefix(string(e.Kv.Key), prefix), e.Kv.ModRevision
		last = max(last, revision)
		switch {
		case revision <= m.revision || strings.HasPrefix(key, historyKey):
		case e.Type == mvccpb.DELETE:
			m.remove(key)
		default:
			m.set(key, entry{e.Kv.Value, revision})
		}
	}
	m.revision = last
	return m.now()
}

// now returns the state. It decodes the keys that are stale. If one cannot be decoded, all stay stale.
func (m *mirror) now() (State, error) {
	d := decoder{State: m.state, copied: map[string]bool{}, images: map[string]*Image{}}
	for key := range m.stale {
		m.decoded++
		e, there := m.keys[key]
		if err := d.key(key, e, there); err != nil {
			return State{}, fmt.Errorf("key %s: %w", key, err)
		}
	}
	d.completeImages()
	m.state, m.stale = d.State, map[string]bool{}
	m.state.Store, m.state.Revision = m.store, m.revision
	return m.state, nil
}
