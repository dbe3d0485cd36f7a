// Package rollout decides how nodes move from one version of an image to another: which of them when, what has to be seen before the next ones
// follow, and how they come back. It only decides: the daemon observes, declares and runs commands.
//
// # Concepts
//
// What a node follows is declared in package coord: a reference of its own (Desired) or else the current version of its image, and perhaps
// another that it follows from its next boot on (Next). A Rollout is the record of a move. Its nodes are in rings, which follow one
// after the other. Each ring is declared, then shows the version, then the hook runs for it, and then, before the next ring, it has
// to pass the gate: the soak time is over, the nodes that ran before are answering, and the check succeeds. What does not go well pauses
// the rollout, and a person decides.
//
// A rollout over all nodes of an image makes its version the current one, together with its last ring, so that nodes which
// come to the description later start with it.
//
// # Invariants
//
// Everything is declared together: the record and the references of the ring's nodes are one transaction, so whoever reads the state,
// after a crash at any moment, sees where the rollout is, and going on means to look at it. A command that was running then is run again.
//
// Two rollouts that are under way have no node in common. A record keeps what each node followed before, word for word, so undoing it gives
// exactly that back, and is refused when somebody has moved a node since.
//
// # Concurrency
//
// All functions are pure: what they are given is never changed.
package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster/nodeset"
	"dim/internal/coord"
	"dim/internal/image"
)

// Errors to branch on.
var (
	// ErrConflict: another rollout has to be looked at first.
	ErrConflict = errors.New("in the way")
	// ErrState: the rollout is not in a state in which that can be done.
	ErrState = errors.New("the state of the rollout does not allow it")
)

// stateError is an ErrState that says all.
type stateError string

func (e stateError) Error() string        { return string(e) }
func (e stateError) Is(target error) bool { return target == ErrState }

// When tells when a node of a ring that was declared changes.
type When string

// At once, or when it boots the next time.
const (
	Now  When = "now"
	Boot When = "boot"
)

// State of a rollout.
type State string

// Running and Paused rollouts are under way. Stopped ones were left where they were.
const (
	Running State = "running"
	Paused  State = "paused"
	Done    State = "done"
	Undone  State = "undone"
	Stopped State = "stopped"
)

// Phase is where the present ring of a rollout is.
type Phase string

// The phases of a ring, in order.
const (
	Switching Phase = "switching" // declared; not all of its nodes show the version
	Hooking   Phase = "hook"      // the hook runs
	Gating    Phase = "gate"      // soak time, answers, check
)

// Nodes is a set of node names, kept as one short text.
type Nodes []string

// MarshalJSON writes a node set.
func (n Nodes) MarshalJSON() ([]byte, error) { return json.Marshal(n.String()) }

// String returns the node set: "n[01-04]".
func (n Nodes) String() string { return nodeset.Fold(n) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (n *Nodes) UnmarshalJSON(b []byte) error {
	var text string
	err := json.Unmarshal(b, &text)
	if err == nil && text != "" {
		*n, err = nodeset.Expand(text, nodeset.Options{})
	}
	return err
}

// Rollout is the record of one; docs/formats/coord.md has its form.
type Rollout struct {
	ID      int           `json:"id"`
	Image   string        `json:"image"`
	Version int           `json:"version"`
	When    When          `json:"when"`
	Rings   []Ring        `json:"rings"`
	All     bool          `json:"all"` // all nodes of the image: the version becomes the current one
	Soak    time.Duration `json:"soak,omitempty"`
	Check   string        `json:"check,omitempty"`
	Hook    string        `json:"hook,omitempty"`

	State   State     `json:"state"`
	Ring    int       `json:"ring"` // the one that was declared last, from 0
	Phase   Phase     `json:"phase"`
	Since   time.Time `json:"since"`            // when the phase began
	Reason  string    `json:"reason,omitempty"` // why it is paused
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`

	Before  []Before `json:"before"`  // what its nodes followed
	Current int      `json:"current"` // the image's current version
}

// Ring is some of the nodes.
type Ring struct {
	Nodes Nodes `json:"nodes"`
	Ran   Nodes `json:"ran,omitempty"` // those that ran when it was declared
	// Declared tells when that was; the zero time: it was not yet.
	Declared time.Time `json:"declared,omitzero"`
}

// Before is what was declared for some nodes; the zero Ref: nothing.
type Before struct {
	Desired image.Ref `json:"desired,omitzero"`
	Next    image.Ref `json:"next,omitzero"`
	Nodes   Nodes     `json:"nodes"`
}

// UnderWay reports whether the rollout has not come to an end.
func (r *Rollout) UnderWay() bool { return r.State == Running || r.State == Paused }

// Ref is the reference that its nodes follow.
func (r *Rollout) Ref() image.Ref { return image.Ref{Image: r.Image, Number: r.Version} }

// before is the reference to the version that was the image's current one.
func (r *Rollout) before() image.Ref { return image.Ref{Image: r.Image, Number: r.Current} }

// Nodes are the nodes of all rings.
func (r *Rollout) Nodes() Nodes {
	var all Nodes
	for _, ring := range r.Rings {
		all = append(all, ring.Nodes...)
	}
	return all
}

// Moved are the nodes of the rings that were declared.
func (r *Rollout) Moved() Nodes {
	var all Nodes
	for _, ring := range r.Rings[:r.Ring+1] {
		all = append(all, ring.Nodes...)
	}
	return all
}

// Was is the reference that a node followed before.
func (r *Rollout) Was(node string) image.Ref {
	for _, b := range r.Before {
		if slices.Contains(b.Nodes, node) && !b.Desired.IsZero() {
			return b.Desired
		}
	}
	return r.before()
}

// Load returns the rollout of a number.
func Load(s coord.State, id int) (r Rollout, ok bool, err error) {
	value, ok := s.Rollouts[id]
	if !ok {
		return r, false, nil
	}
	if err := json.Unmarshal(value, &r); err != nil {
		return r, true, fmt.Errorf("read rollout %d: %w", id, err)
	}
	if r.Ring < 0 || r.Ring >= len(r.Rings) {
		return r, true, fmt.Errorf("read rollout %d: it has no ring %d", id, r.Ring)
	}
	return r, true, nil
}

// List returns all rollouts, the latest first. One that cannot be read is left out, and told in the error.
func List(s coord.State) ([]Rollout, error) {
	var list []Rollout
	var errs []error
	for id := range s.Rollouts {
		r, _, err := Load(s, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Rollout) int { return b.ID - a.ID })
	return list, errors.Join(errs...)
}

// Active returns the rollouts that are under way, the latest first. It costs little for those that are not.
func Active(s coord.State) ([]Rollout, error) {
	var list []Rollout
	var errs []error
	for id, value := range s.Rollouts {
		var light struct {
			State State `json:"state"`
		}
		if json.Unmarshal(value, &light) == nil && light.State != Running && light.State != Paused {
			continue
		}
		r, _, err := Load(s, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Rollout) int { return b.ID - a.ID })
	return list, errors.Join(errs...)
}

// put adds the record to a change.
func (r *Rollout) put(c *coord.Change) error {
	value, err := json.Marshal(r)
	if c.Rollouts == nil {
		c.Rollouts = map[int]json.RawMessage{}
	}
	c.Rollouts[r.ID] = value
	return err
}
