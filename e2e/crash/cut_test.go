package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/image"
	"dim/internal/recordmerge"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/testkit"
)

// rounds is the number of power cuts in a test.
func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("DIM_CRASH_ROUNDS")); err == nil {
		return n
	}
	return usual
}

const workers = 6

// cluster is a store with the versions that replicas follow.
type cluster struct {
	t        *testing.T
	store    *store.Store
	versions []image.Version
	keep     int // how many snapshots of the layer are kept
}

// newCluster captures a master with a directory for each worker, and another one whose files in m are others.
func newCluster(t *testing.T, dir string) *cluster {
	t.Helper()
	testkit.NeedRoot(t, "layers hold owners and devices")
	s, err := store.Open(filepath.Join(dir, "store"), store.Options{})
	testkit.Must(t, err)
	t.Cleanup(func() { s.Close() })
	c := &cluster{t: t, store: s}
	master := filepath.Join(dir, "master")
	for i := range workers {
		w := filepath.Join(master, fmt.Sprint("w", i))
		testkit.Must(t, errors.Join(os.MkdirAll(filepath.Join(w, "d"), 0o755),
			os.WriteFile(filepath.Join(w, "a"), []byte(strings.Repeat("version ", 700)), 0o644),
			os.WriteFile(filepath.Join(w, "d/b"), []byte("small"), 0o600),
			os.Link(filepath.Join(w, "a"), filepath.Join(w, "d/c")), os.Symlink("a", filepath.Join(w, "e"))))
	}
	number := testkit.Counter()
	for _, v := range versionNames {
		testkit.Must(t, os.MkdirAll(filepath.Join(master, "m"), 0o755))
		for i := range switched {
			testkit.Must(t, os.WriteFile(filepath.Join(master, fmt.Sprint("m/f", i)), []byte(v), 0o644))
		}
		testkit.Must(t, os.WriteFile(filepath.Join(master, "m/records"), []byte(masterRecords(v)), 0o644))
		res, err := capture.Run(context.Background(), s,
			capture.Options{Image: "compute", Dir: master, Reserve: number})
		testkit.Must(t, err)
		c.versions = append(c.versions, res.Version)
	}
	return c
}

func (c *cluster) open(dir string, durability replica.Durability, version int) (*replica.Set, *replica.Replica, error) {
	s, err := replica.Open(replica.Options{Dir: dir, Source: c.store, Durability: durability})
	if err != nil {
		return nil, nil, err
	}
	r, err := s.Attach(replica.Spec{Node: "n01", Image: "compute", Version: c.versions[version], Rules: c.rules()})
	return s, r, err
}

func (c *cluster) rules() replica.Rules {
	merge := map[string]recordmerge.Format{"m/records": recordmerge.LineKey}
	return replica.Rules{Snapshots: c.keep, Merge: merge}
}

func (c *cluster) to(set *replica.Set, r *replica.Replica, m move) error {
	rep, err := set.Switch(context.Background(),
		[]replica.Move{{Replica: r, Version: c.versions[m.version], Rules: c.rules(), Stay: m.stayPaths()}})
	for _, m := range rep.Missed {
		err = errors.Join(err, m)
	}
	return err
}

// newWorkers reads what the workers' directories show.
func newWorkers(t *testing.T, r *replica.Replica, seed uint64) []*worker {
	t.Helper()
	var all []*worker
	for i := range workers {
		w := newWorker(fmt.Sprint("w", i), seed+uint64(i), make(state))
		top, err := find(r, w.dir)
		testkit.Must(t, err)
		testkit.Must(t, observe(r, top, "", make(map[uint64]*entry), w.states[0]))
		all = append(all, w)
	}
	return all
}

func TestAcknowledgedIsOnDiskWhenThePowerGoes(t *testing.T) {
	for _, mkfs := range [][]string{{"mkfs.ext4", "-q", "-F"}, mkfsXFS()} {
		t.Run(strings.Join(mkfs, " "), func(t *testing.T) { cutThePower(t, replica.Synced, mkfs) })
	}
}

// cutThePower has workers change a replica on a disk, and checks many times what a power cut would leave of it.
func cutThePower(t *testing.T, durability replica.Durability, mkfs []string) {
	c := newCluster(t, t.TempDir())
	d := newDisk(t, mkfs...)
	set, r, err := c.open(filepath.Join(d.dir, "replicas"), durability, 0)
	testkit.Must(t, err)
	defer set.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	all := newWorkers(t, r, seed)
	m := newSwitcher(shown{}, func(to move) error { return c.to(set, r, to) })
	var stop atomic.Bool
	var wg sync.WaitGroup
	more := func() bool { return !stop.Load() }
	for _, w := range all {
		wg.Go(func() {
			if err := w.work(r, more); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := m.work(r, more); err != nil {
			t.Error(err)
		}
	})
	random := rand.New(rand.NewPCG(seed, 1))
	recovered := 0
	for i := 0; i < rounds(6) && !t.Failed(); i++ {
		target, _ := all[0].span()
		for !t.Failed() { // at least some calls between two cuts
			if acked, _ := all[0].span(); acked > target+random.IntN(20) {
				break
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
		if checkAfterCut(t, c, d, all, m, random) {
			recovered++
		}
	}
	stop.Store(true)
	wg.Wait()
	if recovered <= rounds(6)/2 && !t.Failed() {
		t.Errorf("only %d file systems of %d recovered", recovered, rounds(6))
	}
}

// checkAfterCut compares the content of the disk after a cut with the calls that were acknowledged. It returns false if
// the file system did not recover, so that there was nothing to compare.
func checkAfterCut(t *testing.T, c *cluster, d *disk, all []*worker, m *switcher, random *rand.Rand) bool {
	low, high := make([]int, len(all)), make([]int, len(all))
	for i, w := range all {
		low[i], _ = w.span()
	}
	lowM, _ := m.span()
	after := d.cut(random)
	for i, w := range all {
		_, high[i] = w.span()
	}
	_, highM := m.span()
	defer after.Close()
	dir, err := d.tryMount(after.Name(), "after", 0)
	if errors.Is(err, unix.EBADMSG) { // XFS: "failed to locate log tail"; its log does not survive every cut
		t.Logf("the file system itself does not recover from this cut: %v", err)
		return false
	}
	testkit.Must(t, err)
	defer unix.Unmount(dir, 0)
	version := m.version([]int{lowM, highM}[random.IntN(2)]) // the declared version may be older than the last switch
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Relaxed, version)
	if err != nil {
		t.Errorf("after the cut: %v", err)
		return true
	}
	defer set.Close()
	for i, w := range all {
		if _, err := w.check(r, low[i], high[i]); err != nil {
			t.Errorf("after the cut: %v", err)
		}
	}
	if _, err := m.check(r, version, lowM, highM); err != nil {
		t.Errorf("after the cut: %v", err)
	}
	return true
}
