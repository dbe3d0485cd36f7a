// Package commit makes changes on one file system durable, for many callers at once. It knows open files, not
// what they are for.
//
// # What each file system guarantees
//
// POSIX promises that fsync of a file brings its content and attributes to disk, and that of a directory its
// names. So this works on any file system: fsync everything that changed, each thing once however many callers
// wait for it.
//
// Some file systems write all changes of names and attributes to one log, in the order in which they were made.
// These are ext4 with a journal (jbd2 commits a transaction only after those before it) and XFS (a forced log
// is written up to a sequence number). There an fsync of the file whose attributes changed last makes all
// earlier changes durable, whoever made them: one flush serves all that wait.
//
// Content is not in the log, so each caller writes out its own files first. When the writing has ended, the
// location of the content is in the log: ext4 and XFS record it before they end the writeback of a page. The
// flush of the log flushes the device's cache before it.
//
// The file that changes last is a mark. Its time is set to a value that it never had. A write to it would not
// do: within one clock tick it changes no attribute, and fsync finds nothing to do.
//
// btrfs logs each file by itself, and the behaviour of others is not known well enough. There the rule for any
// file system is used. Links and devices, which cannot be opened, are synced there with all of the file system.
//
// # Errors
//
// The kernel reports a failed flush once. So all callers whose changes may be lost get the error: those that
// shared the flush, and those that had begun to wait before it ended.
//
// # Concurrency
//
// All methods may be called concurrently. A caller that comes alone waits for no other.
package commit

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/replica/fds"
	"dim/internal/sysfile"
)

// Changes is what one caller waits for.
type Changes struct {
	Names  []*fds.File // directories and files whose names or attributes changed
	Data   []*fds.File // files whose content was written
	Others bool        // something that cannot be opened changed
}

// Group is one file system.
type Group struct {
	mark     int // open file; -1 when the file system has no log of the kind told above
	all      int // any open file of the file system
	flush    durable.Flush
	stamp    atomic.Int64
	failures atomic.Uint64
}

// Open determines the kind of file system that the open directory dir is on. dir must stay open until Close.
func Open(dir int) (*Group, error) {
	g := &Group{mark: -1, all: dir}
	if !ordered(dir) {
		return g, nil
	}
	fd, err := unix.Openat(dir, "sync", unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	g.mark = fd
	return g, nil
}

// Close closes the mark.
func (g *Group) Close() error {
	if g.mark < 0 {
		return nil
	}
	return unix.Close(g.mark)
}

// Ordered reports whether changes of names and attributes reach the disk in the order in which they were made.
// Then a directory needs no sync of its own before others depend on it.
func (g *Group) Ordered() bool { return g.mark >= 0 }

// Counts returns how often callers waited, how many flushes that took, and how many of these failed. Where the
// file system has no ordered log it counts only flushes for things that cannot be opened.
func (g *Group) Counts() (waits, flushes, failures uint64) {
	waits, flushes = g.flush.Counts()
	return waits, flushes, g.failures.Load()
}

// Sync returns when the changes c, which were made before, are on disk.
func (g *Group) Sync(c Changes) error {
	if g.mark < 0 {
		return g.syncEach(c)
	}
	before := g.failures.Load()
	for _, f := range c.Data {
		if err := f.WriteOut(); err != nil {
			return err
		}
	}
	err := g.flush.Do(g.flushLog)
	if err == nil && g.failures.Load() != before {
		err = unix.EIO
	}
	return err
}

// Stage writes the content of the new open file fd out, so that a Sync after a name was given to it makes both
// durable. A name must not be durable before its content.
func (g *Group) Stage(fd int) error {
	if g.mark < 0 {
		return sysfile.Retry(func() error { return unix.Fsync(fd) })
	}
	f := fds.File{FD: fd}
	return f.WriteOut()
}

// StageAll is Stage for several files, which then reach the disk together.
func (g *Group) StageAll(fds []int) error {
	if g.mark < 0 && len(fds) > 1 {
		return g.syncAll()
	}
	for _, fd := range fds { // WriteOut waits for each
		if err := unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		if err := g.Stage(fd); err != nil {
			return err
		}
	}
	return nil
}

// flushLog changes the mark and syncs it.
func (g *Group) flushLog() error {
	at := max(g.stamp.Load()+1, time.Now().UnixNano())
	g.stamp.Store(at) // one at a time is here
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(at)}
	err := futimens(g.mark, times)
	if err == nil {
		err = sysfile.Retry(func() error { return unix.Fsync(g.mark) })
	}
	if err != nil {
		g.failures.Add(1)
	}
	return err
}

// syncEach does what POSIX requires, files before the directories that name them.
func (g *Group) syncEach(c Changes) error {
	if c.Others {
		return g.syncAll()
	}
	for _, f := range c.Data {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	for _, f := range c.Names {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) syncAll() error {
	before := g.failures.Load()
	err := g.flush.Do(func() error {
		err := sysfile.Retry(func() error { return unix.Syncfs(g.all) })
		if err != nil {
			g.failures.Add(1)
		}
		return err
	})
	if err == nil && g.failures.Load() != before {
		err = unix.EIO
	}
	return err
}

func futimens(fd int, times []unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}
