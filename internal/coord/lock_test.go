package coord

import (
	"context"
	"errors"
	"testing"

	"dim/internal/testkit"
)

func TestOneProcessHasALockAtATime(t *testing.T) {
	c := open(t, t.TempDir())
	held, release, err := c.Lock(t.Context(), "driver")
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan error)
	go func() {
		_, _, err := c.Lock(ctx, "driver")
		refused <- err
	}()
	_, other, err := c.Lock(t.Context(), "another")
	testkit.Must(t, err)
	other()
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("the lock of somebody else: %v", err)
	}
	taken := make(chan error)
	go func() {
		_, release, err := c.Lock(t.Context(), "driver")
		if err == nil {
			release()
		}
		taken <- err
	}()
	if held.Err() != nil {
		t.Error("the lock was lost")
	}
	release()
	testkit.Must(t, <-taken)
	if held.Err() == nil {
		t.Error("a lock that was given back is held")
	}
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	if len(s.Images) > 0 {
		t.Errorf("locks are part of the state: %+v", s)
	}
}
