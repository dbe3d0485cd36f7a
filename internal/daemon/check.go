package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"dim/internal/api"
	"dim/internal/control"
	"dim/internal/pki"
)

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
