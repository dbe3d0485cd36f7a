package follow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// ErrRestart is what Run returns when only a new process can go on: the etcd in this one has ended, and may be started
// again. Until then the nodes were served.
var ErrRestart = errors.New("a restart brings the cluster state back")

const (
	// firstPause and lastPause bound the pause between tries to find the shared state.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// restartCheck is the interval between checks whether an etcd that ended can be started again.
	restartCheck = time.Second
	// restartAfter is how long after its end an etcd is started again, if its end had another reason than a full disk.
	restartAfter = time.Minute
	// peersPause is the time between the declaration of another head and the restart of the embedded etcd.
	peersPause = time.Second
	// reopenedWithin bounds the wait of changes for that restart.
	reopenedWithin = 10 * time.Second
	// spaceNeeded is what an embedded etcd needs free on its disk, in bytes. It allocates 64 MB at a time.
	spaceNeeded = 160 << 20
	// searchedWithin bounds Health's wait for the first search.
	searchedWithin = 2 * time.Second
)

// follow finds the shared state and adopts what it says, until ctx ends. It returns an error only to be restarted.
func (f *Follower) follow(ctx context.Context) error {
	pause := firstPause
	for {
		err := f.followOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errNewPeers) {
			f.Log.Info("the embedded etcd is started again: other heads may join from now on")
			f.mu.Lock()
			f.reopens = make(chan struct{})
			f.mu.Unlock()
			f.drop()
			continue
		}
		// Before anybody sees the error, and replaces the directory or makes room.
		e := ending{at: time.Now(), dir: inode(f.CoordDir), full: f.space() < spaceNeeded, ran: f.shared() != nil}
		f.setHealth(err)
		f.Log.Error("shared state not available; serving what was declared last", "error", err)
		if errors.Is(err, member.ErrRemoved) {
			f.leave(err)
			pause = firstPause
		}
		if errors.Is(err, member.ErrEnded) {
			if err := f.awaitRestart(ctx, err, &e); err != nil {
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
func (f *Follower) followOnce(ctx context.Context) error {
	c, err := f.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept := make(chan error, 1)
	go func() { kept <- c.Maintain(ctx) }()
	defer func() {
		cancel()
		<-kept
	}()
	watched := make(chan error, 1)
	alone := make(chan struct{}) // closed when that ends
	go func() {
		once := sync.OnceFunc(func() { close(alone) })
		watched <- c.Watch(ctx, coord.State{}, func(s coord.State) error {
			err := f.adopt(ctx, s)
			if err == nil && f.lacksPeers() {
				once()
			}
			return err
		})
	}()
	select {
	case err = <-watched:
		return err
	case <-newPeers(ctx, alone):
		cancel()
		<-watched
		return errNewPeers
	case <-c.Ended():
		cancel()
		<-watched
		if err = c.Check(context.WithoutCancel(ctx)); err == nil { // it tells why
			err = member.ErrEnded
		}
		return err
	}
}

// open opens the shared state, unless it is open, and restores what it lacks.
func (f *Follower) open(ctx context.Context) (*coord.Coord, error) {
	c := f.shared()
	if c == nil {
		var err error
		o := coord.Options{Remote: f.Etcd, Log: f.Log}
		if len(o.Remote.Endpoints) == 0 {
			if err := f.embedded(&o); err != nil {
				return nil, err
			}
		}
		if c, err = coord.Open(ctx, o); err != nil {
			return nil, err
		}
		f.mu.Lock()
		f.coord, f.peers = c, o.Peers != nil // from now on Close closes it
		f.mu.Unlock()
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	f.acceptOlder(s)
	if err := f.Restore(ctx, c); err != nil {
		return nil, err
	}
	if err := f.Refresh(ctx, c); err != nil {
		return nil, err
	}
	f.setHealth(nil)
	return c, nil
}

// awaitRestart waits until an embedded etcd that ended in this process can be started again. When this process can
// start it, awaitRestart closes what is left of it and returns nil; when a new process must, the error is ErrRestart.
func (f *Follower) awaitRestart(ctx context.Context, cause error, e *ending) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartCheck):
		}
		switch e.remedy(time.Now(), inode(f.CoordDir), f.space()) {
		case reopen:
			f.reopen(cause)
			return nil
		case restart:
			return f.errorf("%w: %v", ErrRestart, cause)
		}
	}
}

// reopen closes the shared state, so that it is opened again. Calls return the error until then.
func (f *Follower) reopen(why error) {
	f.setHealth(why)
	f.drop()
}

// drop closes the shared state.
func (f *Follower) drop() {
	f.mu.Lock()
	c := f.coord
	f.coord = nil
	f.mu.Unlock()
	if c != nil {
		_ = c.Close() // its error is the cause, which was logged
	}
}

// ending is what is known of the end of an embedded etcd in this process.
type ending struct {
	at   time.Time
	dir  uint64 // what inode returned for its directory when it had ended
	full bool   // the disk was full
	ran  bool   // it had been open; one that never started is damaged, and would not start in a new process either
}

// remedy is what brings an etcd back that has ended.
type remedy int

const (
	none    remedy = iota
	reopen         // its directory was replaced: this process can start it
	restart        // a new process may be able to start it
)

// remedy returns what would bring etcd back now, given what inode and space return now.
func (e *ending) remedy(now time.Time, dir, space uint64) remedy {
	switch {
	case dir != e.dir:
		return reopen
	case e.full && space >= spaceNeeded, e.ran && !e.full && now.Sub(e.at) > restartAfter:
		return restart
	}
	return none
}

// inode identifies a directory; it is 0 for one that does not exist.
func inode(dir string) uint64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// data is the data directory.
func (f *Follower) data() string { return filepath.Dir(f.CoordDir) }

// space returns how many bytes the disk of the data directory has free.
func (f *Follower) space() uint64 {
	var st unix.Statfs_t
	if unix.Statfs(f.data(), &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

func (f *Follower) shared() *coord.Coord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coord
}

// setHealth stores whether the shared state is available.
func (f *Follower) setHealth(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (err == nil) != (f.err == nil) {
		f.changed = time.Now()
	}
	f.err, f.checked = err, checkResult{}
	if f.reopens != nil {
		close(f.reopens)
		f.reopens = nil
	}
	f.endSearch()
}

// endSearch notes that the shared state was found, or not. It is called with mu held.
func (f *Follower) endSearch() {
	select {
	case <-f.searched:
	default:
		close(f.searched)
	}
}

// Searched is closed when the shared state was found, or not, for the first time.
func (f *Follower) Searched() <-chan struct{} { return f.searched }

// Change returns the shared state for a change. Right after the start it waits for the first search. The error is a
// control.Error with a hint, or ctx's.
func (f *Follower) Change(ctx context.Context) (*coord.Coord, error) {
	if f.heads != nil {
		return nil, f.elsewhere()
	}
	select {
	case <-f.searched:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := f.Reachable(ctx)
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "%v", err).WithHint(f.hint(err))
	}
	return c, nil
}

// Reachable returns the shared state if it can be changed now.
func (f *Follower) Reachable(ctx context.Context) (*coord.Coord, error) {
	if f.heads != nil {
		return nil, f.elsewhere()
	}
	if err := f.superseded(); err != nil {
		return nil, err
	}
	c, err := f.opened(ctx)
	if err != nil {
		return nil, err
	}
	return c, c.Check(ctx)
}

// opened returns the shared state if it is open. It waits for one that is being opened again.
func (f *Follower) opened(ctx context.Context) (*coord.Coord, error) {
	f.mu.Lock()
	reopens := f.reopens
	f.mu.Unlock()
	if reopens != nil {
		select {
		case <-reopens:
		case <-time.After(reopenedWithin):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.coord == nil {
		return nil, errNewPeers
	}
	return f.coord, f.err
}

// hint tells a person what an error of the shared state means.
func (f *Follower) hint(err error) string {
	const served = "nodes are served what was declared last; changes wait until the shared state is back"
	if e, ok := errors.AsType[*supersededError](err); ok {
		return e.hint(f.Server)
	}
	switch {
	case len(f.Etcd.Endpoints) > 0 || errors.Is(err, coord.ErrNewerFormat):
		return served
	case f.space() < spaceNeeded:
		return served + fmt.Sprintf(": it needs %d MB free on the disk of %s, and comes back by itself",
			spaceNeeded>>20, f.data())
	case errors.Is(err, member.ErrRemoved):
		return served + "; it asks the other heads to be added again; after dim server rm it has to join again"
	case errors.Is(err, member.ErrNoQuorum):
		return served + "; start the other heads, or look at the network between them; " +
			"if they are lost for ever: dim server recover"
	case errors.Is(err, member.ErrEnded), errors.Is(err, fs.ErrPermission), errors.Is(err, unix.ENOTDIR):
		return served + fmt.Sprintf(
			"; if it is damaged: mv %s %[1]s.damaged, and it is made anew from what this server knows", f.CoordDir)
	}
	return served
}

// Health returns the state of the connection to the shared state. Right after the start it waits a moment for the first
// search.
func (f *Follower) Health(ctx context.Context) control.Coord {
	f.awaitSearch(ctx)
	if f.heads != nil {
		return f.headHealth()
	}
	c := control.Coord{Kind: "embedded", Revision: f.Now().State.Revision}
	if len(f.Etcd.Endpoints) > 0 {
		c.Kind = "external"
	}
	c.Members = f.Members()
	err := f.recentCheck(ctx)
	if c.OK = err == nil; err != nil {
		c.Error = err.Error()
	}
	return c
}

// recentCheck returns whether the shared state can be changed, as it was found at most a second ago: one status asks
// twice, and each check is a write.
func (f *Follower) recentCheck(ctx context.Context) error {
	f.mu.Lock()
	at, err := f.checked.at, f.checked.err
	f.mu.Unlock()
	if time.Since(at) < time.Second {
		return err
	}
	_, err = f.Reachable(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked = checkResult{time.Now(), err}
	return err
}

func (f *Follower) awaitSearch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, searchedWithin)
	defer cancel()
	select {
	case <-f.searched:
	case <-ctx.Done():
	}
}

// Problems is a problems.Source: a description that is not followed, and a shared state that is not available.
func (f *Follower) Problems(ctx context.Context) []problems.Problem {
	var list []problems.Problem
	if now := f.Now(); now.Problem != "" {
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindDescription), Text: now.Problem, Hint: "the server follows the one before",
		})
	}
	list = append(list, f.givenProblems(ctx)...)
	f.awaitSearch(ctx)
	if f.heads != nil {
		return append(list, f.headProblems()...)
	}
	if err := f.recentCheck(ctx); err != nil {
		f.mu.Lock()
		since := f.changed
		f.mu.Unlock()
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Text: err.Error(), Hint: f.hint(err), Since: since,
		})
	}
	return list
}

// APIError gives the errors of the shared state and of rollouts the API's codes. Others are returned as they are.
func APIError(err error) error {
	for target, code := range map[error]control.Code{
		coord.ErrConflict: control.Conflict, coord.ErrUnavailable: control.Unavailable,
		coord.ErrNotFound: control.NotFound, coord.ErrTooLarge: control.Invalid,
		rollout.ErrConflict: control.Conflict, rollout.ErrState: control.Conflict,
	} {
		if errors.Is(err, target) {
			return control.Errorf(code, "%v", err)
		}
	}
	return err
}
