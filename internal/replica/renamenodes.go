package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
)

// renamesFile has the ids of the last changes of names, and the one that is not complete: docs/formats/layer.md.
const renamesFile = "renames.json"

// renames is the form of renamesFile.
type renames struct {
	Format int      `json:"format"`
	Done   []string `json:"done"`            // ids of changes that are complete
	ID     string   `json:"id,omitempty"`    // of the one that is not
	Moves  []move   `json:"moves,omitempty"` // of that one
}

// move is one node of a change of names.
type move struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Aside string `json:"aside,omitempty"` // the new name of the files that a node with the name To had left; "": none
}

const (
	renamesFormat = 1
	// renamesDone is how many ids of complete changes are kept.
	renamesDone = 100
)

// RenameNodes renames the directories of nodes, and their states in the journal, to the new names of the nodes. former
// has their former names, by the new ones. id identifies this change among all: a change that is complete is not made
// again. Files that an earlier node with one of the new names has left get the name NAME.before-ID. It fails if a
// replica of the nodes is attached and the change is not complete.
//
// A change that was interrupted is completed by the next call or the next Open.
func (s *Set) RenameNodes(id string, former map[string]string) error {
	s.removing.Lock()
	defer s.removing.Unlock()
	s.switching.Lock()
	defer s.switching.Unlock()
	f, err := s.readRenames()
	if err == nil {
		err = s.completeRename(&f)
	}
	if err == nil && !slices.Contains(f.Done, id) {
		err = s.beginRename(&f, id, former)
	}
	if err != nil {
		return fmt.Errorf("rename nodes: %w", err)
	}
	return nil
}

// beginRename makes one change of names.
func (s *Set) beginRename(f *renames, id string, former map[string]string) error {
	busy := map[string]bool{}
	for _, r := range s.Replicas() {
		busy[r.node] = true
	}
	f.ID = id
	for _, to := range slices.Sorted(maps.Keys(former)) {
		m := move{From: former[to], To: to}
		if err := checkDirNames(m.From, m.To); err != nil {
			return err
		}
		if busy[m.From] || busy[m.To] {
			return fmt.Errorf("%s to %s: it is served", m.From, m.To)
		}
		left, err := s.root.Exists(m.To)
		if err != nil {
			return err
		}
		if left {
			m.Aside = m.To + ".before-" + id[:min(8, len(id))]
		}
		f.Moves = append(f.Moves, m)
	}
	if err := s.writeRenames(f); err != nil {
		return err
	}
	return s.completeRename(f)
}

// completeRename does what is left of the change of names in f.
func (s *Set) completeRename(f *renames) error {
	if f.ID == "" {
		return nil
	}
	var aside []move
	for _, m := range f.Moves {
		if m.Aside == "" {
			continue
		}
		done, err := s.root.Exists(m.Aside)
		if err != nil {
			return err
		}
		if !done {
			aside = append(aside, move{From: m.To, To: m.Aside})
		}
	}
	for _, part := range [][]move{aside, f.Moves} {
		if err := s.moveNodes(part); err != nil {
			return err
		}
	}
	f.Done, f.ID, f.Moves = append(f.Done, f.ID), "", nil
	f.Done = f.Done[max(0, len(f.Done)-renamesDone):]
	return s.writeRenames(f)
}

// moveNodes renames the directories of nodes, as far as they exist. The journal has the new names first: what it has of
// the former ones stays, until this is done, for the case that it is done again.
func (s *Set) moveNodes(list []move) error {
	if len(list) == 0 {
		return nil
	}
	if err := s.failAt("before the names in the journal"); err != nil {
		return err
	}
	if err := s.journal.copyNodes(list, s.retained(), s.retain.switches); err != nil {
		return err
	}
	for _, m := range list {
		if err := s.failAt("before a directory is renamed"); err != nil {
			return err
		}
		err := unix.Renameat2(int(s.root), m.From, int(s.root), m.To, unix.RENAME_NOREPLACE)
		if err != nil && err != unix.ENOENT { // it has no files, or was renamed before a crash
			return fmt.Errorf("%s to %s: %w", m.From, m.To, err)
		}
	}
	if err := s.root.Fsync(); err != nil {
		return err
	}
	s.journal.forgetNodes(list)
	return s.failAt("after directories are renamed")
}

// copyNodes lets the replicas of nodes have by their new names the states that the replicas of the former names have.
func (j *journal) copyNodes(list []move, since int64, most int) error {
	to := make(map[string]string, len(list))
	for _, m := range list {
		to[m.From] = m.To
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	states := map[string]*state{}
	for dir, st := range j.states {
		node, image, _ := strings.Cut(dir, "/")
		if name, ok := to[node]; ok {
			renamed := *st
			renamed.unwritten = false
			states[name+"/"+image] = &renamed
		}
	}
	if len(states) == 0 {
		return nil
	}
	w := stateWriter{log: j.log, named: j.versions, states: states, since: since, most: most}
	if err := j.writeStates(&w); err != nil {
		return err
	}
	for dir, st := range states {
		j.states[dir] = st
	}
	return nil
}

// forgetNodes drops what is known of replicas by the former names of their nodes.
func (j *journal) forgetNodes(list []move) {
	gone := make(map[string]bool, len(list))
	for _, m := range list {
		gone[m.From] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for dir := range j.states {
		if node, _, _ := strings.Cut(dir, "/"); gone[node] {
			delete(j.states, dir)
		}
	}
}

func (s *Set) readRenames() (f renames, err error) {
	b, err := os.ReadFile(filepath.Join(s.path, renamesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return renames{Format: renamesFormat}, nil
	}
	if err != nil {
		return f, err
	}
	if f, err = parseRenames(b); err != nil {
		return f, fmt.Errorf("read %s: %w", filepath.Join(s.path, renamesFile), err)
	}
	return f, nil
}

// parseRenames parses renamesFile.
func parseRenames(b []byte) (f renames, err error) {
	if err := json.Unmarshal(b, &f); err != nil {
		return f, err
	}
	if f.Format != renamesFormat {
		return f, fmt.Errorf("format %d: written by another version of dim", f.Format)
	}
	for _, m := range f.Moves {
		names := []string{m.From, m.To}
		if m.Aside != "" {
			names = append(names, m.Aside)
		}
		if err := checkDirNames(names...); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (s *Set) writeRenames(f *renames) error {
	if err := s.failAt("before the names are noted"); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.path, renamesFile), append(b, '\n'), 0o600)
}

// resumeRename completes a change of names that was interrupted.
func (s *Set) resumeRename() error {
	f, err := s.readRenames()
	if err != nil {
		return err
	}
	return s.completeRename(&f)
}
