package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/coord"
)

// ErrRestart is what Run returns when only a new process can go on: the etcd in this one had ended, and could be started again
// now. Until then the nodes were served.
var ErrRestart = errors.New("a restart brings the cluster state back")

// Times of looking for the shared state.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	lookEvery  = time.Second // whether what has ended can be started again
	// endedFor is after what time an etcd that ended for another reason than a full disk is started again.
	endedFor = time.Minute
	// needRoom is what an embedded etcd wants to have free, in bytes: it sets aside 64 MB at a time.
	needRoom = 160 << 20
)

// follow finds the shared state and adopts what it says, until ctx ends. It returns an error only to be restarted.
func (d *daemon) follow(ctx context.Context) error {
	pause := firstPause
	for {
		err := d.followOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		had := dirID(d.layout.coord()) // before anybody can know that there is something to mend
		d.noteCoord(err)
		d.log.Error("shared state not available; serving what was declared last", "error", err)
		if errors.Is(err, coord.ErrEnded) {
			if err := d.outlive(ctx, err, had); err != nil {
				return err
			}
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

// followOnce returns when the shared state cannot be found, or has ended.
func (d *daemon) followOnce(ctx context.Context) error {
	c, err := d.openCoord(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		watched <- c.Watch(ctx, coord.State{}, func(s coord.State) error { return d.adopt(ctx, s) })
	}()
	select {
	case err = <-watched:
		return err
	case <-c.Ended():
		cancel()
		<-watched
		if err = c.Check(context.WithoutCancel(ctx)); err == nil { // it tells why
			err = coord.ErrEnded
		}
		return err
	}
}

// outlive waits until an embedded etcd that ended in this process can be started again. When its directory was replaced, it
// can be here, and outlive returns nil; otherwise a new process must, and the error is ErrRestart. What never started
// because of damage would not start in a new process either. had is what dirID said of the directory when etcd had ended.
func (d *daemon) outlive(ctx context.Context, cause error, had uint64) error {
	began, short := time.Now(), d.room() < needRoom
	running := d.shared() != nil
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
		switch {
		case dirID(d.layout.coord()) != had:
			d.mu.Lock()
			c := d.coord
			d.coord = nil
			d.mu.Unlock()
			if c != nil {
				_ = c.Close() // it has said already what was wrong
			}
			return nil
		case short && d.room() >= needRoom, running && !short && time.Since(began) > endedFor:
			return d.errorf("%w: %v", ErrRestart, cause)
		}
	}
}

// dirID tells directories apart; it is 0 for one that is not there.
func dirID(dir string) uint64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// room returns how many bytes the data directory's disk has free.
func (d *daemon) room() uint64 {
	var st unix.Statfs_t
	if unix.Statfs(d.config.Data, &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

// openCoord opens the shared state, unless it is open, and tells it what this server knows and it does not.
func (d *daemon) openCoord(ctx context.Context) (*coord.Coord, error) {
	c := d.shared()
	if c == nil {
		var err error
		o := coord.Options{Endpoints: d.config.Endpoints, Log: d.log}
		if len(o.Endpoints) == 0 {
			o.Dir = d.layout.coord()
		}
		if c, err = coord.Open(ctx, o); err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.coord = c // from now on close closes it
		d.mu.Unlock()
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	d.rewind(s)
	if err := d.tell(ctx, c); err != nil {
		return nil, err
	}
	if err := d.refresh(ctx, c); err != nil {
		return nil, err
	}
	d.noteCoord(nil)
	return c, nil
}

// tell adds to the shared state what this server knows and it does not: the description given on the command line, and versions in the store,
// if a crash came between the two. A shared state that is empty was lost and made anew: then all that was kept of it is put back.
func (d *daemon) tell(ctx context.Context, c *coord.Coord) error {
	d.telling.Lock()
	defer d.telling.Unlock()
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	now := d.declared()
	lost := empty(s)
	if given := d.config.ClusterFile != "" && !d.told; (given || lost) && (s.Description == nil || s.Description.Digest != now.digest) {
		revision := coord.Any
		if lost {
			revision = 0
		}
		if _, err := c.PutDescription(ctx, *now.followed(), revision); err != nil {
			return err
		}
	}
	d.told = true
	lost = lost && now.state.Revision > 0
	if lost {
		d.log.Warn("the shared state was empty; what was kept of it is put back", "images", len(now.state.Images), "desired", len(now.state.Desired))
		// First, so that no node follows the versions one after the other as they come back.
		if err := c.Decide(ctx, func(coord.State) (coord.Change, error) { return now.state.Declarations(), nil }); err != nil {
			return err
		}
	}
	if err := d.putPending(ctx, c, s, now.state); err != nil {
		return err
	}
	if lost {
		return errors.Join(putTags(ctx, c, now.state), putWatches(ctx, c, now.state))
	}
	return nil
}

// rewind lets s be adopted although it is older than what was kept: somebody has put a copy of the shared state back. While the
// state is followed this cannot be told from an answer that is late, so it is asked only when the state was just found.
func (d *daemon) rewind(s coord.State) {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	now := *d.declared()
	if s.Store != now.state.Store || s.Revision >= now.state.Revision {
		return
	}
	d.log.Warn("the shared state is older than what was kept of it", "revision", s.Revision, "kept", now.state.Revision)
	now.state.Revision = 0
	d.current.Store(&now)
}

// tellAgain tells the shared state what it may lack.
func (d *daemon) tellAgain(ctx context.Context) {
	shared, err := d.reachable(ctx)
	if err != nil {
		return
	}
	d.untold.Store(false)
	if err := d.tell(ctx, shared); err != nil {
		d.untold.Store(true)
		return
	}
}

// putTags puts the tags that were kept.
func putTags(ctx context.Context, c *coord.Coord, kept coord.State) error {
	for name, im := range kept.Images {
		for tag, number := range im.Tags {
			if err := c.PutTag(ctx, name, tag, number); err != nil && !errors.Is(err, coord.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

func (d *daemon) shared() *coord.Coord {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.coord
}

// noteCoord notes how the shared state is.
func (d *daemon) noteCoord(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if (err == nil) != (d.coordErr == nil) {
		d.coordSince = time.Now()
	}
	d.coordErr = err
	select {
	case <-d.tried:
	default:
		close(d.tried)
	}
}

// change returns the shared state for a change, or an error that a person can do something about. Right after the start
// it waits until the state was looked for.
func (d *daemon) change(ctx context.Context) (*coord.Coord, error) {
	select {
	case <-d.tried:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	shared, err := d.reachable(ctx)
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "%v", err).WithHint(d.coordHint(err))
	}
	return shared, nil
}

// reachable returns the shared state if it can be changed now.
func (d *daemon) reachable(ctx context.Context) (*coord.Coord, error) {
	d.mu.Lock()
	shared, err := d.coord, d.coordErr
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return shared, shared.Check(ctx)
}

// coordHint tells a person what an error of the shared state means.
func (d *daemon) coordHint(err error) string {
	const served = "nodes are served what was declared last; changes wait until the shared state is back"
	switch {
	case len(d.config.Endpoints) > 0 || errors.Is(err, coord.ErrNewerFormat):
		return served
	case d.room() < needRoom:
		return served + fmt.Sprintf(": it needs %d MB free on the disk of %s, and comes back by itself", needRoom>>20, d.config.Data)
	case errors.Is(err, coord.ErrEnded), errors.Is(err, fs.ErrPermission), errors.Is(err, unix.ENOTDIR):
		dir := d.layout.coord()
		return served + fmt.Sprintf("; if it is damaged: mv %s %s.damaged, and it is made anew from what this server knows", dir, dir)
	}
	return served
}

// hasStarted waits a moment for the first look at the shared state, so that a status right after the start does not call that a problem.
func (d *daemon) hasStarted(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	select {
	case <-d.tried:
	case <-ctx.Done():
	}
}
