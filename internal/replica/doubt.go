package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
)

// unnamed is the value of journal.damaged while the name of the copy is not known.
const unnamed = "?"

// recordStart is the number of bytes before the JSON of a record.
const recordStart = 8

// doubt makes those replicas doubtful that lost records may have been of. lost is what stands in the place of the
// records. If it can still be read these are the replicas that it names, else all.
func (j *journal) doubt(lost []byte) {
	if j.damaged == "" {
		j.damaged = unnamed
	}
	var r record
	if len(lost) > recordStart && json.Unmarshal(lost[recordStart:], &r) == nil && len(r.Replicas) > 0 {
		for i := range r.Replicas {
			j.doubtOne(r.Replicas[i].Replica)
		}
		return
	}
	for _, st := range j.states {
		st.doubtful = true
	}
}

func (j *journal) doubtOne(dir string) {
	if st := j.states[dir]; st != nil {
		st.doubtful = true
	}
}

// writeDoubt writes that records were lost, and of which replicas they may have been. It is called when w has the
// states of its replicas.
func (j *journal) writeDoubt(w *stateWriter) error {
	if j.damaged == "" {
		return nil
	}
	r := record{Kind: recordDamaged, Copy: j.damaged}
	for dir, st := range w.states {
		if st.doubtful {
			r.Replicas = append(r.Replicas, replicaRecord{Replica: dir})
		}
	}
	slices.SortFunc(r.Replicas, func(a, b replicaRecord) int { return strings.Compare(a.Replica, b.Replica) })
	return appendRecord(w.log, &r)
}

// doubtful reports whether records were lost that may have told over which version the layer of a replica is. A replica
// that the journal does not know is doubtful, too: all its records may have been lost. copy is the damaged log's.
func (j *journal) doubtful(dir string) (copy string, is bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.states[dir]
	return j.damaged, j.damaged != "" && (st == nil || st.doubtful)
}

// forget drops what is known of a replica that has no layer.
func (j *journal) forget(dir string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.states, dir)
}

// acceptMark is the name of the file with which an administrator accepts a doubtful layer.
const acceptMark = "accept"

// settleDoubt returns an error if r has a layer and the journal has lost over which version it is. With the accept mark
// in the replica's directory the layer counts as one over the version that the journal has.
func (s *Set) settleDoubt(r *Replica) error {
	copy, is := s.journal.doubtful(string(r.dir))
	if !is {
		return nil
	}
	if !r.hasLayer() {
		s.journal.forget(string(r.dir))
		return nil
	}
	dir := filepath.Join(s.path, string(r.dir))
	mark := string(r.dir) + "/" + acceptMark
	marked, err := s.root.Exists(mark)
	if err != nil {
		return err
	}
	if !marked {
		return fmt.Errorf("%s was damaged (a copy is %s), so it is not known which version the node's files in %s "+
			"belong to: dim node accept %s serves the node with them; to serve it without them, move %[3]s away",
			s.journal.path, copy, dir, r.node)
	}
	return nil
}

// Doubt returns the copy of the damaged journal because of which a node's layer is in doubt, and is not served.
func (s *Set) Doubt(node, image string) (copy string, is bool) {
	home := layer.Home(node + "/" + image)
	if copy, is = s.journal.doubtful(string(home)); !is {
		return "", false
	}
	there, err := s.root.Exists(home.Upper(""))
	return copy, there || err != nil
}

// Accept makes a layer that is in doubt count as one over the version that the journal has. The next Attach serves it.
func (s *Set) Accept(node, image string) error {
	dir, err := s.root.OpenDir(node + "/" + image)
	if err != nil {
		return fmt.Errorf("accept the layer of %s/%s: %w", node, image, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, acceptMark, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = errors.Join(unix.Close(fd), layer.Dir(dir).Fsync())
	}
	if err != nil {
		return fmt.Errorf("accept the layer of %s/%s: %w", node, image, err)
	}
	return nil
}

// endDoubt records that the layer of r was accepted, and removes the mark.
func (s *Set) endDoubt(r *Replica) error {
	mark := string(r.dir) + "/" + acceptMark
	if marked, err := s.root.Exists(mark); err != nil || !marked {
		return err
	}
	if _, is := s.journal.doubtful(string(r.dir)); is {
		since := s.retained()
		if err := s.journal.renew(string(r.dir), s.journal.stamp(s.now()), since, s.retain.switches); err != nil {
			return err
		}
		s.log.Warn("layer accepted after damage to the journal", "replica", r.dir, "version", r.state.to.Ref().String())
	}
	if err := unix.Unlinkat(int(s.root), mark, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// LostDirs returns a text for each version in use of which a directory could not be read.
func (s *Set) LostDirs() (list []string) {
	for _, x := range s.indexes.loaded() {
		if err := x.Damage(); err != nil {
			list = append(list, err.Error())
		}
	}
	slices.Sort(list)
	return list
}

// Damage tells what was wrong with the journal when s was opened; "" if nothing was.
func (s *Set) Damage() string {
	copy := s.journal.foundDamaged
	if copy == "" {
		return ""
	}
	return fmt.Sprintf("%s was damaged when the server started; it was put right as far as possible, and a copy of "+
		"it as it was is %s", s.journal.path, copy)
}
