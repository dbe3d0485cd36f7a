package pki

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock keeps daemons off a data directory, and others that need it to rest. It ends with the process, or by
// sysfile.Unlock.
func Lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name())
		f.Close()
		return nil, fmt.Errorf("lock data directory %s: a daemon runs on it already, %s", dir,
			strings.TrimSpace(string(holder)))
	}
	_ = f.Truncate(0)
	_, err = fmt.Fprintf(f, "pid %d\n", os.Getpid())
	return f, err
}
