package stream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// maxMessage bounds a message, in bytes. A description has 10 MB at most (package coord), and nothing else in a state
// comes near that.
const maxMessage = 32 << 20

// message is one line of the stream: a state, a difference between two states, or only the time.
type message struct {
	Time time.Time `json:"time"` // by the head's clock

	Store    string   `json:"store,omitempty"`    // coord.State.Store; "": the message only tells the time
	Revision int64    `json:"revision,omitempty"` // of the state after the change
	From     int64    `json:"from,omitempty"`     // revision of the state that is changed; 0: Set is all there is
	Set      facts    `json:"set,omitempty"`
	Removed  []string `json:"removed,omitempty"` // keys
	// Edit changes the description, in place of a whole one in Set. A server that understands it asks for it.
	Edit   *descriptionEdit `json:"edit,omitempty"`
	Digest image.Digest     `json:"digest,omitzero"` // of all facts after the change
	// Earlier is whether the state may be older than what the receiver has: it is what the shared state says now, after
	// it was put back from a copy or was made anew.
	Earlier bool `json:"earlier,omitempty"`
	// Alone is why the head cannot tell whether its state is the latest one; "": it is.
	Alone string `json:"alone,omitempty"`
}

// ofAll reports whether a fact that all servers get has changed.
func (m *message) ofAll() bool {
	if m.Edit != nil {
		return true
	}
	for key := range m.Set {
		if !own(key) {
			return true
		}
	}
	return slices.ContainsFunc(m.Removed, func(key string) bool { return !own(key) })
}

// position is a state as one end of the stream has it.
type position struct {
	store    string
	revision int64
	common   *common
	nodes    facts       // about nodes; of a server: its own
	state    coord.State // that the facts say, at the receiver
}

// common are the facts that all servers get. They are never changed.
type common struct {
	facts       facts
	digest      image.Digest
	description *coord.Description // of a head; nil: there is none
}

func newCommon(f facts) *common { return &common{facts: f, digest: f.digest()} }

// positionOf returns the position of an end that has a state.
func positionOf(s coord.State) (position, error) {
	return new(maker).position(s)
}

// digest proves that both ends have the same state.
func (p *position) digest() image.Digest {
	nodes := p.nodes.digest()
	return image.Sum(append(p.common.digest[:], nodes[:]...))
}

// leadsTo reports whether a state of a shared state comes after p, or is the same.
func (p *position) leadsTo(store string, revision int64) bool {
	return p.store == "" || p.store == store && p.revision <= revision
}

// Errors of apply.
var (
	errOutOfOrder = errors.New("the change is of another state than the one that is here")
	errDigest     = errors.New("the state after the change has another digest")
	errOlder      = errors.New("the head offers an older state")
)

// says reports whether next is p or a later state of the same shared state that says the same.
func (p *position) says(next *position) bool {
	return p.common != nil && p.common == next.common && p.store == next.store && p.revision <= next.revision &&
		p.nodes.equal(next.nodes)
}

// apply returns the state after a message that has one, and what the shared state says then.
func (p position) apply(m *message) (next position, s coord.State, err error) {
	if m.Revision <= 0 || m.From < 0 || !m.Earlier && !p.leadsTo(m.Store, m.Revision) {
		return p, s, errOlder
	}
	before := facts{}
	if m.From > 0 {
		if p.common == nil || m.Store != p.store || m.From != p.revision {
			return p, s, errOutOfOrder
		}
		before = p.common.facts.with(p.nodes, nil)
		if err := m.complete(p.state.Description); err != nil {
			return p, s, err
		}
	}
	after := before.with(m.Set, m.Removed)
	all, nodes := after.split()
	next = position{store: m.Store, revision: m.Revision, common: p.common, nodes: nodes}
	if m.From == 0 || m.ofAll() {
		next.common = newCommon(all)
	}
	if next.digest() != m.Digest {
		return p, s, errDigest
	}
	if m.From > 0 {
		s, err = after.changed(p.state, m.Set, m.Removed)
	} else {
		s, err = after.state()
	}
	if err != nil {
		return p, s, err
	}
	s.Store, s.Revision = m.Store, m.Revision
	next.state = s
	return next, s, nil
}

// readMessage reads a message. Every Read of r must be bounded in time.
func readMessage(r *bufio.Reader) (*message, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxMessage:
			return nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		return parseMessage(line)
	}
}

func parseMessage(line []byte) (*message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("read a message: %v", err)
	}
	return &m, nil
}
