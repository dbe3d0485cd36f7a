package forward

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/control/server"
	"dim/internal/coord"
	"dim/internal/follow/followtest"
	"dim/internal/testkit"
)

// master is a daemon of a head that has the masters of some images.
type master struct {
	control.Backend
	has string
}

func (m *master) Capture(
	_ context.Context, r control.CaptureRequest, progress func(control.Progress),
) (out control.CaptureResult, err error) {
	if !strings.Contains(m.has, r.Image) {
		return out, control.Errorf(control.Elsewhere, "capture %s: its master is not here", r.Image)
	}
	progress(control.Progress{Image: r.Image})
	if r.DryRun {
		return out, control.Errorf(control.Held, "it is held")
	}
	out.Version.Number = 1
	return out, nil
}

func (m *master) Watch(_ context.Context, r control.WatchRequest) (control.Watch, error) {
	if !strings.Contains(m.has, r.Image) {
		return control.Watch{}, control.Errorf(control.Elsewhere, "watch %s: its master is not here", r.Image)
	}
	return control.Watch{Image: r.Image, Rollout: m.has}, nil
}

// newMasterBackend returns the Backend of the head, which has the master a. head2 has b, head3 does not answer.
func newMasterBackend(t *testing.T) *Backend {
	t.Helper()
	f, c := followtest.Open(t, small)
	for _, name := range []string{"head2", "head3"} {
		testkit.Must(t, c.PutServer(t.Context(), name, coord.Server{ID: name, Roles: []string{"head"}}))
	}
	testkit.Must(t, f.Refresh(t.Context(), c))
	head2 := httptest.NewServer(http.StripPrefix(path, server.NodeCalls(&master{has: "b"})))
	t.Cleanup(head2.Close)
	return New(&master{has: "a"}, Options{
		Server: "head", Follow: f, Peers: peers{cluster.ServerName("head2"): head2},
	})
}

func TestTheHeadThatHasTheMasterCapturesIt(t *testing.T) {
	t.Parallel()
	b := newMasterBackend(t)
	for image, want := range map[string]string{"a": "", "b": "head2"} {
		seen := 0
		done, err := b.Capture(t.Context(), control.CaptureRequest{Image: image}, func(control.Progress) { seen++ })
		if err != nil || done.Server != want || done.Version.Number != 1 || seen != 1 {
			t.Errorf("capture %s: %+v, %v, %d times progress; want it on %q", image, done, err, seen, want)
		}
		w, err := b.Watch(t.Context(), control.WatchRequest{Image: image})
		if err != nil || w.Rollout != image {
			t.Errorf("watch %s: %+v, %v", image, w, err)
		}
	}
	_, err := b.Capture(t.Context(), control.CaptureRequest{Image: "b", DryRun: true}, func(control.Progress) {})
	if !isCode(err, control.Held) {
		t.Errorf("a refusal of the other head: %v", err)
	}
	_, err = b.Capture(t.Context(), control.CaptureRequest{Image: "c"}, func(control.Progress) {})
	if !isCode(err, control.Elsewhere) || !strings.Contains(err.Error(), "server head3 does not answer") {
		t.Errorf("a master that no head has that answers: %v", err)
	}
}
