package masters

import (
	"context"
	"testing"

	"dim/internal/testkit"
)

func TestAWaitForACaptureEndsWithItsContext(t *testing.T) {
	m := New(Options{})
	m.setWatched("compute", &watched{capturing: make(chan struct{}, 1)})
	release, err := m.exclusive(t.Context(), "compute")
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.exclusive(ctx, "compute"); err == nil {
		t.Error("two captures run at once")
	}
	release()
	release, err = m.exclusive(t.Context(), "compute")
	testkit.Must(t, err)
	release()
}
