package liveness

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/testkit"
)

// reopen returns a Tracker on the journal at path, with a clock of the test; nil is the real one.
func reopen(t *testing.T, path string, now func() time.Time) *Tracker {
	t.Helper()
	tr := discardingTracker()
	if now != nil {
		tr.now = now
	}
	testkit.Must(t, tr.open(path))
	return tr
}

// discardingTracker returns a Tracker that logs nothing and knows nothing of neighbors and clocks.
func discardingTracker() *Tracker {
	tr := newTracker(slog.New(slog.DiscardHandler))
	tr.neighbors = func() (map[netip.Addr]neighbor, error) { return nil, nil }
	tr.clocks = func([]netip.Addr) (map[netip.Addr]time.Duration, error) { return nil, nil }
	return tr
}

func TestEventsOutliveTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	now := time.Unix(1e9, 5)
	clock := func() time.Time { now = now.Add(time.Second); return now }
	tr := reopen(t, path, clock)
	report := func(tr *Tracker, stage boot.Stage, detail, err string) {
		tr.Report("n01", boot.Event{Stage: stage, Detail: detail, Error: err})
	}
	report(tr, boot.StageDHCP, "PXE", "")
	tr.Called("n02", now)
	tr.Called("n03", now)
	testkit.Must(t, tr.Save())
	report(tr, boot.StageScript, "", "")
	report(tr, boot.StageKernel, "", "lost")
	tr.Forget("n03")
	testkit.Must(t, tr.Save())
	want := tr.all()
	report(tr, boot.StageInitramfs, "", "") // and the server is killed

	same := cmp.Transformer("UTC", func(t time.Time) string { return t.UTC().String() })
	again := reopen(t, path, clock)
	if d := cmp.Diff(want, again.all(), same); d != "" {
		t.Errorf("after a restart: %s", d)
	}
	report(again, boot.StageRunning, "", "")
	testkit.Must(t, again.Close())
	if got := stageAt(t, path, clock, "n01"); got != boot.StageRunning {
		t.Errorf("after a restart n01 is in the stage %q", got)
	}
	now = now.Add(-time.Hour)
	if got := stageAt(t, path, clock, "n01"); got != "" {
		t.Errorf("with a clock that was put back n01 is in the stage %q in the future", got)
	}
}

// stageAt returns the stage of a node in the journal at path.
func stageAt(t *testing.T, path string, now func() time.Time, node cluster.NodeName) boot.Stage {
	t.Helper()
	tr := reopen(t, path, now)
	defer tr.Close()
	return tr.Stage(node)
}

func TestAJournalOfBootsStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	tr := reopen(t, path, nil)
	tr.journal.limit = 20_000
	for i := range 400 {
		node := cluster.NodeName(fmt.Sprintf("n%02d", i%20))
		tr.Report(node, boot.Event{Stage: boot.StageDHCP})
		tr.Report(node, boot.Event{Stage: boot.StageRunning})
		testkit.Must(t, tr.Save())
		tr.journal.limit = min(tr.journal.limit, 20_000)
	}
	if size := tr.journal.log.Size(); size > 30_000 {
		t.Errorf("the journal has %d bytes", size)
	}
	if again := reopen(t, path, nil); len(again.all()) != 20 {
		t.Errorf("of 20 nodes %d are known after a restart", len(again.all()))
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAForeignJournalOfBootsIsPutAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	tr := reopen(t, path, nil)
	tr.Called("n01", time.Now())
	testkit.Must(t, tr.journal.log.Append([]byte(`"no nodes"`)), tr.Close())
	foreign := testkit.Value(os.ReadFile(path))(t)
	if err := discardingTracker().open(path); err == nil {
		t.Error("it was read")
	}
	tr = testkit.Value(Open(path, nil, slog.New(slog.DiscardHandler)))(t)
	if got := tr.Stage("n01"); got != "" {
		t.Errorf("n01 is in the stage %q", got)
	}
	testkit.Must(t, tr.Close())
	if kept := testkit.Value(os.ReadFile(path + ".bad"))(t); string(kept) != string(foreign) {
		t.Errorf("%d of %d bytes are kept beside it", len(kept), len(foreign))
	}
}

func TestEventsWithoutAStageOrATimeAreNoBoot(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		event boot.Event
		want  bool
	}{
		"an event":   {boot.Event{Stage: boot.StageDHCP, Time: now, Last: now}, true},
		"no stage":   {boot.Event{Time: now, Last: now}, false},
		"no time":    {boot.Event{Stage: boot.StageDHCP}, false},
		"the future": {boot.Event{Stage: boot.StageDHCP, Time: now.Add(1), Last: now}, false},
	} {
		if got := usable([]boot.Event{tt.event}, now); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
