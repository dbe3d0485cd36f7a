package replica

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica/fds"
)

// Detach ends the service of the replicas of all nodes for which has returns false. Calls that still use one of them
// fail with ESTALE. Their layers stay, and Attach serves them again.
func (s *Set) Detach(has func(node string) bool) {
	s.switching.Lock()
	defer s.switching.Unlock()
	for _, r := range s.Replicas() {
		if has(r.node) {
			continue
		}
		r.mu.Lock()
		r.forgetLayer()
		r.detached = true
		r.mu.Unlock()
		s.files.DropAll(func(k fds.Key) bool { return k.Kind != keyBlob && Tree(k.ID[:len(r.tree)]) == r.tree })
		s.mu.Lock()
		delete(s.replicas, r.tree)
		s.mu.Unlock()
	}
}

// removedPrefix begins the names of directories of replicas that are being removed.
const removedPrefix = "#gone-"

// RemoveLayer removes all that a node has over an image, for good: the layer, what was set aside, and the snapshots. It
// takes long for a large layer. The replica must not be attached.
func (s *Set) RemoveLayer(node, image string) error {
	if err := checkDirNames(node, image); err != nil {
		return err
	}
	s.removing.Lock()
	defer s.removing.Unlock()
	name, err := s.takeAway(layer.Home(node + "/" + image))
	if err == nil {
		err = s.root.RemoveAll(name)
	}
	if err != nil {
		return fmt.Errorf("remove the layer of %s/%s: %w", node, image, err)
	}
	return nil
}

// takeAway renames the directory of a replica, in one step, to one that is removed, and forgets what the journal has of
// the replica.
func (s *Set) takeAway(home layer.Home) (name string, err error) {
	s.switching.Lock()
	defer s.switching.Unlock()
	node, image, _ := strings.Cut(string(home), "/")
	if _, attached := s.Find(ReplicaTree(node, image)); attached {
		return "", errors.New("it is served")
	}
	name = fmt.Sprintf("%s%016x", removedPrefix, uint64(layer.NewID()))
	if err := unix.Renameat(int(s.root), string(home), int(s.root), name); err != nil {
		return "", err
	}
	if err := unix.Unlinkat(int(s.root), node, unix.AT_REMOVEDIR); err != nil && err != unix.ENOTEMPTY {
		return "", err
	}
	s.journal.forget(string(home))
	return name, s.root.Fsync()
}

// SweepRemoved removes what an interrupted RemoveLayer has left.
func (s *Set) SweepRemoved() error {
	s.removing.Lock()
	defer s.removing.Unlock()
	names, err := s.root.List(".")
	for _, name := range names {
		if err == nil && strings.HasPrefix(name, removedPrefix) {
			err = s.root.RemoveAll(name)
		}
	}
	return err
}
