package follow

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/problems"
)

// given is the description of ClusterFile as it was when Load read it.
type given struct {
	mu       sync.Mutex   // taken last
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
	if before != nil && Describe(c).Digest != kept.Digest && !f.given.modified.After(kept.Applied) {
		f.keepLater(kept)
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

// keepLater notes that d holds, because it was applied after the file was changed.
func (f *Follower) keepLater(d *coord.Description) {
	f.given.mu.Lock()
	defer f.given.mu.Unlock()
	f.given.wins, f.given.holds = false, d.Digest
	f.given.problem = fmt.Sprintf("%s is not used: another description was applied later, at %s", f.ClusterFile,
		d.Applied.Local().Format(time.DateTime))
	f.given.hint = "dim cluster apply " + f.ClusterFile + " applies it; with --dry-run it lists the differences"
	f.Log.Warn("the description that was applied later holds", "file", f.ClusterFile)
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
	d.By = "dim serve --cluster"
	if path, err := filepath.Abs(f.ClusterFile); err == nil {
		host, _ := os.Hostname()
		d.From = host + ":" + path
	}
}
