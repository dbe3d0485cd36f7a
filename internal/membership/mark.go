package membership

import (
	"context"
	"errors"

	"dim/internal/cluster"
	"dim/internal/coord"
)

// mark is the mark of a server's disk that is to take the place of the one before: package diskmark.
type mark struct{ next, before string }

// Marked notes the mark of a server's disk. Run puts it into the shared state if that has the one before.
func (m *Membership) Marked(server cluster.ServerName, next, before string) {
	listed, ok := m.Follow.Now().State.Servers[string(server)]
	if !ok || listed.Mark == next || listed.Mark != before {
		return // it is there already, or the disk is an old one, of which the server itself tells
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[server] = mark{next, before}
	m.wakeUp()
}

// recordMarks puts the marks that were noted into the shared state.
func (m *Membership) recordMarks(ctx context.Context) error {
	m.mu.Lock()
	list := m.marks
	m.marks = map[cluster.ServerName]mark{}
	m.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	shared, err := m.Follow.Reachable(ctx)
	if err != nil {
		return nil // they are noted again with the next reports
	}
	var errs []error
	for server, k := range list {
		err := shared.MarkServer(ctx, string(server), k.next, k.before)
		if err != nil && !errors.Is(err, coord.ErrConflict) && !errors.Is(err, coord.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, m.Follow.Refresh(ctx, shared))...)
}
