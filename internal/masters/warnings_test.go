package masters

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/testkit"
)

func TestEachWarningIsGivenOnceAndSaysWhatToDo(t *testing.T) {
	v := &reviewer{scan: &secretScan{found: []control.Warning{{Kind: control.WarnSecret, Path: "/k", Hint: "h"}}}}
	v.found = []control.Warning{
		{Kind: control.WarnReplaced, Path: "/lib", Text: "by the review", Hint: "h"},
		{Kind: control.WarnCapabilities, Path: "/bin/ping", Hint: "h"},
	}
	cause := errors.New("cause")
	list := v.warnings([]capture.Problem{
		{Path: "lib", Kind: capture.Replaced, Err: cause}, {Path: "boot", Kind: capture.LeftOut, Err: cause},
		{Path: "boot", Kind: capture.Covered, Err: cause}, {Path: "home", Kind: capture.LeftOut, Err: cause},
		{Path: "gone", Kind: capture.Vanished}, {Path: "log", Kind: capture.Changing},
		{Path: "", Kind: capture.Odd, Err: cause}, {Path: "f", Kind: capture.Odd, Err: cause},
		{Path: "", Kind: capture.Nothing, Err: cause}, {Path: "var", Kind: capture.Emptied, Err: cause},
	})
	var got []string
	for _, w := range list {
		if w.Hint == "" {
			t.Errorf("%+v does not say what to do", w)
		}
		got = append(got, string(w.Kind)+" "+w.Path)
	}
	want := []string{
		"held /boot", "held /var", "left-out /home", "left-out /gone", "capabilities /bin/ping", "changing /log",
		"replaced /lib", "secret /k", "odd ", "odd /f", "odd /",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestKernelsThatCouldBeMeantAreListed(t *testing.T) {
	t.Parallel()
	m, _, dir := newMasters(t)
	im, _ := m.Follow.Cluster().Image(cluster.ImageName("compute"))
	for _, release := range []string{"6.1.0-56-amd64", "6.1.0-57-amd64", "6.1.0-58-cloud-amd64"} {
		modules := filepath.Join(dir, "usr/lib/modules", release)
		testkit.Must(t, os.MkdirAll(modules, 0o755), os.MkdirAll(filepath.Join(dir, "boot"), 0o755),
			os.WriteFile(filepath.Join(modules, "modules.dep"), nil, 0o644),
			os.WriteFile(filepath.Join(dir, "boot/vmlinuz-"+release), nil, 0o644))
	}
	request := control.CaptureRequest{Image: "compute"}
	out := testkit.Value(m.Capture(t.Context(), im, request, func(control.Progress) {}))(t)
	want := []string{"6.1.0-58-cloud-amd64"}
	if d := cmp.Diff(want, m.OtherKernels(&out.Version)); d != "" {
		t.Error(d)
	}
	const text = "nodes boot kernel 6.1.0-57-amd64; there is also 6.1.0-58-cloud-amd64"
	if len(out.Warnings) != 1 || out.Warnings[0].Text != text {
		t.Errorf("warnings: %+v", out.Warnings)
	}
}
