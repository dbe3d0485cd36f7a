package crash

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dim/internal/layers"
	"dim/internal/replica"
	"dim/internal/testkit"
)

// keeper records what each snapshot may show.
type keeper struct {
	t       *testing.T
	c       *cluster
	dir     string
	moments []moment
	exact   map[string]state // of those that were taken without concurrent writes
	ended   map[string]int   // results of restores that were killed
}

// inASwitch returns during one of the first switches that begin.
func (k *keeper) inASwitch(begun <-chan struct{}, random *rand.Rand) {
	for range 1 + random.IntN(3) {
		select {
		case <-begun:
		case <-time.After(time.Minute):
			k.t.Error("no switch begins")
		}
	}
	time.Sleep(time.Duration(random.Int64N(int64(switchTakes))))
}

// switchTakes is about how long the snapshot of a switch takes here; later nothing new happens.
const switchTakes = 20 * time.Millisecond

// moment is a time span in which a snapshot may have been taken, and the changes of the workers in it.
type moment struct {
	from, to  time.Time
	all       []*worker
	low, high []int
}

// during runs a function that may take a snapshot.
func (k *keeper) during(all []*worker, do func() error) error {
	m := moment{all: slices.Clone(all), from: time.Now()}
	for _, w := range all {
		acked, _ := w.span()
		m.low = append(m.low, acked)
	}
	err := do()
	for _, w := range m.all {
		_, begun := w.span()
		m.high = append(m.high, begun)
	}
	m.to = time.Now()
	k.moments = append(k.moments, m)
	return err
}

// Each switch takes a snapshot under load, and the server is killed at random times. Then it is killed during a
// restore of a snapshot. Each snapshot must show the layer at one moment of the switch that took it, and the
// layer must be as before the restore or as after it.
func TestSnapshotsAreWholeAfterKills(t *testing.T) {
	dir := t.TempDir()
	c := newCluster(t, dir)
	c.keep = 5
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Synced, 0)
	testkit.Must(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	all, now := newWorkers(t, r, seed), shown{}
	testkit.Must(t, set.Close())
	k := &keeper{t: t, c: c, dir: dir, exact: make(map[string]state), ended: make(map[string]int)}
	for i := 0; i < rounds(3) && !t.Failed(); i++ {
		s := c.startServer(t, dir, now.version)
		begun := make(chan struct{}, 1)
		m := newSwitcher(now, func(to move) error {
			return k.during(all, func() error {
				select {
				case begun <- struct{}{}:
				default:
				}
				return s.to(to)
			})
		})
		killUnderLoad(t, s, all, m, func() { k.inASwitch(begun, random) })
		testkit.Must(t, k.during(all, func() error {
			now = checkAfterKill(t, c, dir, all, m, random)
			return nil
		}))
		if !t.Failed() {
			took := k.putBack(now.version, random)
			now.saved = k.killWhilePuttingBack(now.version, took, random)
		}
	}
	t.Logf("killed restores: %v", k.ended)
}

func (k *keeper) open(version int) (*replica.Set, *replica.Replica) {
	k.t.Helper()
	set, r, err := k.c.open(filepath.Join(k.dir, "replicas"), replica.Synced, version)
	testkit.Must(k.t, err)
	return set, r
}

func everything(t *testing.T, r *replica.Replica) state {
	t.Helper()
	is := make(state)
	testkit.Must(t, observe(r, r.Root(), "", make(map[uint64]*entry), is))
	return is
}

// putBack restores a snapshot, checks the result, and undoes it. It returns how long a restore takes.
func (k *keeper) putBack(version int, random *rand.Rand) (took time.Duration) {
	set, r := k.open(version)
	defer set.Close()
	list, err := layers.Snapshots(set, "n01")
	testkit.Must(k.t, err)
	if len(list) == 0 {
		return 0
	}
	one, before := list[0], everything(k.t, r) // mostly the one during which the server was killed
	if random.IntN(3) == 0 {
		one = list[random.IntN(len(list))]
	}
	started := time.Now()
	done, err := layers.Of(r).RestoreSnapshot(layers.RestoreSnapshotOptions{To: one.ID()})
	testkit.Must(k.t, err)
	took = time.Since(started)
	then := everything(k.t, r)
	k.check(r, &one, then)
	if done.Undo == "" {
		k.same("a restore that changes nothing", then, before)
		return took
	}
	k.exact[done.Undo] = before
	back, err := layers.Of(r).RestoreSnapshot(layers.RestoreSnapshotOptions{To: done.Undo})
	testkit.Must(k.t, err)
	k.same("an undone restore", everything(k.t, r), before)
	k.exact[back.Undo] = then
	return took
}

// check checks that a snapshot shows the layer as it was when the snapshot was taken.
func (k *keeper) check(r *replica.Replica, one *layers.Snapshot, then state) {
	k.t.Helper()
	if exact := k.exact[one.ID()]; exact != nil {
		for i := range workers {
			w := fmt.Sprint("w", i)
			k.same("snapshot "+one.ID(), below(then, w), below(exact, w))
		}
		return
	}
	for _, m := range k.moments {
		if one.Stamp.Before(m.from) || one.Stamp.After(m.to) {
			continue
		}
		for i, w := range m.all {
			if _, err := w.check(r, m.low[i], m.high[i]); err != nil {
				k.t.Errorf("snapshot %s, %s: %v", one.ID(), one.Why, err)
			}
		}
		return
	}
	k.t.Errorf("snapshot %s, %s: of no switch", one.ID(), one.Why)
}

// below returns the part of s in a directory. The content of m depends on the version too.
func below(s state, dir string) state {
	s = maps.Clone(s)
	maps.DeleteFunc(s, func(path string, _ *entry) bool { return path != dir && !strings.HasPrefix(path, dir+"/") })
	return s
}

func (k *keeper) same(what string, is, want state) {
	k.t.Helper()
	if !is.equal(want) {
		k.t.Errorf("%s shows\n%s\nwhich it never showed; it was\n%s", what, text(is), text(want))
	}
}

// killWhilePuttingBack has a server restore the newest snapshot and kills it. It leaves the layer as it was,
// and returns how many entries are in the saved area.
func (k *keeper) killWhilePuttingBack(version int, took time.Duration, random *rand.Rand) (saved int) {
	set, r := k.open(version)
	list, err := layers.Snapshots(set, "n01")
	testkit.Must(k.t, err)
	before, then := everything(k.t, r), state(nil)
	if len(list) > 0 && took > 0 {
		then = k.exact[list[0].ID()]
	}
	testkit.Must(k.t, set.Close())
	if then != nil {
		s := k.c.startServer(k.t, k.dir, version)
		done := make(chan error, 1)
		go func() { done <- s.do(list[0].ID()) }()
		select {
		case <-done:
		case <-time.After(time.Duration(random.Int64N(int64(2 * took)))):
		}
		s.kill()
	}
	set, r = k.open(version)
	defer set.Close()
	k.note(set, before)
	is := everything(k.t, r)
	switch {
	case then == nil:
	case is.equal(before):
		k.ended["before"]++
	case is.equal(then):
		k.ended["after"]++
		k.undo(set, r, before)
	default:
		k.t.Errorf("after kill -9 in a restore the node shows\n%s\nwhich it never showed; "+
			"it was\n%s\nand was to be\n%s",
			text(is), text(before), text(then))
	}
	if _, err := layers.Expire(set, slog.New(slog.DiscardHandler)); err != nil {
		k.t.Error(err)
	}
	checked, err := layers.Of(r).Check()
	testkit.Must(k.t, err)
	for _, p := range checked.Problems {
		k.t.Errorf("after kill -9 in a restore: %+v", p)
	}
	all, err := layers.Of(r).Saved()
	testkit.Must(k.t, err)
	return len(all)
}

// note records the content of the snapshots that killed restores took of the layer before.
func (k *keeper) note(set *replica.Set, before state) {
	k.t.Helper()
	list, err := layers.Snapshots(set, "n01")
	testkit.Must(k.t, err)
	for _, one := range list {
		if one.Why == "restore" && k.exact[one.ID()] == nil {
			k.exact[one.ID()] = before
		}
	}
}

// undo restores the snapshot that a killed restore took first.
func (k *keeper) undo(set *replica.Set, r *replica.Replica, before state) {
	k.t.Helper()
	list, err := layers.Snapshots(set, "n01")
	testkit.Must(k.t, err)
	then := everything(k.t, r)
	back, err := layers.Of(r).RestoreSnapshot(layers.RestoreSnapshotOptions{To: list[0].ID()})
	testkit.Must(k.t, err)
	k.exact[back.Undo] = then
	k.same("an undone restore", everything(k.t, r), before)
}
