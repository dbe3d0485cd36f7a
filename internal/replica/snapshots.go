package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// Snapshot is a copy of a layer as it was at a time.
type Snapshot struct {
	Node   string
	Image  string
	Stamp  time.Time
	Over   []Over // the versions that the layer was over while it was so, oldest first
	Why    string // "switch compute@1 compute@2", "reset", "restore"
	Files  uint64 // entries of all types
	Bytes  uint64 // room that its files take, shared or not
	Copied uint64 // of these, what could be shared neither with the layer nor with an earlier snapshot
}

// Over is a version that a layer was over.
type Over struct {
	Ref    image.Ref
	Digest image.Digest
}

// SnapshotRule says which snapshots of a layer are kept. The zero rule takes none.
type SnapshotRule struct {
	Keep int           // how many; 0: none are taken, and those that are there stay for their time
	For  time.Duration // 0: SnapshotsFor
	Copy uint64        // bytes that one may copy where the disk cannot share them; 0: SnapshotCopy
}

// What holds for snapshots when nobody says otherwise.
const (
	SnapshotsFor        = 30 * 24 * time.Hour
	SnapshotCopy uint64 = 64 << 20
)

func (s *SnapshotRule) most() uint64 {
	if s.Copy == 0 {
		return SnapshotCopy
	}
	return s.Copy
}

func (s *SnapshotRule) oldest(now time.Time) time.Time {
	if s.For == 0 {
		return now.Add(-SnapshotsFor)
	}
	return now.Add(-s.For)
}

// ID is the stamp as people and directories have it.
func (s *Snapshot) ID() string { return stampName(s.Stamp) }

// overMost bounds how many versions are noted of one snapshot: some file systems have 4,096 bytes for all attributes of a directory.
const overMost = 16

// overLine is one line of trusted.dim.over: the version's reference and its digest.
func overLine(v *image.Version) []byte { return fmt.Appendf(nil, "%s %s\n", v.Ref(), v.Digest) }

// parseOver reads trusted.dim.over. Lines that make no sense are left out: only where a snapshot is found by its version are they of use.
func parseOver(b []byte) []Over {
	var list []Over
	for line := range strings.Lines(string(b)) {
		ref, digest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		r, err := image.ParseRef(ref)
		d, err2 := image.ParseDigest(digest)
		if ok && err == nil && err2 == nil {
			list = append(list, Over{r, d})
		}
	}
	return list
}

// noteOver notes that the newest snapshot shows the layer as it was over v too.
func (r *Replica) noteOver(v *image.Version) error {
	at := r.snaps.newest.Load()
	if at == 0 {
		return nil
	}
	fd, err := r.set.openBeneath(r.dir+"/"+snapshotArea+"/"+stampName(time.Unix(0, at)), openDir)
	if err != nil {
		r.snaps.lost()
		return err
	}
	defer unix.Close(fd)
	have, err := xattrValue(procPath(fd, "."), xattrOver)
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(have)))
	line := string(overLine(v))
	if len(lines) > 0 && lines[len(lines)-1] == line {
		return nil
	}
	lines = append(lines, line)
	return unix.Fsetxattr(fd, xattrOver, []byte(strings.Join(lines[max(0, len(lines)-overMost):], "")), 0)
}

// Snapshots lists the snapshots of a node's layers, of all its images, the latest of each first. The replicas need not be attached.
func (s *Set) Snapshots(node string) ([]Snapshot, error) {
	if err := checkPlace(node); err != nil {
		return nil, err
	}
	images, err := s.list(node)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, im := range images {
		r := Replica{set: s, node: node, image: im, dir: node + "/" + im}
		of, err := r.snapshots()
		if err != nil {
			return nil, fmt.Errorf("list snapshots of %s: %w", r.dir, err)
		}
		list = append(list, of...)
	}
	return list, nil
}

func (r *Replica) snapshots() ([]Snapshot, error) {
	stamps, err := r.stamps(snapshotArea)
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, at := range stamps {
		fd, err := r.set.openBeneath(r.dir+"/"+snapshotArea+"/"+stampName(at), openDir)
		if err == unix.ENOENT {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		one := Snapshot{Node: r.node, Image: r.image, Stamp: at, Why: whyOf(fd)}
		over, _ := xattrValue(procPath(fd, "."), xattrOver)
		weight, _ := xattrValue(procPath(fd, "."), xattrWeight)
		unix.Close(fd)
		one.Over = parseOver(over)
		_, _ = fmt.Sscan(string(weight), &one.Files, &one.Bytes, &one.Copied) // what is not told is 0
		list = append(list, one)
	}
	return list, nil
}

// ErrNoSnapshot tells that there is none of that version or time.
var ErrNoSnapshot = errors.New("there is no such snapshot")

// pick finds the snapshot that to names: by its stamp, or how that begins; by the time, the last one then or before; by a version that the layer
// was over, NAME@N or N, the last one of it.
func pick(list []Snapshot, to string) (*Snapshot, error) {
	at, timeErr := time.Parse(time.RFC3339, to)
	for i := range list { // the latest first
		one := &list[i]
		if to != "" && strings.HasPrefix(one.ID(), to) && len(to) >= len("20060102T") || timeErr == nil && !one.Stamp.After(at) {
			return one, nil
		}
		for _, v := range one.Over {
			if to == v.Ref.String() || to == fmt.Sprint(v.Ref.Number) {
				return one, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoSnapshot, to)
}

// sparse moves the snapshots of r that its rule no longer keeps out of the way, to be removed by sweep.
func (r *Replica) sparse(now time.Time) (gone int, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	stamps, err := r.stamps(snapshotArea)
	if err != nil || len(stamps) == 0 {
		return 0, err
	}
	dir, err := r.set.openBeneath(r.dir+"/"+snapshotArea, openDir)
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	rule := r.rules.Snapshots
	for i, at := range stamps {
		if !at.Before(rule.oldest(now)) && (rule.Keep == 0 || i < rule.Keep) {
			continue
		}
		if at.UnixNano() == r.snaps.newest.Load() {
			r.snaps.lost()
		}
		name := stampName(at)
		if err := unix.Renameat(dir, name, dir, halfGone+name); err != nil && err != unix.ENOENT {
			return gone, err
		}
		gone++
	}
	return gone, nil
}

// sweepHalf moves snapshots that a crash has left half made out of the way. Nobody takes one of r meanwhile.
func (r *Replica) sweepHalf() error {
	dir, err := r.set.openBeneath(r.dir+"/"+snapshotArea, openDir)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	names, err := listDir(dir)
	for _, name := range names {
		if stamp, is := strings.CutPrefix(name, halfMade); is && err == nil {
			err = unix.Renameat(dir, name, dir, halfGone+stamp)
		}
	}
	return err
}

// sweep removes what is out of the way. It needs no lock of r.
func (r *Replica) sweep() error { return r.sweepArea(snapshotArea, halfGone) }

// sweepArea removes what has a name in area that begins with mark.
func (r *Replica) sweepArea(area, mark string) error {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	dir, err := r.set.openBeneath(r.dir+"/"+area, openDir)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	names, err := listDir(dir)
	errs := []error{err}
	for _, name := range names {
		if !strings.HasPrefix(name, mark) {
			continue
		}
		if err := r.set.crash("in sweep"); err != nil {
			return err
		}
		errs = append(errs, removeAll(dir, name))
	}
	return errors.Join(errs...)
}

// thin removes the snapshots of r that its rule no longer keeps. r is not locked.
func (r *Replica) thin() (gone int, err error) {
	if gone, err = r.sparse(r.set.now()); gone > 0 && err == nil {
		err = r.sweep()
	}
	return gone, err
}

// expireSnapshots removes snapshots of all that the rules no longer keep, and what a crash has left of some.
func (s *Set) expireSnapshots(all []*Replica) error {
	var errs []error
	for _, r := range all {
		errs = append(errs, r.expireSnapshots())
	}
	return errors.Join(errs...)
}

func (r *Replica) expireSnapshots() error {
	r.set.switching.Lock()
	r.mu.RLock()
	err := r.sweepHalf()
	r.mu.RUnlock()
	r.set.switching.Unlock()
	gone, e := r.sparse(r.set.now())
	if gone > 0 {
		r.set.log.Info("snapshots removed after their time", "replica", r.dir, "snapshots", gone)
	}
	return errors.Join(err, e, r.sweep())
}
