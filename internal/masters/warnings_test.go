package masters

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/capture"
	"dim/internal/control"
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
