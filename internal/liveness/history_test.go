package liveness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/testkit"
)

// boots returns what is kept of a node, the latest boot first: the details of its events, and why it ended.
func boots(tr *Tracker) (list []string) {
	for _, b := range tr.History("n01") {
		var details []string
		for i := range b.Events {
			details = append(details, strings.TrimSpace(string(b.Events[i].Stage)+" "+b.Events[i].Detail))
		}
		list = append(list, strings.TrimRight(strings.Join(details, ", ")+": "+b.Ended.Text, ": "))
	}
	return list
}

func TestTheLastBootsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	now := time.Unix(1e9, 0)
	clock := func() time.Time { now = now.Add(time.Second); return now }
	tr := reopen(t, path, clock)
	report := func(stage boot.Stage, detail string) { tr.Report("n01", boot.Event{Stage: stage, Detail: detail}) }
	bootAgain := func(detail string, stages ...boot.Stage) {
		now = now.Add(time.Hour)
		for _, s := range stages {
			report(s, detail)
			if c := tr.claim("n01"); c != nil {
				tr.decide("n01", c, false)
			}
		}
	}
	for i := range maxEarlier {
		bootAgain(fmt.Sprint("lost ", i), boot.StageDHCP, boot.StageRunning)
	}
	bootAgain("A", boot.StageDHCP, boot.StageRunning)
	testkit.Must(t, tr.Save())
	for range 10 { // firmware that asks all day
		bootAgain("B", boot.StageDHCP)
	}
	bootAgain("C", boot.StageDHCP, boot.StageKernel)
	bootAgain("D", boot.StageDHCP, boot.StageLoader)
	want := []string{
		"dhcp D, loader D",
		"dhcp C, kernel C: it has fetched the kernel, and nothing came after that",
		"dhcp B: its firmware got an address and fetches no boot loader",
		"dhcp A, running A",
	}
	if d := cmp.Diff(want, boots(tr)); d != "" {
		t.Error(d)
	}
	testkit.Must(t, tr.Save())
	if d := cmp.Diff(want, boots(reopen(t, path, clock))); d != "" {
		t.Errorf("after a restart: %s", d)
	}
	testkit.Must(t, tr.journal.rewrite(tr.all()))
	if d := cmp.Diff(want, boots(reopen(t, path, clock))); d != "" {
		t.Errorf("after the journal was written anew: %s", d)
	}
}

// A write that failed may have reached the disk, and is repeated.
func TestBootsThatTheJournalHasTwiceAreKeptOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	now := time.Unix(1e9, 0)
	tr := reopen(t, path, func() time.Time { now = now.Add(time.Hour); return now })
	for range maxEarlier {
		tr.Report("n01", boot.Event{Stage: boot.StageDHCP})
		tr.Report("n01", boot.Event{Stage: boot.StageKernel, Detail: now.String()})
	}
	want := boots(tr)
	testkit.Must(t, tr.Save())
	tr.markChanged([]entry{{Node: "n01"}})
	before := tr.journal.log.Size()
	testkit.Must(t, tr.Save())
	if tr.journal.log.Size() <= before {
		t.Fatal("nothing was written again")
	}
	if d := cmp.Diff(want, boots(reopen(t, path, tr.now))); d != "" || len(want) != maxEarlier {
		t.Errorf("%d boots: %s", len(want), d)
	}
}

// The journal of an earlier dim has one boot of each node, in any number of records.
func TestRecordsOfOneBootAreOneBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	tr := reopen(t, path, nil)
	for _, stage := range []boot.Stage{boot.StageDHCP, boot.StageLoader, boot.StageScript} {
		tr.Report("n01", boot.Event{Stage: stage})
		testkit.Must(t, tr.Save())
	}
	testkit.Must(t, tr.Close())
	if list := boots(reopen(t, path, nil)); len(list) != 1 || list[0] != "dhcp, loader, script" {
		text := testkit.Value(os.ReadFile(path))(t)
		t.Errorf("%q, of %q", list, text)
	}
}
