package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// AwaitArgs name a file and the content to wait for.
type AwaitArgs struct {
	Path    string
	Data    []byte
	Timeout time.Duration
}

// Await returns when a file has the content. It reads the file every millisecond, as a program would.
func (a *Agent) Await(w AwaitArgs, _ *None) error {
	for end := time.Now().Add(w.Timeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if data, err := os.ReadFile(w.Path); err == nil && bytes.Equal(data, w.Data) {
			return nil
		}
	}
	return fmt.Errorf("%s has other bytes for %v", w.Path, w.Timeout)
}

// VisitArgs are files to stat, how often, and for how long.
type VisitArgs struct {
	Paths []string
	Each  time.Duration // between two
	Lasts time.Duration
	Read  bool // their content, too
	List  bool // list their directories, too
}

// Visit stats the files one after the other, repeatedly, and returns the number of visits.
func (a *Agent) Visit(v VisitArgs, n *int) error {
	for begin := time.Now(); time.Since(begin) < v.Lasts && len(v.Paths) > 0; {
		path := v.Paths[*n%len(v.Paths)]
		if _, err := os.Lstat(path); err != nil {
			return err
		}
		if v.Read {
			if _, err := os.ReadFile(path); err != nil {
				return err
			}
		}
		if v.List && *n%10 == 0 {
			if _, err := os.ReadDir(filepath.Dir(path)); err != nil {
				return err
			}
		}
		*n++
		if ahead := time.Duration(*n)*v.Each - time.Since(begin); ahead > 0 {
			time.Sleep(ahead)
		}
	}
	return nil
}
