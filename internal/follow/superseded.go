package follow

import (
	"context"
	"fmt"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
)

// supersededError is why nothing can be declared here: another head has ended the identity of this one, or of one that
// shares its state. That is so after dim server recover on the other one. These heads may have a quorum of their own.
type supersededError struct {
	by     coord.Revocation
	shared bool // all heads that share the state know it
}

func (e *supersededError) Error() string {
	return fmt.Sprintf("head %s goes on without this one%s: what is declared here would be lost", e.by.Server,
		atTime(", whose identity ended at ", e.by.Time))
}

// hint says what to do on the head me.
func (e *supersededError) hint(me cluster.ServerName) string {
	hint := fmt.Sprintf("nodes are served what was declared last; stop this head and let it join again: on %s "+
		"dim token --for %s --roles head, then here the command that it prints, with --replace", e.by.Server, me)
	if e.shared {
		hint += fmt.Sprintf("; or, if this one is to go on instead: switch %s off, then here dim server recover",
			e.by.Server)
	}
	return hint
}

// NoteSuperseded notes that another head has ended the identity of this one, so that nothing can be declared here any
// more. It tells the other heads of the shared state if that has a quorum; if not, the caller calls it again.
func (f *Follower) NoteSuperseded(ctx context.Context, by coord.Revocation) error {
	f.mu.Lock()
	f.identities.ended = by
	f.mu.Unlock()
	if f.Now().State.Superseded.Server != "" {
		return nil
	}
	c, err := f.opened(ctx)
	if err != nil {
		return err
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	if _, joined := s.Servers[string(f.Server)]; !joined {
		return nil // it was removed by the shared state itself
	}
	if err := c.Supersede(ctx, by); err != nil {
		return err
	}
	f.Log.Error("another head goes on without this one: nothing can be declared here", "server", by.Server)
	return f.Refresh(ctx, c)
}

// NoteAccepted notes that another head accepts the identity of this one.
func (f *Follower) NoteAccepted(by cluster.ServerName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.identities.ended.Server == string(by) {
		f.identities.ended = coord.Revocation{}
	}
}

// superseded returns a supersededError if another head goes on without this one.
func (f *Follower) superseded() error {
	if by := f.Now().State.Superseded; by.Server != "" {
		return &supersededError{by, true}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.identities.ended.Server == "" {
		return nil
	}
	return &supersededError{f.identities.ended, false}
}

// atTime returns a text and a time; "" if the time is not known.
func atTime(text string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return text + t.Local().Format(time.DateTime)
}
