package follow

import (
	"context"
	"time"

	"dim/internal/coord"
)

// keepWithin is how long after its adoption a state is on disk, if nodes follow the same by it.
const keepWithin = 2 * time.Second

// unkept is a state that is not on disk yet.
type unkept struct {
	now  *Declared   // nil: there is none
	kept coord.State // what a restart is to find

	wake chan struct{} // capacity 1: there is one
}

// write writes what a restart is to find.
func (f *Follower) write(s coord.State) error {
	err := coord.SaveState(f.StateFile, s)
	if err != nil {
		f.Log.Error("declared state not kept", "error", err) // on a full disk: a restart reads an older one
	}
	return err
}

// keepSoon lets a state be kept within keepWithin, together with those that follow it until then. A rollout has several
// such states, and a server that is killed meanwhile serves the same without them. It is called with adopting held.
func (f *Follower) keepSoon(now, old *Declared) {
	f.unkept.now, f.unkept.kept = now, now.kept(old)
	select {
	case f.unkept.wake <- struct{}{}:
	default:
	}
}

// keepUnkept keeps what is left to be kept, until ctx ends.
func (f *Follower) keepUnkept(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
		case <-f.unkept.wake:
			select {
			case <-ctx.Done():
			case <-time.After(keepWithin):
			}
		}
		if _ = f.Keep(); ctx.Err() != nil {
			return nil
		}
	}
}

// Keep writes the state that was adopted last to the disk, unless it is there. An error was logged.
func (f *Follower) Keep() error {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	now, kept := f.unkept.now, f.unkept.kept
	f.unkept.now, f.unkept.kept = nil, coord.State{}
	if now == nil {
		return nil
	}
	err := f.write(kept)
	if err == nil {
		f.settled.Store(now)
	}
	return err
}
