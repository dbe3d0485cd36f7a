package follow

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/changes"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/quantity"
)

// given is the description of ClusterFile as it was when Load read it.
type given struct {
	mu       sync.Mutex   // taken last
	put      bool         // it was put into the shared state; guarded by Follower.restoring
	wins     bool         // it holds, unless the shared state has a later one
	modified time.Time    // when one of its files was changed last
	holds    image.Digest // the description that holds instead
	problem  string       // why another one holds; "": none does
	hint     string
}

// loadGiven chooses between the description of ClusterFile and the kept one: the later one holds. One that cannot be
// used is no reason not to serve what held before.
func (f *Follower) loadGiven(now *Declared, kept *coord.Description) error {
	c, err := cluster.Load(f.ClusterFile)
	if err == nil {
		err = f.checkServer(c)
	}
	var before *cluster.Cluster
	if kept != nil {
		var perr error
		if before, perr = f.parse(kept); perr != nil && err == nil {
			f.Log.Error("kept description cannot be used", "error", perr)
		}
	}
	if err != nil && before == nil {
		return err
	}
	if before != nil {
		now.Cluster, now.Digest, f.given.holds = before, kept.Digest, kept.Digest
	}
	if err != nil {
		f.given.problem = fmt.Sprintf("%s is not used: %v", f.ClusterFile, err)
		f.given.hint = "the server follows the description that was applied last; correct the file, then " +
			"dim cluster apply " + f.ClusterFile
		f.Log.Error("the description of the command line is not used", "file", f.ClusterFile, "error", err)
		return nil
	}
	f.given.modified = modified(f.ClusterFile, c)
	d := withLearned(Describe(c), kept)
	if with, lerr := Parse(&d); lerr == nil {
		c = with
	}
	if before != nil && Describe(c).Digest != kept.Digest && !f.given.modified.After(kept.Applied) {
		f.keepLater(kept)
		return nil
	}
	if renames := renames(before, c); len(renames) > 0 {
		f.keepNames(kept, renames)
		return nil
	}
	f.given.wins, f.given.holds = true, Describe(c).Digest
	now.Cluster, now.Digest = c, f.given.holds
	if before == nil {
		return nil
	}
	claim, err := claims(before)(now.State)
	now.State = claim.Onto(now.State)
	return err
}

// renames returns the nodes that c has under another name than before; before may be nil.
func renames(before, c *cluster.Cluster) []control.Rename {
	if before == nil {
		return nil
	}
	return changes.Renames(before, c)
}

// keepLater notes that d holds, because it was applied after the file was changed.
func (f *Follower) keepLater(d *coord.Description) {
	f.keep(d, "another description was applied later, at "+d.Applied.Local().Format(time.DateTime))
}

// keepNames notes that d holds, because the file gives nodes other names. Only an apply moves what is declared for
// them, and their layers, to the new names.
func (f *Follower) keepNames(d *coord.Description, renames []control.Rename) {
	text := fmt.Sprintf("it renames %s to %s", renames[0].From, renames[0].To)
	if more := len(renames) - 1; more > 0 {
		text += " and " + quantity.Plural(more, "other node")
	}
	f.keep(d, text+", whose files get the new names only with dim cluster apply")
}

// keep notes that d holds instead of the file, and why.
func (f *Follower) keep(d *coord.Description, why string) {
	f.given.mu.Lock()
	defer f.given.mu.Unlock()
	f.given.wins, f.given.holds = false, d.Digest
	f.given.problem = fmt.Sprintf("%s is not used: %s", f.ClusterFile, why)
	f.given.hint = "dim cluster apply " + f.ClusterFile + " applies it; with --dry-run it lists the differences"
	f.Log.Warn("the description of the command line is not used", "file", f.ClusterFile, "reason", why)
}

// keepInstead reports whether d, which the shared state has, holds instead of the file, and notes why.
func (f *Follower) keepInstead(d *coord.Description) bool {
	now := f.Now()
	if d == nil || d.Digest == now.Digest {
		return false
	}
	if !f.given.modified.After(d.Applied) {
		f.keepLater(d)
		return true
	}
	before, err := f.parse(d)
	if err != nil {
		return false // a description that cannot be used is replaced
	}
	list := renames(before, now.Cluster)
	if len(list) > 0 {
		f.keepNames(d, list)
	}
	return len(list) > 0
}

// modified returns when one of the files of a description was changed last.
func modified(file string, c *cluster.Cluster) (last time.Time) {
	for i, s := range c.Sources() {
		path := file
		if i > 0 {
			path = filepath.Join(filepath.Dir(file), filepath.FromSlash(s.Name))
		}
		if st, err := os.Stat(path); err == nil && st.ModTime().After(last) {
			last = st.ModTime()
		}
	}
	return last
}

// givenProblems is a problems.Source: the description of ClusterFile does not hold. It ends when another is applied.
func (f *Follower) givenProblems(context.Context) []problems.Problem {
	f.given.mu.Lock()
	defer f.given.mu.Unlock()
	if f.given.problem == "" || f.Now().Digest != f.given.holds {
		return nil
	}
	return []problems.Problem{{
		About: problems.Of(problems.KindDescription), Text: f.given.problem, Hint: f.given.hint,
	}}
}

// setOrigin says in d that it comes from ClusterFile.
func (f *Follower) setOrigin(d *coord.Description) {
	d.By, d.From = "dim serve --cluster", control.HostPath(f.ClusterFile)
}
