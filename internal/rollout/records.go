package rollout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dim/internal/coord"
	"dim/internal/image"
)

// Records are the rollouts of one state. Each is parsed when it is asked for, and once for all states that have it as
// it is: the nodes of a rollout are thousands of names. The zero Records has none.
//
// All methods may be called from any number of goroutines. What they return must not be changed.
type Records struct {
	list []*record // the latest first
}

// record is one rollout.
type record struct {
	id      int
	value   json.RawMessage
	outline func() (Outline, error)
	whole   func() (Rollout, error)
}

// Outline is a rollout without its nodes.
type Outline struct {
	ID      int       `json:"id"`
	Image   string    `json:"image"`
	Version int       `json:"version"`
	State   State     `json:"state"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
	Started time.Time `json:"started"`
}

// UnderWay reports whether the rollout has not ended.
func (o *Outline) UnderWay() bool { return o.State == Running || o.State == Paused }

// Ref returns the reference that its nodes follow.
func (o *Outline) Ref() image.Ref { return image.Ref{Image: o.Image, Number: o.Version} }

// Of returns the rollouts of s. It takes over what r has parsed of those that have not changed.
func (r *Records) Of(s coord.State) *Records {
	before := make(map[int]*record, len(r.list))
	for _, known := range r.list {
		before[known.id] = known
	}
	next := &Records{list: make([]*record, 0, len(s.Rollouts))}
	for id, value := range s.Rollouts {
		known := before[id]
		if known == nil || !bytes.Equal(known.value, value) {
			known = newRecord(id, value)
		}
		next.list = append(next.list, known)
	}
	slices.SortFunc(next.list, func(a, b *record) int { return b.id - a.id })
	return next
}

func newRecord(id int, value json.RawMessage) *record {
	return &record{
		id: id, value: value,
		outline: sync.OnceValues(func() (o Outline, err error) {
			if err = json.Unmarshal(value, &o); err != nil {
				err = fmt.Errorf("read rollout %d: %w", id, err)
			}
			return o, err
		}),
		whole: sync.OnceValues(func() (Rollout, error) { return parse(id, value) }),
	}
}

// Load returns the rollout with a number.
func (r *Records) Load(id int) (found Rollout, ok bool, err error) {
	for _, known := range r.list {
		if known.id == id {
			found, err = known.whole()
			return found, true, err
		}
	}
	return found, false, nil
}

// Outlines returns all rollouts without their nodes, the latest first. The error tells which ones cannot be read; they
// are left out.
func (r *Records) Outlines() ([]Outline, error) {
	return collect(r.list, func(known *record) (Outline, error) { return known.outline() })
}

// List returns all rollouts, the latest first, with the same error as Outlines.
func (r *Records) List() ([]Rollout, error) {
	return collect(r.list, func(known *record) (Rollout, error) { return known.whole() })
}

// Active returns the rollouts that are under way, the latest first, with the same error as Outlines.
func (r *Records) Active() ([]Rollout, error) {
	active := slices.DeleteFunc(slices.Clone(r.list), func(known *record) bool {
		o, err := known.outline()
		return err == nil && !o.UnderWay()
	})
	return (&Records{list: active}).List()
}

// collect returns what read returns for each record.
func collect[T any](records []*record, read func(*record) (T, error)) (list []T, err error) {
	var errs []error
	for _, known := range records {
		v, err := read(known)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, v)
	}
	return list, errors.Join(errs...)
}
