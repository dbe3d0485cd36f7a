package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"dim/internal/control"
	"dim/internal/testkit"
)

// watch declares that compute's master is watched.
func (s *site) watch(r control.WatchRequest) control.Watch {
	s.t.Helper()
	r.Image = "compute"
	w, err := s.client().Watch(s.t.Context(), r)
	testkit.Must(s.t, err)
	return w
}

func TestEditsOfAWatchedMasterReachTheNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	if w := s.watch(control.WatchRequest{Rollout: "now", DryRun: true}); !w.On || s.status().Images[0].Watch != nil {
		t.Errorf("a dry run: %+v", w)
	}
	if w := s.watch(control.WatchRequest{Rollout: "now", Debounce: 0.01}); !w.On || w.Server != "head" ||
		w.Master != "dir:"+s.master {
		t.Errorf("%+v", w)
	}
	tree := s.mount("127.0.0.11", "/nodes/n01")
	shows := func(text string) {
		t.Helper()
		testkit.Eventually(t, "the node reads "+text, func() bool { return read(t, tree, "etc/motd") == text })
	}
	s.put("etc/motd", "two\n")
	shows("two\n")
	s.put("etc/motd", "three\n")
	shows("three\n")
	testkit.Must(t, s.stop())

	s.put("etc/motd", "while it was down\n")
	s.start()
	tree = s.mount("127.0.0.11", "/nodes/n01")
	shows("while it was down\n")
	s.put("etc/motd", "after the restart\n")
	shows("after the restart\n")
	testkit.Eventually(t, "the status shows it", func() bool {
		w := s.status().Images[0].Watch
		return w != nil && w.Versions >= 2 && w.Walks > 0 && w.Problem == ""
	})
	v, err := s.client().Version(t.Context(), "compute")
	testkit.Must(t, err)
	if v.Watch == nil {
		t.Error("the newest version does not show the watch")
	}
	if s.capture("compute"); s.status().Images[0].Problem != "" {
		t.Error("after a capture by hand the watch has a problem")
	}

	if w := s.watch(control.WatchRequest{Off: true}); w.On {
		t.Errorf("off: %+v", w)
	}
	newest := s.status().Images[0].Newest.Number
	s.put("etc/motd", "not watched\n")
	if done := s.capture("compute"); done.Unchanged || done.Version.Number != newest+1 {
		t.Errorf("%+v: a version was made although nothing is watched", done)
	}
}

func TestACaptureByHandOfAWatchedMasterReachesTheNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	s.watch(control.WatchRequest{Rollout: "now", Debounce: 1})
	testkit.Eventually(t, "it is watched", func() bool {
		w := s.status().Images[0].Watch
		return w != nil && w.Walks > 0
	})
	tree := s.mount("127.0.0.11", "/nodes/n01")
	s.put("etc/motd", "by hand\n")
	made := s.captureWith(control.CaptureRequest{Image: "compute"}) // before the watch does
	testkit.Eventually(t, "the node follows", func() bool { return read(t, tree, "etc/motd") == "by hand\n" })
	if newest := s.status().Images[0].Newest.Number; newest != made.Version.Number {
		t.Errorf("version %d was captured by hand, and now there is %d", made.Version.Number, newest)
	}
	list, err := s.client().Rollouts(t.Context())
	testkit.Must(t, err)
	changeRollout(s, list[0].ID, "undo")
	testkit.Must(t, s.stop())
	s.start()
	testkit.Eventually(t, "it is watched again", func() bool {
		w := s.status().Images[0].Watch
		return w != nil && w.Walks > 0
	})
	if got := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got == "by hand\n" {
		t.Error("what was undone came back by itself")
	}
}

func TestAWatchedMasterThatIsGoneIsAProblem(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	s.capture("compute")
	s.watch(control.WatchRequest{Debounce: 0.01})
	testkit.Must(t, os.Rename(s.master, s.master+".away"))
	testkit.Eventually(t, "the status shows it", func() bool { return s.status().Images[0].Problem != "" })
	testkit.Must(t, os.Rename(s.master+".away", s.master))
	testkit.Eventually(t, "it is no problem any more", func() bool { return s.status().Images[0].Problem == "" })
	s.put("etc/motd", "back\n")
	testkit.Eventually(t, "an edit is a version", func() bool { return s.status().Images[0].Newest.Number > 1 })
}

func TestWhatCannotBeWatchedIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.describe("", "dir:"+s.master+`"><shared`, "tar:"+filepath.Join(s.data, "x.tar")+`"><shared`)
	s.start()
	for _, c := range []struct {
		r    control.WatchRequest
		code control.Code
	}{
		{control.WatchRequest{Image: "none"}, control.NotFound},
		{control.WatchRequest{Image: "compute"}, control.Invalid},
		{control.WatchRequest{Image: "other", Rollout: "soon"}, control.Invalid},
		{control.WatchRequest{Image: "other", Debounce: 3600}, control.Invalid},
	} {
		if _, err := s.client().Watch(t.Context(), c.r); code(err) != c.code {
			t.Errorf("%+v: got %v, want %v", c.r, err, c.code)
		}
	}
}

func TestAWatchOutlivesItsImageOnlyUntilItIsEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	if _, err := s.client().Watch(t.Context(), control.WatchRequest{Image: "other"}); err != nil {
		t.Fatal(err)
	}
	s.describe("", `<image name="other" arch="amd64" master="dir:`+s.master+`"/>`, "")
	testkit.Must(t, s.apply())
	if w, err := s.client().Watch(t.Context(), control.WatchRequest{Image: "other", Off: true}); err != nil || w.On {
		t.Errorf("off: %+v, %v", w, err)
	}
	if _, err := s.client().Watch(t.Context(),
		control.WatchRequest{Image: "other", Off: true}); code(err) != control.NotFound {
		t.Errorf("off once more: %v", err)
	}
}

func TestASyntaxErrorInANodeSetIsReported(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	_, check := s.client().Check(t.Context(), "n[01")
	_, list := s.client().Nodes(t.Context(), "n[01")
	if code(check) != control.Invalid || code(list) != control.Invalid {
		t.Errorf("check: %v; list: %v", check, list)
	}
}
