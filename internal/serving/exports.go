package serving

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/meter"
	"dim/internal/replica"
)

// exportTable is all that is exported. It is never changed, only replaced.
type exportTable struct {
	trees map[replica.Tree]*export
	nodes map[cluster.NodeName]*export // present replicas
	lent  *loan                        // what a load test has; nil: there is none
}

// export is one tree with the node that may use it.
type export struct {
	fs     *replica.Replica
	node   cluster.NodeName // "" for a version, and for what is lent
	lent   *loan            // nil: it is not lent
	from   madeFrom
	paths  []string // of its node files
	former bool     // of an image that the node no longer has, but may run on until it boots
	noted  *lastCall
	meter  *meter.Meter // nil for a version
}

// lastCall is when a call for an export was noted last, in nanoseconds since the start of this process.
type lastCall struct{ atomic.Int64 }

// madeFrom is all that decides what a replica shows, besides its node.
type madeFrom struct {
	description, version image.Digest
	number               int
}

// noteInterval is the least time between two calls of a node that are noted.
const noteInterval = time.Second

// noteCall notes that a call used x now.
func (s *Server) noteCall(x *export) {
	if x.node == "" {
		return
	}
	now := int64(time.Since(s.started)) // takes half as long as time.Now
	last := x.noted.Load()
	if last != 0 && now-last < int64(noteInterval) || !x.noted.CompareAndSwap(last, now) {
		return
	}
	s.Liveness.Called(x.node, time.Now())
	s.called.Store(true)
}

// node returns the export of a node's present replica, nil when there is none.
func (s *Server) node(n cluster.NodeName) *export { return s.table.Load().nodes[n] }

// exportVersion exports a version, if it is not exported yet.
func (s *Server) exportVersion(v image.Version) (*export, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if x := s.table.Load().trees[replica.VersionTree(v.Image, v.Digest)]; x != nil {
		return x, nil
	}
	fs, err := s.Set.ReadOnly(v)
	if err != nil {
		s.Log.Error("version cannot be served", "version", v.Ref().String(), "error", err)
		return nil, err
	}
	x := &export{fs: fs, noted: new(lastCall)}
	s.addLocked(x)
	return x, nil
}

// add adds a tree that is not the present one of a node.
func (s *Server) add(x *export) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.addLocked(x)
}

func (s *Server) addLocked(x *export) {
	old := s.table.Load()
	t := &exportTable{trees: maps.Clone(old.trees), nodes: old.nodes, lent: old.lent}
	t.trees[x.fs.Tree()] = x
	s.table.Store(t)
}

// replace makes list all that is exported, besides the versions and what is lent. Of several exports with one tree the
// last counts.
func (s *Server) replace(list []*export) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.table.Load()
	t := &exportTable{
		trees: make(map[replica.Tree]*export, len(list)), nodes: make(map[cluster.NodeName]*export, len(list)),
		lent: old.lent,
	}
	for tree, x := range old.trees {
		if x.node == "" {
			t.trees[tree] = x
		}
	}
	for _, x := range list {
		t.trees[x.fs.Tree()] = x
		if x.node != "" && !x.former {
			t.nodes[x.node] = x
		}
	}
	s.table.Store(t)
}

// Drop ends the export of a version.
func (s *Server) Drop(r image.Ref) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.table.Load()
	t := &exportTable{trees: maps.Clone(old.trees), nodes: old.nodes, lent: old.lent}
	maps.DeleteFunc(t.trees, func(_ replica.Tree, x *export) bool {
		v := x.fs.Version()
		return x.node == "" && x.lent == nil && v.Image == r.Image && v.Number == r.Number
	})
	s.table.Store(t)
}

// Paths implements nfs.Exports.
func (s *Server) Paths() []string {
	var paths []string
	for name := range s.table.Load().nodes {
		paths = append(paths, "/nodes/"+string(name))
	}
	slices.Sort(paths)
	return paths
}
