package api

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fuse"
	"dim/internal/image"
	"dim/internal/replica"
)

// mounts are the local mounts of versions and replicas.
type mounts struct {
	mu   sync.Mutex
	list map[int]mounted
	last int
}

// mounted is one mount; done is closed when it has ended.
type mounted struct {
	control.Mount
	done    chan struct{}
	version image.Version // at the time of the mount; a node's may move on
}

// Mount implements control.Backend: the replica of a node, or a version read-only, as a local directory.
func (api *API) Mount(_ context.Context, m control.Mount, fd int) (<-chan struct{}, error) {
	fs, err := api.mountable(m.What)
	if err != nil {
		return nil, err
	}
	server, err := fuse.Serve(fd, fs, fuse.Options{})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	remove := api.mounts.add(mounted{m, done, fs.Version()})
	go func() {
		server.Wait()
		remove()
		close(done)
	}()
	return done, nil
}

func (m *mounts) add(x mounted) (remove func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	id := m.last
	m.list[id] = x
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.list, id)
	}
}

func (m *mounts) all() []mounted {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.list))
}

// unmountTimeout bounds how long the end of the daemon waits for mounts to end. The end of the process ends them in any
// case.
const unmountTimeout = 3 * time.Second

// EndMounts waits until nothing is mounted any more, but not long. The clients that mounted unmount when their
// connection ends.
func (api *API) EndMounts() {
	late := time.After(unmountTimeout)
	for _, m := range api.mounts.all() {
		select {
		case <-m.done:
		case <-late:
			api.Log.Warn("a mount is still in use", "path", m.What, "dir", m.Dir)
			return
		}
	}
}

// MountedVersions returns the versions that are mounted, with words that tell where.
func (api *API) MountedVersions() map[image.Ref]string {
	list := map[image.Ref]string{}
	for _, m := range api.mounts.all() {
		list[m.version.Ref()] = "it is mounted at " + m.Dir
	}
	return list
}

// mountable returns the tree that a text names: NAME@VERSION, or a node.
func (api *API) mountable(what string) (*replica.Replica, error) {
	if strings.Contains(what, "@") {
		v, err := api.Follow.Now().Resolve(what)
		if err != nil {
			return nil, err
		}
		return api.Set.ReadOnly(v)
	}
	if served, ok := api.Serving.Node(cluster.NodeName(what)); ok {
		return served.Replica, nil
	}
	if _, ok := api.Follow.Cluster().Node(cluster.NodeName(what)); ok {
		return nil, control.Errorf(control.NotFound, "mount %s: its image has no version yet", what)
	}
	return nil, control.Errorf(control.NotFound, "mount %s: there is no such node", what).
		WithHint("a version is written NAME@NUMBER")
}

// Mounts implements control.Backend.
func (api *API) Mounts(context.Context) ([]control.Mount, error) {
	list := []control.Mount{}
	for _, m := range api.mounts.all() {
		list = append(list, m.Mount)
	}
	slices.SortFunc(list, func(a, b control.Mount) int { return strings.Compare(a.Dir, b.Dir) })
	return list, nil
}
