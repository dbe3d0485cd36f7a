package replica

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// stagingDir is the directory of all staged copies. No node has such a name.
const stagingDir = ".staged"

// Names below stagingDir/STAMP, the directory of one staged copy.
const (
	stagedTree    = "copy"    // what the replica has on disk
	stagedJournal = "journal" // the replica as the journal has it: a log of records
	stagedPool    = "pool"    // files that were copied before the moment
)

// Stage copies what the replica in dir, NODE/IMAGE, has on disk, whether it is attached or not, without its snapshots.
// The copy is of one moment: it holds every change that was acknowledged before, and none of a call that came after
// it. It is not on disk yet: it is there to be read. Files for which known returns true get their attributes and size,
// but no content.
//
// Stage returns the path of a directory, from that of the set, whose name is the stamp of the moment, with the names
// copy and journal, and with a layer.SnapshotInfo; and how long calls of the node waited. Unstage removes it.
//
// If the file system can share blocks, the copy is made at once. If not, what has not changed for a second is copied
// before calls of the node are held up, and only the rest while they wait. No replica is switched or attached
// meanwhile.
func (s *Set) Stage(dir string, known func(origin [16]byte) bool) (path string, held time.Duration, err error) {
	node, name, ok := strings.Cut(dir, "/")
	if !ok {
		return "", 0, fmt.Errorf("stage %q: it is not NODE/IMAGE", dir)
	}
	if err := checkDirNames(node, name); err != nil {
		return "", 0, err
	}
	c := staging{set: s, dir: layer.Home(dir), path: stagingDir + "/" + s.temp(), known: known}
	if err = c.run(ReplicaTree(node, name)); err != nil {
		return "", 0, errors.Join(fmt.Errorf("stage %s: %w", dir, err), s.Unstage(c.path))
	}
	return c.path, c.held, nil
}

// Unstage removes a staged copy.
func (s *Set) Unstage(path string) error {
	fd, err := s.root.OpenDir(stagingDir)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return layer.Dir(fd).RemoveAll(strings.TrimPrefix(path, stagingDir+"/"))
}

// unstageAll removes what a crash has left of staged copies.
func (s *Set) unstageAll() error {
	if there, err := s.root.Exists(stagingDir); !there {
		return err
	}
	return s.root.RemoveAll(stagingDir)
}

// staging is one call of Stage.
type staging struct {
	set   *Set
	dir   layer.Home
	path  string // of the copy
	known func([16]byte) bool
	held  time.Duration
	copy  layer.Copy
}

func (c *staging) run(tree Tree) error {
	s := c.set
	limit, err := s.spareRoom()
	if err != nil {
		return err
	}
	for _, sub := range []string{stagedTree, stagedPool} {
		fd, err := s.root.MakePath(c.path+"/"+sub, func(int) error { return nil })
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	c.copy = layer.Copy{
		Root: s.root, From: string(c.dir), To: c.path + "/" + stagedTree, Limit: limit, Notes: true,
		Choose: c.choose, Fault: s.failAt,
	}
	if !s.sharesBlocks() {
		c.copy.Pool = c.path + "/" + stagedPool
		if err := c.fillPool(); err != nil {
			return err
		}
	}
	return c.moment(tree)
}

// moment makes the copy while calls of the node wait.
func (c *staging) moment(tree Tree) error {
	s := c.set
	s.switching.Lock()
	defer s.switching.Unlock()
	if r, attached := s.Find(tree); attached {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	begun := time.Now()
	defer func() { c.held = time.Since(begun) }()
	at := s.journal.stamp(s.now())
	journal, to, err := s.journal.export(string(c.dir), s.retained(), s.retain.switches)
	if err == nil {
		err = c.copy.Run()
	}
	if err == unix.ENOENT && !s.exists(c.dir) {
		err = nil // the node has written nothing
	}
	if err != nil {
		return err
	}
	return c.describe(at, journal, to)
}

func (s *Set) exists(dir layer.Home) bool {
	there, err := s.root.Exists(string(dir))
	return there || err != nil
}

// describe adds what is known of the moment, and names the copy after it.
func (c *staging) describe(at int64, journal []byte, to *image.Version) error {
	s := c.set
	fd, err := s.root.OpenDir(c.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	file, err := unix.Openat(fd, stagedJournal, flags, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	if err := sysfile.Write(file, journal); err != nil {
		return err
	}
	info := layer.SnapshotInfo{Why: "backup", Files: c.copy.Files, Bytes: c.copy.Bytes, Copied: c.copy.Copied}
	if to != nil {
		info.Over = []image.Version{*to}
	}
	if err := layer.At(fd, ".").SetSnapshotInfo(&info); err != nil {
		return err
	}
	path := stagingDir + "/" + stampName(at)
	if err := unix.Renameat(int(s.root), c.path, int(s.root), path); err != nil {
		return err
	}
	c.path = path
	return nil
}

const (
	// largePass is how many bytes a pass over a layer copies if another one is worth it: meanwhile files have changed.
	largePass = 256 << 20
	// largeRecent is how many bytes of files that have just changed are worth to wait until they can be recognized.
	largeRecent = 16 << 20
	// recognized is the time after which a file is recognized by its ctime, see layer.CopyEntry.
	recognized = 1100 * time.Millisecond
)

// fillPool copies what has not changed for a second, while the replica is in use.
func (c *staging) fillPool() error {
	for range 3 {
		before := c.copy.Copied
		recent, err := c.copy.FillPool()
		if err != nil {
			return err
		}
		if recent >= largeRecent {
			time.Sleep(recognized)
		} else if c.copy.Copied-before < largePass {
			break
		}
	}
	return nil
}

// choose leaves out what is of no use elsewhere, and marks files with their origin.
func (c *staging) choose(e *layer.CopyEntry) (layer.Choice, error) {
	if notStaged(e.At) {
		return layer.Choice{Leave: true}, nil
	}
	origin, ok := e.Origin(time.Now())
	if !ok || vfs.TypeOf(e.Stat.Mode) != vfs.Regular {
		return layer.Choice{}, nil
	}
	st := e.Stat
	return layer.Choice{
		Hollow: c.known(origin), Adapt: func(to layer.Entry) error { return to.SetCopyOf(&st) },
	}, nil
}

// notStaged reports whether a path from a replica's directory is of no use elsewhere: what is being made or removed,
// and snapshots.
func notStaged(path string) bool {
	h := layer.Home("")
	return strings.HasPrefix(path, h.Work()+"/") || path == h.Snapshots() || strings.HasPrefix(path, h.Saved()+"/#")
}

// spareRoom returns how many bytes may be copied on the disk.
func (s *Set) spareRoom() (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(s.root), &fs); err != nil {
		return 0, err
	}
	free, least := fs.Bavail*uint64(fs.Bsize), min(roomLeast, fs.Blocks/20*uint64(fs.Bsize))
	if free < least {
		return 0, fmt.Errorf("%w: %d MB free, less than %d MB", errNoRoom, free>>20, least>>20)
	}
	return free - least + 1, nil
}

// Homes returns the directories NODE/IMAGE of the replicas that have something on disk, sorted.
func (s *Set) Homes() ([]string, error) {
	nodes, err := s.root.List(".")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, node := range nodes {
		if checkDirNames(node) != nil || strings.HasPrefix(node, removedPrefix) {
			continue
		}
		images, err := s.root.List(node)
		if err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, image := range images {
			list = append(list, node+"/"+image)
		}
	}
	return list, nil
}

// ExportJournal returns what the journal knows of all replicas: a log of records.
func (s *Set) ExportJournal() ([]byte, error) {
	log, _, err := s.journal.export("", s.retained(), s.retain.switches)
	return log, err
}

// recordBuffer is a log in memory.
type recordBuffer []byte

// Append implements appender.
func (b *recordBuffer) Append(record []byte) error {
	*b = append(*b, durable.EncodeRecord(record)...)
	return nil
}

// export returns the state of the replica in dir, or of all with "", as a log of records, and the version that the one
// replica follows.
func (j *journal) export(dir string, since int64, most int) (log []byte, to *image.Version, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	states := j.states
	if dir != "" {
		states = map[string]*state{}
		if st := j.states[dir]; st != nil {
			states[dir], to = st, st.to
		}
	}
	var b recordBuffer
	w := stateWriter{log: &b, named: map[image.Digest]*image.Version{}, states: states, since: since, most: most}
	err = j.writeStates(&w)
	return b, to, err
}
