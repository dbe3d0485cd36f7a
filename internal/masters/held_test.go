package masters

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/problems"
	"dim/internal/testkit"
	"dim/internal/watch"
)

func TestAHeldCaptureIsAProblemUntilAPersonConfirmsIt(t *testing.T) {
	t.Parallel()
	m, _, dir := newMasters(t)
	im, _ := m.Follow.Cluster().Image(cluster.ImageName("compute"))
	testkit.Must(t, os.Mkdir(filepath.Join(dir, "a b"), 0o755), os.WriteFile(filepath.Join(dir, "etc"), nil, 0o644))
	for i := range 100 {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, "a b", fmt.Sprint(i)), nil, 0o644))
	}
	x := &watched{
		m: m, of: watchSpec{image: "compute", dir: dir}, follower: capture.NewFollower(m.Store, m.options(im)),
		capturing: make(chan struct{}, 1),
	}
	_, err := x.capture(t.Context(), watch.Changes{All: true})
	testkit.Must(t, err)
	testkit.Must(t, os.RemoveAll(filepath.Join(dir, "a b")), os.Mkdir(filepath.Join(dir, "a b"), 0o755))

	const way = "dim image capture compute --accept '/a b'"
	byHand := func(accept ...string) error {
		_, err := m.Capture(t.Context(), im, control.CaptureRequest{Image: "compute", Accept: accept},
			func(control.Progress) {})
		return err
	}
	watched := func() error { _, err := x.capture(t.Context(), watch.Changes{All: true}); return err }
	for name, capture := range map[string]func() error{
		"by hand": func() error { return byHand("/other") },
		"watched": watched,
	} {
		err := capture()
		e, ok := errors.AsType[*control.Error](err)
		if !ok || e.Code != control.Held || !strings.Contains(e.Message, "/a b: is empty now") ||
			!strings.HasSuffix(e.Hint, way) {
			t.Errorf("%s: %+v", name, err)
		}
		list := m.Problems.All(t.Context())
		if len(list) != 1 || list[0].About != problems.Image("compute") || !strings.HasSuffix(list[0].Hint, way) {
			t.Errorf("%s: problems %+v", name, list)
		}
	}
	testkit.Must(t, byHand("/a b"), watched())
	if list := m.Problems.All(t.Context()); len(list) > 0 {
		t.Errorf("then problems are %+v", list)
	}
	if v, _ := m.Follow.Now().State.Images["compute"].Newest(); v.Number != 2 {
		t.Errorf("the newest version is %d", v.Number)
	}
}
