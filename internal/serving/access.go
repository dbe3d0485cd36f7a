package serving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"dim/internal/boot"
	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/nfs"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// access is what one caller may use, as long as the description does not change. A node is known by its addresses, and
// reaches its own replicas alone. The superuser of this machine (loopback, from a privileged port) reaches all. Hosts
// of admin networks that are no nodes reach versions. Roots that are lent to a load test are reached by those who make
// it.
type access struct {
	s   *Server
	of  *cluster.Cluster // the description that who comes from
	who caller.Caller
}

// errOrdinaryPort is the reason for which calls are denied.
var errOrdinaryPort = errors.New("any user may call from this port")

// Client implements nfs.Exports. A caller that is nobody has no rights, but its calls are answered.
func (s *Server) Client(peer nfs.Peer) (nfs.Client, error) {
	a := &access{s: s, of: s.Declared.Now().Cluster}
	a.who, _ = caller.Resolve(a.of, caller.Peer(peer))
	if !a.who.Superuser {
		return nil, errOrdinaryPort
	}
	return a, nil
}

// Current implements nfs.Client.
func (a *access) Current() bool { return a.s.Declared.Now().Cluster == a.of }

// Mount implements nfs.Client.
func (a *access) Mount(_ context.Context, path string) (vfs.FS, error) {
	if name, ok := strings.CutPrefix(path, "/nodes/"); ok {
		x := a.s.node(cluster.NodeName(name))
		switch {
		case x != nil && a.mayUse(x):
			return x.fs, nil
		case a.who.Root:
			return nil, vfs.ENOENT
		}
		a.noteRefusal(cluster.NodeName(name))
		return nil, vfs.EACCES // other callers do not learn whether there is such a node
	}
	if strings.HasPrefix(path, LentPrefix) {
		return a.mountLent(path)
	}
	if ref, ok := strings.CutPrefix(path, "/images/"); ok && a.mayReadVersions() {
		return a.s.version(ref)
	}
	return nil, vfs.EACCES
}

// noteRefusal notes that a node mounts its root from a server that does not serve it. The words are those that the node
// gets by HTTP when it asks for the reason, see package boot.
func (a *access) noteRefusal(node cluster.NodeName) {
	n := a.who.Node
	if n == nil || n.Name != node || a.s.Serves(n) {
		return
	}
	text := fmt.Sprintf("NFS: %s serves %s: %v", n.Server().Name, node, boot.ErrNotMine)
	if why, _ := a.s.Declared.Now().Stranded(n); why != "" {
		text = "NFS: " + why
	}
	if a.s.Liveness.Refused(node, boot.Refusal{Text: text, Expected: true, NotMine: true}) {
		a.s.Log.Info("node not answered", "node", node, "reason", text)
	}
}

// Find implements nfs.Client.
func (a *access) Find(h vfs.Handle) (nfs.Export, error) {
	tree, ok := replica.TreeOf(h)
	if !ok {
		return nfs.Export{}, vfs.EBADHANDLE
	}
	x := a.s.table.Load().trees[tree]
	if x == nil {
		x = a.notExported(tree)
	}
	switch {
	case x == nil && a.s.Closed():
		return nfs.Export{}, vfs.ELATER // its programs wait until a person has decided about the disk
	case x == nil:
		return nfs.Export{}, vfs.ESTALE
	case !a.mayUse(x):
		return nfs.Export{}, vfs.EACCES
	}
	if x.lent != nil {
		return x.lent.export(x)
	}
	a.s.noteCall(x)
	return nfs.Export{FS: x.fs, Meter: x.meter}, nil
}

func (a *access) mayUse(x *export) bool {
	if x.lent != nil {
		return x.lent.admits(a.who)
	}
	if x.node == "" {
		return a.mayReadVersions()
	}
	return a.who.Root || a.who.Node != nil && a.who.Node.Name == x.node
}

// mayReadVersions reports whether the caller reaches all versions, with the secrets in them. A node does not, whatever
// network it is on.
func (a *access) mayReadVersions() bool { return a.who.Root || a.who.Admin && a.who.Node == nil }

// version exports the version that a reference names. It stays exported for the handles that will name it.
func (s *Server) version(ref string) (vfs.FS, error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return nil, vfs.ENOENT
	}
	v, ok := s.Declared.Now().State.Resolve(r)
	if !ok {
		return nil, vfs.ENOENT
	}
	x, err := s.exportVersion(v)
	if err != nil {
		return nil, vfs.EIO
	}
	return x.fs, nil
}

// notExported exports the tree of a handle that was issued before the last restart and names no present export: a
// version, or a replica of the caller's former image. It returns nil when the caller may not have it.
func (a *access) notExported(tree replica.Tree) *export {
	if a.mayReadVersions() {
		if x := a.s.versionOf(tree); x != nil {
			return x
		}
	}
	s, n := a.s, a.who.Node
	if n == nil || !s.Serves(n) {
		return nil
	}
	for _, im := range a.of.Images {
		if im == n.Image || replica.ReplicaTree(string(n.Name), string(im.Name)) != tree {
			continue
		}
		x, err := s.formerReplica(n.Name, im.Name)
		if err != nil {
			s.Log.Error("former replica cannot be served", "node", n.Name, "image", im.Name, "error", err)
		}
		return x
	}
	return nil
}

// versionOf exports the version that a tree is of.
func (s *Server) versionOf(tree replica.Tree) *export {
	for _, im := range s.Declared.Now().State.Images {
		for _, v := range im.Versions {
			if replica.VersionTree(v.Image, v.Digest) == tree {
				x, _ := s.exportVersion(v)
				return x
			}
		}
	}
	return nil
}

// CallingNode returns the node whose superuser makes a request. Other users of a node have its address too, but no port
// below 1024.
func (s *Server) CallingNode(r *http.Request) (cluster.NodeName, error) {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return "", err
	}
	who, _ := caller.Resolve(s.Declared.Now().Cluster, peer)
	switch {
	case !who.Superuser:
		return "", fmt.Errorf("port %d is one that any user may have: "+
			"calls must come from below 1024, as the superuser's do", peer.Remote.Port())
	case who.Node == nil:
		return "", fmt.Errorf("%s is no node's address", who.Peer.Remote.Addr())
	case !s.Serves(who.Node):
		return "", fmt.Errorf("another server serves %s", who.Node.Name)
	}
	return who.Node.Name, nil
}
