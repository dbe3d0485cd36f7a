package daemon

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/control/wire"
	"dim/internal/fuse"
	"dim/internal/image"
	"dim/internal/replica"
)

// Mount implements control.Backend: the replica of a node, or a version read-only, as a local directory.
func (d *daemon) Mount(_ context.Context, m control.Mount, fd int) (<-chan struct{}, error) {
	fs, err := d.mountable(m.What)
	if err != nil {
		return nil, err
	}
	server, err := fuse.Serve(fd, fs, fuse.Options{})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.mountSeq++
	id := d.mountSeq
	done := make(chan struct{})
	d.mounts[id] = mounted{m, done, fs.Version()}
	d.mu.Unlock()
	go func() {
		server.Wait()
		d.mu.Lock()
		delete(d.mounts, id)
		d.mu.Unlock()
		close(done)
	}()
	return done, nil
}

// mounted is one mount; done is closed when it is no more.
type mounted struct {
	control.Mount
	done    chan struct{}
	version image.Version // at the time of the mount; a node's may move on
}

// unmountIn bounds how long the end of the daemon waits for mounts to end. The end of the process ends them in any case.
const unmountIn = 3 * time.Second

// endMounts waits until nothing is mounted any more: those who asked for mounts were told, by the end of their connection, to unmount.
func (d *daemon) endMounts() {
	d.mu.Lock()
	mounts := slices.Collect(maps.Values(d.mounts))
	d.mu.Unlock()
	late := time.After(unmountIn)
	for _, m := range mounts {
		select {
		case <-m.done:
		case <-late:
			d.log.Warn("a mount is still in use", "what", m.What, "dir", m.Dir)
			return
		}
	}
}

// mountable finds the tree that what names: NAME@VERSION, or a node.
func (d *daemon) mountable(what string) (*replica.Replica, error) {
	if strings.Contains(what, "@") {
		v, err := d.declared().resolve(what)
		if err != nil {
			return nil, err
		}
		return d.set.ReadOnly(v)
	}
	if x := d.exports.node(cluster.NodeName(what)); x != nil {
		return x.fs, nil
	}
	if _, ok := d.cluster().Node(cluster.NodeName(what)); ok {
		return nil, control.Errorf(control.NotFound, "mount %s: its image has no version yet", what)
	}
	return nil, control.Errorf(control.NotFound, "mount %s: there is no such node", what).WithHint("a version is written NAME@NUMBER")
}

// Mounts implements control.Backend.
func (d *daemon) Mounts(context.Context) ([]control.Mount, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]control.Mount, 0, len(d.mounts))
	for _, m := range d.mounts {
		list = append(list, m.Mount)
	}
	slices.SortFunc(list, func(a, b control.Mount) int { return strings.Compare(a.Dir, b.Dir) })
	return list, nil
}

// listenControl opens the socket of the control API, in place of one that a killed daemon left. The data directory's lock
// has made sure that none is running.
func (d *daemon) listenControl() (net.Listener, func(), error) {
	path, release, err := wire.SocketPath(d.config.Data)
	if err != nil {
		return nil, nil, err
	}
	_ = os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err != nil {
		release()
		return nil, nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		release()
		return nil, nil, err
	}
	return ln, release, nil
}
