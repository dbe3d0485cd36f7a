package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
)

// opened returns a Tracker with what the journal at path holds.
func opened(t *testing.T, path string, now func() time.Time) (*Tracker, *Journal) {
	t.Helper()
	tr := NewTracker(now)
	j, err := OpenJournal(path, tr)
	if err != nil {
		t.Fatal(err)
	}
	return tr, j
}

func TestWhatNodesDidOutlivesTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	now := time.Unix(1e9, 5)
	clock := func() time.Time { now = now.Add(time.Second); return now }
	tr, j := opened(t, path, clock)
	save := func() {
		t.Helper()
		if err := j.Save(); err != nil {
			t.Fatal(err)
		}
	}
	tr.Report("n01", StageDHCP, "PXE")
	tr.Active("n02")
	tr.Active("n03")
	save()
	tr.Report("n01", StageScript, "")
	tr.Fail("n01", StageKernel, "lost")
	tr.Forget("n03")
	save()
	want := tr.Snapshot()
	tr.Report("n01", StageInitramfs, "") // and the server is killed

	same := cmp.Transformer("UTC", func(t time.Time) string { return t.UTC().String() })
	again, j2 := opened(t, path, clock)
	if d := cmp.Diff(want, again.Snapshot(), same); d != "" {
		t.Errorf("after a restart: %s", d)
	}
	again.Report("n01", StageRunning, "")
	if err := j2.Close(); err != nil {
		t.Fatal(err)
	}
	if e, _ := lastOf(t, path, clock, "n01"); e.Stage != StageRunning {
		t.Errorf("after a restart n01 is in the stage %q", e.Stage)
	}
	now = now.Add(-time.Hour)
	if e, ok := lastOf(t, path, clock, "n01"); ok {
		t.Errorf("with a clock that was put back n01 did something in the future: %+v", e)
	}
}

func lastOf(t *testing.T, path string, now func() time.Time, node cluster.NodeName) (Event, bool) {
	t.Helper()
	tr, j := opened(t, path, now)
	defer j.Close()
	return tr.Last(node)
}

func TestAJournalOfBootsStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	tr, j := opened(t, path, nil)
	j.limit = 20_000
	for i := range 400 {
		tr.Report(cluster.NodeName(fmt.Sprintf("n%02d", i%20)), StageDHCP, "")
		tr.Report(cluster.NodeName(fmt.Sprintf("n%02d", i%20)), StageRunning, "")
		if err := j.Save(); err != nil {
			t.Fatal(err)
		}
		j.limit = min(j.limit, 20_000)
	}
	if j.log.Size() > 30_000 {
		t.Errorf("the journal has %d bytes", j.log.Size())
	}
	if again, _ := opened(t, path, nil); len(again.Snapshot()) != 20 {
		t.Errorf("of 20 nodes %d are known after a restart", len(again.Snapshot()))
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAForeignJournalOfBootsIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boots.log")
	tr, j := opened(t, path, nil)
	tr.Active("n01")
	if err := j.log.Append([]byte(`"no nodes"`)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, NewTracker(nil)); err == nil {
		t.Error("it was read")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
