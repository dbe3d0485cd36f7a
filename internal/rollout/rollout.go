// Package rollout decides how nodes move from one version of an image to another. It decides only: the daemon
// observes the nodes, puts the decisions into the shared state and runs commands.
//
// # Concepts
//
// Package coord declares what a node follows: a reference of its own (Desired) or the current version of its image,
// and sometimes another reference from its next boot on (Next). A Rollout is the record of one move. Its nodes are in
// rings, one after the other. A ring goes through phases:
//
//   - prefetch, before the first ring is declared: the servers of the nodes get the version;
//   - switching: the version is declared for the ring's nodes, until all of them show it;
//   - hook: the hook runs, if there is one;
//   - gate: the soak time passes, the nodes that ran before the switch answer, and the check succeeds.
//
// Then the next ring is declared. A rollout goes on without nodes that fail, as many as its budget has for a ring: they
// follow the version, too, and show it when they can. More failures pause it, and a person decides how it goes on.
// Nodes of a server that does not report count as failed after a while, but do not pause it: it waits.
//
// A rollout over all nodes of an image makes its version the current one together with its last ring. Nodes that are
// added to the description later start with that version.
//
// # Invariants
//
// The record and the references of a ring's nodes change in one transaction. So the state tells where a rollout is,
// also after a crash, and a server continues from the record. It repeats a command that was running.
//
// No node is in two rollouts that are under way and have something left to do. A rollout that has declared its last
// ring, and has neither hook nor check, only waits until its nodes show the version: another rollout may take nodes
// over from it, and replaces it when it takes all of them. A record keeps the references of each node from before the
// rollout, so an undo restores exactly these. It is refused if a node was moved since.
//
// # Concurrency
//
// All functions are pure. They never change their arguments.
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
	"dim/internal/pkgdb"
)

// Errors to branch on.
var (
	// ErrConflict: another change of the same nodes or of the same rollout has to be dealt with first.
	ErrConflict = errors.New("conflicts with another change")
	// ErrState: the state of the rollout does not allow the operation.
	ErrState = errors.New("the state of the rollout does not allow it")
)

// stateError is an ErrState with a text of its own.
type stateError string

func (e stateError) Error() string        { return string(e) }
func (e stateError) Is(target error) bool { return target == ErrState }

// conflictError is an ErrConflict with a text of its own.
type conflictError string

func (e conflictError) Error() string        { return string(e) }
func (e conflictError) Is(target error) bool { return target == ErrConflict }

// When tells when the nodes of a declared ring change to the version.
type When string

// At once, or at the next boot of the node.
const (
	Now  When = "now"
	Boot When = "boot"
)

// State of a rollout.
type State string

// Rollouts that are Running or Paused are under way. The others have ended: when all their nodes showed the version, by
// Undo, by Stop, or by another rollout of all their nodes.
const (
	Running  State = "running"
	Paused   State = "paused"
	done     State = "done"
	undone   State = "undone"
	stopped  State = "stopped"
	replaced State = "replaced"
)

// Phase of the ring that was declared last.
type Phase string

// The phases, in order. The package comment describes them.
const (
	prefetching Phase = "prefetch"
	switching   Phase = "switching"
	hooking     Phase = "hook"
	gating      Phase = "gate"
)

// Nodes are names of nodes. Their JSON form is one short text, a node set.
type Nodes []string

// MarshalJSON implements json.Marshaler.
func (n Nodes) MarshalJSON() ([]byte, error) { return json.Marshal(n.String()) }

// String returns the node set: "n[01-04]".
func (n Nodes) String() string { return nodeset.Fold(n) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Nodes) UnmarshalJSON(b []byte) error {
	var text string
	err := json.Unmarshal(b, &text)
	if err == nil && text != "" {
		*n, err = nodeset.Expand(text, nodeset.Options{})
	}
	return err
}

// Rollout is the record of one rollout; docs/formats/coord.md has its form.
type Rollout struct {
	ID      int    `json:"id"`
	Image   string `json:"image"`
	Version int    `json:"version"`
	When    When   `json:"when"`
	Rings   []Ring `json:"rings"`
	All     bool   `json:"all"` // its nodes are all nodes of the image: the version becomes the current one
	conditions

	OnConflict pkgdb.OnConflict `json:"on_conflict,omitempty"` // "": pkgdb.LeaveNode

	State   State     `json:"state"`
	Ring    int       `json:"ring"` // index of the ring that was declared last
	Phase   Phase     `json:"phase"`
	Since   time.Time `json:"since"`            // start of the phase
	Reason  string    `json:"reason,omitempty"` // why it is paused
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Shown   *int      `json:"shown,omitempty"` // number of nodes that showed the version at its end; nil: not known

	Skipped string `json:"skipped,omitempty"` // the servers that it did not wait for before its first ring

	Confirmed []confirmation `json:"confirmed,omitempty"` // the latest one of each node

	Before  []Before `json:"before"`  // the references of its nodes before the rollout
	Current int      `json:"current"` // the image's current version before the rollout
}

// conditions are what a ring has to meet before the next one is declared.
type conditions struct {
	Soak      time.Duration `json:"soak,omitempty"`
	Check     string        `json:"check,omitempty"`
	Hook      string        `json:"hook,omitempty"`
	MaxFailed string        `json:"max_failed,omitempty"` // see CheckBudget
}

// Ring is a part of a rollout's nodes.
type Ring struct {
	Nodes    Nodes     `json:"nodes"`
	Without  Nodes     `json:"without,omitempty"` // the nodes that had failed when the rollout went on
	Ran      Nodes     `json:"ran,omitempty"`     // the nodes that were up when the ring was declared
	Declared time.Time `json:"declared,omitzero"` // zero: the ring is not declared yet
}

// Before is what was declared for some nodes. A zero Ref: nothing was.
type Before struct {
	Desired image.Ref `json:"desired,omitzero"`
	Next    image.Ref `json:"next,omitzero"`
	Nodes   Nodes     `json:"nodes"`
}

// UnderWay reports whether the rollout has not ended.
func (r *Rollout) UnderWay() bool { return r.State == Running || r.State == Paused }

// OnlyWaits reports whether nothing is left to do but to wait until the nodes show the version.
func (r *Rollout) OnlyWaits() bool {
	return r.UnderWay() && !r.Prefetching() && r.Ring == len(r.Rings)-1 && r.Hook == "" && r.Check == ""
}

// Ref returns the reference that the nodes follow.
func (r *Rollout) Ref() image.Ref { return image.Ref{Image: r.Image, Number: r.Version} }

// previous returns the reference to the image's current version before the rollout.
func (r *Rollout) previous() image.Ref { return image.Ref{Image: r.Image, Number: r.Current} }

// Nodes returns the nodes of all rings.
func (r *Rollout) Nodes() Nodes {
	var all Nodes
	for _, ring := range r.Rings {
		all = append(all, ring.Nodes...)
	}
	return all
}

// declared returns the nodes of the rings that were declared.
func (r *Rollout) declared() Nodes {
	var all Nodes
	if r.Prefetching() {
		return nil
	}
	for _, ring := range r.Rings[:r.Ring+1] {
		all = append(all, ring.Nodes...)
	}
	return all
}

// Previous returns the reference that a node followed before the rollout.
func (r *Rollout) Previous(node string) image.Ref {
	for _, b := range r.Before {
		if slices.Contains(b.Nodes, node) {
			return r.previousOf(&b)
		}
	}
	return r.previous()
}

// previousOf returns the reference that the nodes of b followed before the rollout.
func (r *Rollout) previousOf(b *Before) image.Ref {
	if b.Desired.IsZero() {
		return r.previous()
	}
	return b.Desired
}

// Load returns the rollout with a number.
func Load(s coord.State, id int) (r Rollout, ok bool, err error) {
	value, ok := s.Rollouts[id]
	if !ok {
		return r, false, nil
	}
	r, err = parse(id, value)
	return r, true, err
}

// parse returns the rollout of a record.
func parse(id int, value json.RawMessage) (r Rollout, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("read rollout %d: %w", id, err)
	}
	if r.Ring < 0 || r.Ring >= len(r.Rings) {
		return r, fmt.Errorf("read rollout %d: it has no ring %d", id, r.Ring)
	}
	return r, nil
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
