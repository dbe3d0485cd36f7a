package boot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestABootIsFollowed(t *testing.T) {
	now := time.Unix(1e9, 0)
	tr := NewTracker(func() time.Time { return now })
	steps := func() string {
		s, _ := tr.Get("n01")
		var out []string
		for _, e := range s.Events {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s%s x%d", e.Stage, e.Detail, e.Error, e.Count)))
		}
		return strings.Join(out, ", ")
	}
	then := func(what string, do func(), want string) {
		t.Helper()
		now = now.Add(time.Second)
		do()
		if d := cmp.Diff(want, steps()); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	then("discovery and request", func() { tr.Report("n01", StageDHCP, "PXE"); tr.Report("n01", StageDHCP, "PXE") }, "dhcp PXE x2")
	then("the loader", func() { tr.Report("n01", StageLoader, "") }, "dhcp PXE x2, loader  x1")
	then("the loader asks", func() { tr.Report("n01", StageDHCP, "iPXE") }, "dhcp PXE x2, loader  x1, dhcp iPXE x1")
	then("NFS calls of the last run", func() { tr.Active("n01") }, "dhcp PXE x2, loader  x1, dhcp iPXE x1")
	then("held up", func() { tr.Fail("n01", StageScript, "no version"); tr.Fail("n01", StageScript, "no version") },
		"dhcp PXE x2, loader  x1, dhcp iPXE x1, script no version x2")
	then("handover", func() { tr.Report("n01", StageHandover, ""); tr.Active("n01"); tr.Active("n01") },
		"dhcp PXE x2, loader  x1, dhcp iPXE x1, script no version x2, handover  x1, running  x1")
	then("the next boot", func() { tr.Report("n01", StageDHCP, "PXE") }, "dhcp PXE x1")
	then("a machine that is switched on again an hour later", func() { now = now.Add(time.Hour); tr.Report("n01", StageDHCP, "PXE") }, "dhcp PXE x1")
	then("an NFS call during the boot", func() { tr.Report("n01", StageMount, ""); tr.Active("n01") }, "dhcp PXE x1, mount  x1")
	then("an NFS call long after a handover that was not reported", func() { now = now.Add(time.Hour); tr.Active("n01") },
		"dhcp PXE x1, mount  x1, running  x1")
	tr.Active("n02")
	if s, _ := tr.Get("n02"); s.Stage != StageRunning {
		t.Errorf("a node that was running before the server: %q", s.Stage)
	}
	if all := tr.Snapshot(); len(all) != 2 || all[0].Node != "n01" || all[1].Node != "n02" {
		t.Errorf("snapshot %v", all)
	}
	tr.Forget("n02")
	if _, ok := tr.Get("n02"); ok {
		t.Error("n02 is still there")
	}
}

func TestABootThatNeverEndsIsKeptWithinBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	tr := NewTracker(func() time.Time { return now })
	tr.Report("n01", StageDHCP, "")
	for i := range 1000 {
		now = now.Add(time.Second)
		tr.Fail("n01", StageMount, fmt.Sprint("try ", i, strings.Repeat("x", 1000)))
	}
	s, _ := tr.Get("n01")
	if len(s.Events) != maxEvents || s.Events[0].Stage != StageDHCP || !strings.HasPrefix(s.Error, "try 999x") || len(s.Error) != maxText {
		t.Errorf("%d events, first %v, last %.20s…", len(s.Events), s.Events[0], s.Error)
	}
}
