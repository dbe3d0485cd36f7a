package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"dim/internal/api"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/membership"
	"dim/internal/peer"
	"dim/internal/pki"
)

// Join makes a machine a server of a cluster, and keeps a daemon from its data directory meanwhile. It returns who the
// machine is then, and a warning if there is one.
func Join(ctx context.Context, j membership.Join) (who peer.Identity, warning string, err error) {
	if err := os.MkdirAll(j.Data, 0o700); err != nil {
		return who, "", err
	}
	lock, err := pki.Lock(j.Data)
	if err != nil {
		return who, "", err
	}
	defer lock.Close()
	j.StateFile = layout(j.Data).state()
	return j.Run(ctx)
}

// Recover makes a head on whose data directory no daemon runs go on without the other heads, if apply returns true for
// the plan.
func Recover(data string, apply func(control.Recovery) bool) (control.Recovery, error) {
	var none control.Recovery
	if err := pki.Check(data); err != nil {
		return none, err
	}
	lock, err := pki.Lock(data)
	if err != nil {
		return none, err
	}
	defer lock.Close()
	own, err := pki.Open(data)
	if err != nil {
		return none, err
	}
	r, err := follow.PlanRecovery(own.Identity().Name, layout(data).state(), layout(data).coord())
	if err != nil || !apply(r.Plan) {
		if r == nil {
			return none, err
		}
		return r.Plan, err
	}
	err = r.Apply(own.Authority())
	return r.Plan, err
}

// CheckReplicas checks the replicas in a data directory on which no daemon runs, and keeps one from starting meanwhile.
// set is a node set of names alone, or empty for all.
func CheckReplicas(data, set string) ([]control.CheckResult, error) {
	if _, err := os.Stat(filepath.Join(data, "lock")); errors.Is(err, fs.ErrNotExist) {
		return nil, control.Errorf(control.Unavailable, "no daemon has run on %s", data)
	}
	lock, err := pki.Lock(data)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	return api.CheckReplicas(layout(data).replicas(), set)
}
