// Package pkgread compares the package databases of nodes with those of versions, in processes of package confine:
// whoever is root on a node writes that node's databases, and masters write those of versions.
//
// It must not know what a layer is, or what becomes of a node.
package pkgread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/image"
	"dim/internal/pkgdb"
)

// TaskName is the name of Task for package confine.
const TaskName = "packages"

// Bounds of the processes that read package databases.
const (
	maxReaders = 4   // processes, one for each pair of versions
	maxNodes   = 256 // that one process reads
	maxAnswer  = 64 << 20
	maxIdle    = 10 * time.Second
)

// readerLimits bound a process that reads package databases. What is read of one node may take as long as Silence.
func readerLimits() confine.Limits {
	return confine.Limits{Memory: 1 << 30, CPU: 10 * time.Minute, Silence: 20 * time.Second}
}

// Version is a version whose packages are compared. Files are those of the version with the digest.
type Version struct {
	Digest image.Digest
	Files  readfs.FS
}

// Pair is the version that a node has changed, and the one to which it goes.
type Pair struct {
	Old, Next Version
	Whole     bool // the node's database is replaced as a whole: all packages that it has changed are in conflict
}

// Reader reads the package databases of nodes and versions in processes of its own, because whoever is root on a
// node writes that node's. One process reads those of many nodes. After a failure of a process the next node gets a new
// one. All methods may be called from any number of goroutines.
type Reader struct {
	program confine.Program
	idle    time.Duration
	life    context.Context // of the processes
	end     context.CancelFunc
	listing chan struct{} // has an element while a version is listed

	mu       sync.Mutex
	sessions []*session  // the last used one last
	rest     *time.Timer // ends the processes when nothing is asked
}

// session is a process that compares nodes between two versions.
type session struct {
	*readfs.Session
	versions [2]image.Digest
	nodes    int
}

// New returns a Reader whose processes run program, which must run Task.
func New(program confine.Program) *Reader {
	r := &Reader{program: program, idle: maxIdle, listing: make(chan struct{}, 1)}
	r.life, r.end = context.WithCancel(context.Background())
	r.rest = time.AfterFunc(r.idle, r.endAll)
	return r
}

// Close ends all processes. What is asked later fails.
func (r *Reader) Close() {
	r.end()
	r.rest.Stop()
	r.endAll()
}

// endAll ends all processes. They are started again when something is asked.
func (r *Reader) endAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		_ = s.Close() // nothing was written
	}
	r.sessions = nil
}

// request asks for a comparison, of which the file systems are the old version, the next one, and the node; or for the
// packages of a version, which is the only file system.
type request struct {
	Whole bool `json:"whole"` // all packages that the node has changed are in conflict
	List  bool `json:"list"`
}

// Installed is what is installed in a version. It comes from a process that is not trusted.
type Installed struct {
	Packages []pkgdb.Package `json:"packages"`
	Unread   []string        `json:"unread"` // databases that could not be read, each with the reason
}

// List returns the packages of a version, which a process of its own reads. Calls wait for each other.
func (r *Reader) List(ctx context.Context, files readfs.FS) (out Installed, err error) {
	select {
	case r.listing <- struct{}{}:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	defer func() { <-r.listing }()
	call := readfs.Call{Program: r.program, Task: TaskName, Limits: readerLimits(), Most: maxAnswer}
	s, err := call.Open(ctx)
	if err != nil {
		return out, err
	}
	err = s.Ask(request{List: true}, []readfs.FS{files}, &out)
	return out, errors.Join(err, s.Close())
}

// Answer is the result of a comparison. It comes from a process that is not trusted.
type Answer struct {
	Own   []pkgdb.Conflict `json:"own"`   // all that the node has changed, and not to what the next version has
	List  []pkgdb.Conflict `json:"list"`  // those in conflict
	Files []rawPath        `json:"files"` // of the packages in List, in walk order
	Paths []File           `json:"paths"` // of these packages on the node and in the old version
}

// File is a file of a package. Sum is the MD5 sum that a configuration file had when it was installed.
type File struct {
	Path rawPath `json:"path"`
	Sum  string  `json:"sum,omitempty"`
}

// rawPath is a path that stays what it is in JSON when it is not UTF-8.
type rawPath string

// MarshalText implements encoding.TextMarshaler.
func (p rawPath) MarshalText() ([]byte, error) { return strconv.AppendQuote(nil, string(p)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *rawPath) UnmarshalText(text []byte) error {
	path, err := strconv.Unquote(string(text))
	if *p = rawPath(path); err == nil && !usablePath(path) {
		err = errors.New("it is no path")
	}
	if err != nil {
		return fmt.Errorf("it names %.100q as a file of a package: %w", text, err)
	}
	return nil
}

// usablePath reports whether a path can be that of a file. Names need not be UTF-8.
func usablePath(path string) bool { return fs.ValidPath(strings.ToValidUTF8(path, "x")) && path != "." }

// Compare compares the packages of a node with those of two versions.
func (r *Reader) Compare(with *Pair, node readfs.FS) (out Answer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.rest.Reset(r.idle)
	s, err := r.sessionOf(with)
	if err != nil {
		return out, err
	}
	err = s.Ask(request{Whole: with.Whole}, []readfs.FS{with.Old.Files, with.Next.Files, node}, &out)
	if s.nodes++; s.nodes >= maxNodes || !s.Usable() {
		r.sessions = slices.DeleteFunc(r.sessions, func(o *session) bool { return o == s })
		err = errors.Join(err, s.Close())
	}
	return out, err
}

// sessionOf returns a process for a pair of versions. It ends the one that was not used for the longest time if
// there are too many.
func (r *Reader) sessionOf(with *Pair) (*session, error) {
	pair := [2]image.Digest{with.Old.Digest, with.Next.Digest}
	if i := slices.IndexFunc(r.sessions, func(s *session) bool { return s.versions == pair }); i >= 0 {
		found := r.sessions[i]
		r.sessions = append(slices.Delete(r.sessions, i, i+1), found)
		return found, nil
	}
	for len(r.sessions) >= maxReaders {
		err := r.sessions[0].Close()
		if r.sessions = r.sessions[1:]; err != nil {
			return nil, err
		}
	}
	call := readfs.Call{Program: r.program, Task: TaskName, Limits: readerLimits(), Most: maxAnswer}
	s, err := call.Open(r.life)
	if err != nil {
		return nil, err
	}
	r.sessions = append(r.sessions, &session{Session: s, versions: pair})
	return r.sessions[len(r.sessions)-1], nil
}

// Task compares the packages of nodes in a process of its own.
func Task() confine.Task { return readfs.HandleEach(answerRequests()) }

// answerRequests returns a function that answers the requests of one session.
func answerRequests() func(context.Context, []byte, func(int) readfs.FS) (any, error) {
	var old, next *pkgdb.Database
	return func(_ context.Context, text []byte, root func(int) readfs.FS) (any, error) {
		var q request
		if err := json.Unmarshal(text, &q); err != nil {
			return nil, err
		}
		if q.List {
			d := pkgdb.Load(root(0))
			return Installed{d.Packages, d.Unread}, nil
		}
		if old == nil {
			old, next = pkgdb.Load(root(0)), pkgdb.Load(root(1))
		}
		return comparePackages(old, next, pkgdb.Load(root(2)), q.Whole), nil
	}
}

// comparePackages compares what a node has with two versions.
func comparePackages(old, next, own *pkgdb.Database, whole bool) (out Answer) {
	out.Own = pkgdb.Changed(old.Packages, own.Packages, next.Packages)
	if out.List = out.Own; !whole {
		out.List = pkgdb.Conflicts(old.Packages, own.Packages, next.Packages)
	}
	seen, files := map[File]bool{}, map[string]bool{}
	for _, p := range out.List {
		sums := own.Conffiles(p.Name, p.Arch)
		mine, olds := usable(own.Files(p.Name, p.Arch)), usable(old.Files(p.Name, p.Arch))
		for _, path := range slices.Concat(mine, olds) {
			if at := (File{rawPath(path), sums[path]}); !seen[at] {
				seen[at] = true
				out.Paths = append(out.Paths, at)
			}
		}
		for _, path := range slices.Concat(olds, mine, usable(next.Files(p.Name, p.Arch))) {
			files[path] = true
		}
	}
	for _, path := range slices.SortedFunc(maps.Keys(files), image.ComparePaths) {
		out.Files = append(out.Files, rawPath(path))
	}
	return out
}

// usable returns those of the paths in a package database that can be paths of files.
func usable(paths []string) []string {
	return slices.DeleteFunc(paths, func(path string) bool { return !usablePath(path) })
}
