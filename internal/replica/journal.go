package replica

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dim/internal/durable"
	"dim/internal/image"
)

// journal is switches.log: which version each replica follows since when, and its earlier switches.
// docs/formats/layer.md has the form.
type journal struct {
	path string

	mu       sync.Mutex
	log      *durable.Log
	versions map[image.Digest]*image.Version // that are in the log
	seen     map[image.Digest]*image.Version // that are not in it yet
	states   map[string]*state               // by the replica's directory
	last     int64                           // the latest stamp
	limit    int64                           // the log is rewritten when it is larger
	damaged  string                          // the copy of a log in which records were lost; "": none were

	foundDamaged string // the copy of the log as it was when it was opened; "": it was not damaged
}

// state is what the journal knows of one replica.
type state struct {
	made      int64
	to        *image.Version
	files     map[string]string // the node files it shows: path to fingerprint
	steps     *step             // the last one
	pending   *step             // a switch that was begun and is not done
	unwritten bool              // not in the log yet
	doubtful  bool              // records that were lost may have been of it
}

// step is one switch. Replicas that were switched together share it, and all earlier steps that they have in
// common.
type step struct {
	before   *step
	at       int64
	from, to *image.Version
	files    map[string]string // after it; nil: as before it
	prior    map[string]string // before it, when files is set
	extra    []string          // of a pending one: see Move.Extra
	stay     *stayPlan         // of a pending one: see Move.Stay
}

// The kinds of records.
const (
	recordVersion = "version" // a version that later records name
	recordState   = "state"   // replicas as they are: the first of each, and those of a rewritten log
	recordIntent  = "intent"  // a switch that moves entries of layers begins
	recordDone    = "done"    // a switch is complete
	recordUndone  = "undone"  // it could not be completed: the replica stays with what it followed
	recordDamaged = "damaged" // records were lost, which may have been of these replicas
)

type record struct {
	Kind     string          `json:"kind"`
	Version  *image.Version  `json:"version,omitempty"`
	Root     []byte          `json:"root,omitempty"` // of Version, encoded by image.Entry.EncodeRoot
	At       int64           `json:"at,omitempty"`   // nanoseconds since 1970
	To       *image.Digest   `json:"to,omitempty"`
	Steps    []stepRecord    `json:"steps,omitempty"` // of a state, oldest first
	Replicas []replicaRecord `json:"who,omitempty"`
	Copy     string          `json:"copy,omitempty"` // of the damaged log
}

type replicaRecord struct {
	Replica string            `json:"replica"`
	Made    int64             `json:"made,omitempty"`
	Files   map[string]string `json:"files,omitempty"`
	Same    bool              `json:"same,omitempty"` // the node files are the same as before
	Extra   []string          `json:"also,omitempty"` // of an intent: see Move.Extra
	Stay    *stayPlan         `json:"stay,omitempty"` // of an intent: see Move.Stay
}

type stepRecord struct {
	At    int64             `json:"at"`
	From  image.Digest      `json:"from"`
	To    image.Digest      `json:"to"`
	Files map[string]string `json:"files,omitempty"`
}

const journalMin = 1 << 20

func openJournal(dir string) (*journal, error) {
	j := &journal{
		path: filepath.Join(dir, "switches.log"), states: make(map[string]*state),
		versions: make(map[image.Digest]*image.Version),
		seen:     make(map[image.Digest]*image.Version),
	}
	if err := durable.RemoveTemps(dir); err != nil {
		return nil, err
	}
	steps := make(map[stepKey]*step)
	log, err := durable.OpenLog(j.path, func(r durable.Record) error { return j.read(r, steps) })
	if err != nil {
		return nil, err
	}
	j.log, j.limit = log, max(journalMin, 4*log.Size())
	j.foundDamaged = log.DamagedCopy()
	if j.damaged == unnamed {
		j.damaged, j.limit = j.foundDamaged, 0 // so that rewrite removes the damage
	}
	return j, nil
}

// read applies what the log has at one place.
func (j *journal) read(from durable.Record, steps map[stepKey]*step) error {
	if from.Damaged {
		j.doubt(from.Data)
		return nil
	}
	var r record
	if err := json.Unmarshal(from.Data, &r); err != nil {
		return err
	}
	return j.replay(&r, steps)
}

// replay applies a record that was read. With steps, replicas with the same history share it.
func (j *journal) replay(r *record, steps map[stepKey]*step) error {
	j.last = max(j.last, r.At)
	switch r.Kind {
	case recordVersion:
		root, err := image.ParseRoot(r.Root)
		if err != nil || r.Version == nil {
			return fmt.Errorf("version record: %v", err)
		}
		r.Version.Root = root
		j.versions[r.Version.Digest] = r.Version
		return nil
	case recordDamaged:
		j.damaged = r.Copy
		for i := range r.Replicas {
			j.doubtOne(r.Replicas[i].Replica)
		}
		return nil
	case recordState, recordIntent, recordDone, recordUndone:
	default:
		return fmt.Errorf("unknown record %q: written by a newer version of dim?", r.Kind)
	}
	var to *image.Version
	if r.To != nil {
		if to = j.versions[*r.To]; to == nil && j.damaged != "" {
			for i := range r.Replicas {
				j.doubtOne(r.Replicas[i].Replica)
			}
			return nil
		}
		if to == nil {
			return fmt.Errorf("record names the unknown version %s", r.To.Short())
		}
	}
	for i := range r.Replicas {
		if err := j.replayOne(r, &r.Replicas[i], to, steps); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) replayOne(r *record, w *replicaRecord, to *image.Version, steps map[stepKey]*step) error {
	st := j.states[w.Replica]
	if r.Kind == recordState {
		st = &state{made: w.Made, to: to, files: w.Files}
		j.last = max(j.last, w.Made)
		for _, s := range r.Steps {
			from, to := j.versions[s.From], j.versions[s.To]
			j.last = max(j.last, s.At)
			if (from == nil || to == nil) && j.damaged != "" {
				st.steps, st.made = nil, max(st.made, s.At) // as if the retention had ended
				continue
			}
			if from == nil || to == nil {
				return fmt.Errorf("step names an unknown version")
			}
			st.steps = shared(steps, step{before: st.steps, at: s.At, from: from, to: to}, s.Files)
		}
		j.states[w.Replica] = st
		return nil
	}
	if st == nil && j.damaged != "" {
		return nil // its layer, if it has one, is in doubt
	}
	if st == nil {
		return fmt.Errorf("%s record of the unknown replica %s", r.Kind, w.Replica)
	}
	files := w.Files
	if w.Same {
		files = nil
	} else if files == nil {
		files = map[string]string{}
	}
	switch r.Kind {
	case recordIntent:
		st.pending = &step{before: st.steps, at: r.At, from: st.to, to: to, files: files, extra: w.Extra, stay: w.Stay}
	case recordUndone:
		st.pending = nil
	case recordDone:
		st.advance(shared(steps, step{before: st.steps, at: r.At, from: st.to, to: to, prior: st.files}, files))
		st.doubtful = false // whatever was lost before this, the replica follows to now
	}
	return nil
}

// shared returns the step like s that is already known, or s itself. Steps with node files of their own are not
// shared. A step that is a key of known has no files, so it can be compared.
func shared(known map[stepKey]*step, s step, files map[string]string) *step {
	if files != nil {
		s.files = files
		return &s
	}
	key := stepKey{before: s.before, at: s.at, from: s.from, to: s.to}
	if k := known[key]; k != nil {
		return k
	}
	s.prior = nil
	known[key] = &s
	return &s
}

func (st *state) advance(s *step) {
	st.steps, st.to, st.pending = s, s.to, nil
	if s.files != nil {
		st.files = s.files
	}
}

// advance records that the switch s of a replica is done. Set.Pinned may read the state at the same time.
func (j *journal) advance(st *state, s *step) {
	j.mu.Lock()
	defer j.mu.Unlock()
	st.advance(s)
}

// stepKey identifies a step without node files.
type stepKey struct {
	before   *step
	at       int64
	from, to *image.Version
}

// stamp returns a time later than all stamps before.
func (j *journal) stamp(now time.Time) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = max(j.last+1, now.UnixNano())
	return j.last
}

// state returns what is known of a replica. A new one follows v from now on, and is in the log only after a
// flush.
func (j *journal) state(dir string, v *image.Version, files map[string]string, now int64) (st *state, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if st = j.states[dir]; st != nil {
		return st, true
	}
	st = &state{made: now, to: v, files: files, unwritten: true}
	j.states[dir] = st
	return st, false
}

// flush writes the states that are not in the log, those of one version together.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.flushLocked()
}

func (j *journal) flushLocked() error {
	groups := make(map[*image.Version][]replicaRecord)
	for dir, st := range j.states {
		if st.unwritten {
			groups[st.to] = append(groups[st.to], replicaRecord{Replica: dir, Made: st.made, Files: st.files})
		}
	}
	for v, list := range groups {
		for _, part := range records(list) {
			if err := j.append(&record{Kind: recordState, To: &v.Digest, Replicas: part}, v); err != nil {
				return err
			}
			for _, w := range part {
				j.states[w.Replica].unwritten = false
			}
		}
	}
	return nil
}

// append writes r, which names v, after the record of v.
func (j *journal) append(r *record, v *image.Version) error {
	if err := j.name(j.log, j.versions, v); err != nil {
		return err
	}
	return appendRecord(j.log, r)
}

func (j *journal) name(log appender, named map[image.Digest]*image.Version, v *image.Version) error {
	if named[v.Digest] != nil {
		return nil
	}
	root, err := v.Root.EncodeRoot()
	if err != nil {
		return err
	}
	if err := appendRecord(log, &record{Kind: recordVersion, Version: v, Root: root}); err != nil {
		return err
	}
	named[v.Digest] = v
	return nil
}

func appendRecord(log appender, r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return log.Append(b)
}

// write adds the record of a switch of the replicas in list, all to version to.
func (j *journal) write(kind string, at int64, to *image.Version, list []replicaRecord) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.flushLocked(); err != nil {
		return err
	}
	return j.append(&record{Kind: kind, At: at, To: &to.Digest, Replicas: list}, to)
}

// renew records that all that the replica in dir shows has changed at a time, as if it had been made then.
func (j *journal) renew(dir string, at, since int64, most int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.flushLocked(); err != nil {
		return err
	}
	st := j.states[dir]
	steps, _ := recent(st.steps, since, most)
	list := []replicaRecord{{Replica: dir, Made: at, Files: st.files}}
	r := record{Kind: recordState, To: &st.to.Digest, Replicas: list}
	names := []*image.Version{st.to}
	for _, s := range steps {
		names = append(names, s.from, s.to)
		r.Steps = append(r.Steps, stepRecord{At: s.at, From: s.from.Digest, To: s.to.Digest, Files: s.files})
	}
	for _, v := range names {
		if err := j.name(j.log, j.versions, v); err != nil {
			return err
		}
	}
	if err := appendRecord(j.log, &r); err != nil {
		return err
	}
	st.made, st.doubtful = at, false
	return nil
}

// rewrite writes the log anew if it has grown large. It keeps steps that are younger than since, at most the
// newest most of each replica, and raises the time at which a replica was made if it drops steps of it.
func (j *journal) rewrite(since int64, most int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log.Size() < j.limit {
		return nil
	}
	var records recordBuffer // one write and one sync: there may be a record for each replica
	named := make(map[image.Digest]*image.Version)
	err := j.writeStates(&stateWriter{log: &records, named: named, states: j.states, since: since, most: most})
	if err != nil {
		return err
	}
	tmp := j.path + ".new"
	if err := durable.WriteFile(tmp, records, 0o600); err != nil {
		return err
	}
	log, err := durable.OpenLog(tmp, func(durable.Record) error { return nil })
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, j.path); err != nil {
		log.Close()
		return err
	}
	j.log.Close()
	j.log, j.versions, j.limit = log, named, max(journalMin, 4*log.Size())
	return durable.SyncDir(filepath.Dir(j.path))
}

// appender takes the records of a journal: a log on disk, or memory.
type appender interface{ Append(record []byte) error }

// stateWriter is where the states of replicas go, without what was before.
type stateWriter struct {
	log    appender
	named  map[image.Digest]*image.Version // that are in log
	states map[string]*state               // by the replica's directory
	since  int64                           // steps that are older are left out
	most   int                             // how many steps of each replica are kept
}

// writeStates writes one record for all replicas that follow one version and have the same history.
func (j *journal) writeStates(w *stateWriter) error {
	type kind struct {
		to    *image.Version
		steps *step
	}
	groups := make(map[kind][]string)
	for dir, st := range w.states {
		k := kind{st.to, st.steps}
		groups[k] = append(groups[k], dir)
	}
	for k, dirs := range groups {
		steps, floor := recent(k.steps, w.since, w.most)
		r := record{Kind: recordState, To: &k.to.Digest}
		names := []*image.Version{k.to}
		for _, s := range steps {
			names = append(names, s.from, s.to)
			r.Steps = append(r.Steps, stepRecord{At: s.at, From: s.from.Digest, To: s.to.Digest, Files: s.files})
		}
		var who []replicaRecord
		for _, dir := range dirs {
			st := w.states[dir]
			who = append(who, replicaRecord{Replica: dir, Made: max(st.made, floor), Files: st.files})
			if st.pending != nil {
				names = append(names, st.pending.to)
			}
		}
		for _, v := range names {
			if err := j.name(w.log, w.named, v); err != nil {
				return err
			}
		}
		for _, r.Replicas = range records(who) {
			if err := appendRecord(w.log, &r); err != nil {
				return err
			}
		}
		if err := writePending(w, dirs); err != nil {
			return err
		}
	}
	return j.writeDoubt(w)
}

func writePending(w *stateWriter, dirs []string) error {
	for _, dir := range dirs {
		p := w.states[dir].pending
		if p == nil {
			continue
		}
		list := []replicaRecord{{Replica: dir, Files: p.files, Same: p.files == nil, Extra: p.extra, Stay: p.stay}}
		r := record{Kind: recordIntent, At: p.at, To: &p.to.Digest, Replicas: list}
		if err := appendRecord(w.log, &r); err != nil {
			return err
		}
	}
	return nil
}

// recent returns the steps up to last that are younger than since, oldest first, at most the newest most of
// them. floor is the stamp of the youngest that is left out.
func recent(last *step, since int64, most int) (steps []*step, floor int64) {
	for s := last; s != nil; s = s.before {
		if s.at < since || len(steps) == most {
			floor = s.at
			break
		}
		steps = append(steps, s)
	}
	slices.Reverse(steps)
	return steps, floor
}

// version returns the one pointer that this process uses for v.
func (j *journal) version(v image.Version) *image.Version {
	j.mu.Lock()
	defer j.mu.Unlock()
	if known := j.versions[v.Digest]; known != nil {
		return known
	}
	if known := j.seen[v.Digest]; known != nil {
		return known
	}
	j.seen[v.Digest] = &v
	return &v
}
