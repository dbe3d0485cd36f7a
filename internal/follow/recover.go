package follow

import (
	"fmt"
	"maps"
	"os"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/pki"
)

// Recovery makes this head go on without the other heads, which are lost for ever.
type Recovery struct {
	Plan control.Recovery

	state               coord.State
	stateFile, coordDir string
}

// PlanRecovery returns what Apply would do to a data directory on which no daemon runs. The error is a control.Error.
func PlanRecovery(server cluster.ServerName, stateFile, coordDir string) (*Recovery, error) {
	kept, err := coord.LoadState(stateFile)
	if err != nil {
		return nil, err
	}
	f := New(Options{Server: server, StateFile: stateFile, CoordDir: coordDir})
	if kept.Description == nil {
		return nil, control.Errorf(control.Unavailable, "this server has kept no declared state").
			WithHint("restore a backup of a head: dim restore")
	}
	c, err := f.parse(kept.Description)
	if err != nil {
		return nil, err
	}
	if me, _ := c.Server(server); !me.Has(cluster.RoleHead) {
		return nil, control.Errorf(control.Invalid, "%s is no head", server).WithHint("run it on a head that is left")
	}
	others := (&Declared{State: kept, Cluster: c}).OtherHeads(server)
	if len(others) == 0 && !member.Exists(coordDir) {
		return nil, control.Errorf(control.Conflict, "%s knows of no other head: there is nothing to recover", server).
			WithHint("dim serve")
	}
	r := &Recovery{state: kept, stateFile: stateFile, coordDir: coordDir}
	r.Plan = control.Recovery{Server: string(server), Revision: kept.Revision, Heads: []string{}}
	if info, err := os.Stat(stateFile); err == nil {
		r.Plan.Kept = info.ModTime().UTC().Truncate(time.Second)
	}
	for _, name := range others {
		r.Plan.Heads = append(r.Plan.Heads, string(name))
	}
	return r, nil
}

// Apply ends the identities of the other heads, and sets the directory of the embedded etcd aside. The next start
// makes a new one from what this head has kept. After a crash it can be called again. The authority proves to the other
// heads what has happened to them; nil if this head has none.
func (r *Recovery) Apply(a *pki.Authority) error {
	s := r.state
	s.Superseded = coord.Revocation{}
	s.Servers, s.Revoked = maps.Clone(s.Servers), maps.Clone(s.Revoked)
	now := time.Now().UTC().Truncate(time.Second)
	for _, name := range r.Plan.Heads {
		id := s.Servers[name].ID
		ended := coord.Revocation{Server: name, Time: now, GoesOn: r.Plan.Server}
		if a != nil {
			var err error
			if ended.Proof, err = a.ProveEnd(id, cluster.ServerName(r.Plan.Server), now); err != nil {
				return fmt.Errorf("recover: %w", err)
			}
		}
		s.Revoked[id] = ended
		delete(s.Servers, name)
	}
	if err := coord.SaveState(r.stateFile, s); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := setAside(r.coordDir, ".lost"); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	r.Plan.Done = true
	return nil
}

// setAside renames a directory by an end of its name, in place of one that has the end. There may be no directory.
func setAside(dir, end string) error {
	if err := os.RemoveAll(dir + end); err != nil {
		return err
	}
	if err := os.Rename(dir, dir+end); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
