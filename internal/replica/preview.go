package replica

import (
	"context"
	"fmt"

	"dim/internal/layer"
)

// Preview returns what a Switch would set aside now, without stamps. It changes nothing. What a node writes before the
// Switch is not in it, and mounts are not considered.
func (s *Set) Preview(ctx context.Context, moves []Move) ([]layer.SetAside, error) {
	s.switching.Lock()
	defer s.switching.Unlock()
	defer s.pruneIndexes()
	defer s.merges.forget()
	var list []layer.SetAside
	for i := range moves {
		t, err := s.differences(ctx, &moves[i])
		if err == nil && (t.changes != nil || t.own != nil) {
			err = t.preview(&list)
		}
		if err != nil {
			return nil, fmt.Errorf("preview switch of %s: %w", moves[i].Replica.dir, err)
		}
	}
	return list, nil
}

// preview adds to list what setAside would move.
func (t *transition) preview(list *[]layer.SetAside) error {
	t.r.mu.Lock()
	hit, err := t.touches()
	t.r.mu.Unlock()
	if err != nil || !hit {
		return err
	}
	t.mergeAhead()
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if err := t.planAside(); err != nil {
		return err
	}
	a := &setAsideOp{op: op{r: t.r}, t: t, why: t.why(), dry: true}
	defer a.release()
	err = a.walkAll()
	*list = append(*list, a.list...)
	return err
}
