package expiry

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// What is too old is removed one interval after the start, and named before.
func TestNothingIsRemovedBeforeItIsTold(t *testing.T) {
	testkit.NeedRoot(t, "layers have trusted attributes")
	dir := t.TempDir()
	m := replicatest.NewMemory(t)
	one := m.Version(t, 1, replicatest.V1())
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		set := testkit.Value(replica.Open(replica.Options{Dir: dir, Source: m, Durability: replica.Relaxed}))(t)
		defer set.Close()
		testkit.Value(set.Attach(replica.Spec{
			Node: "n01", Image: "compute", Version: one, Rules: replica.Rules{SavedFor: time.Hour},
		}))(t)
		now := time.Now()
		old := filepath.Join(dir, "n01/compute/saved", layer.StampName(now.Add(-2*time.Hour)))
		snapshot := filepath.Join(dir, "n01/compute/snapshots", layer.StampName(now.Add(-time.Hour)))
		testkit.Must(t, os.MkdirAll(filepath.Join(old, "etc"), 0o700), os.MkdirAll(snapshot, 0o700))
		schedule := NewSchedule(set)
		next := func(want ...Removal) {
			t.Helper()
			if diff := cmp.Diff(want, schedule.Next(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("next: %s", diff)
			}
		}
		taken := Removal{"n01", "compute", true, now.Add(-time.Hour).UTC(), now.Add(30*24*time.Hour - time.Hour).UTC()}
		next(Removal{"n01", "compute", false, now.Add(-2 * time.Hour).UTC(), now.Add(-time.Hour)}, taken)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Run(ctx, set, time.Minute, slog.New(slog.NewTextHandler(&log, nil))) }()
		synctest.Wait()
		if _, err := os.Stat(old); err != nil {
			t.Errorf("at the start: %v", err)
		}
		time.Sleep(3*time.Minute/2 + time.Second) // see periodic.Run
		synctest.Wait()
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Errorf("after an interval: %v", err)
		}
		next(taken)
		cancel()
		testkit.Must(t, <-ended)
		if !strings.Contains(log.String(), "will be removed after their time") {
			t.Errorf("the log: %s", log.String())
		}
	})
}
