// Package forward answers the control API on a head for nodes of all servers and masters of all heads: it asks the
// server that serves a node, or the head that has a master.
//
// # Concepts
//
// A Backend answers what concerns one node by the server of that node, and what concerns many by their servers, all at
// the same time. A server that does not answer is named in the answer, with its nodes; the others are in it all the
// same. A capture or a watch is made by the first head that has the master, this one before others. All other calls are
// the local server's.
//
// Only heads forward, and every server answers heads alone, by its own Backend, so that no call goes around.
//
// # What it must not know
//
// How anything is stored, and what a node is served.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/control/client"
	"dim/internal/control/server"
	"dim/internal/follow"
	"dim/internal/peer"
)

// path is where servers answer heads.
const path = "/peer/v1/control"

// lookTime bounds calls that only look, at one server.
const lookTime = 15 * time.Second

// Peers calls other servers. peer.Client implements it.
type Peers interface {
	// To returns what calls a server: a client, and the URL that paths are appended to.
	To(cluster.ServerName) (client *http.Client, base string)
}

// Options of a Backend. All are needed.
type Options struct {
	Server cluster.ServerName // this server
	Follow *follow.Follower
	Peers  Peers
}

// Backend implements control.Backend.
type Backend struct {
	control.Backend // of this server
	Options
}

// New returns a Backend that forwards what local cannot answer.
func New(local control.Backend, o Options) *Backend { return &Backend{local, o} }

// Handle lets local answer the heads.
func Handle(s *peer.Server, local control.Backend, log *slog.Logger) {
	h := server.NodeCalls(local)
	s.Handle(path+"/", peer.Heads, http.StripPrefix(path, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if id, ok := peer.From(r.Context()); ok && r.Method != http.MethodGet {
				log.Info("command of a head", "server", id.Name, "path", r.URL.Path)
			}
			h.ServeHTTP(w, r)
		})))
}

// at returns the client of a server.
func (b *Backend) at(s cluster.ServerName) *client.Client {
	hc, base := b.Peers.To(s)
	return client.At(hc, base+path, string(s))
}

// serverOf returns the other server that serves a node; ok is false if this one answers.
func (b *Backend) serverOf(node string) (s cluster.ServerName, ok bool) {
	now := b.Follow.Now()
	n, known := now.Cluster.Node(cluster.NodeName(node))
	if !known || n.Server().Name == b.Server || !b.isHead() {
		return "", false
	}
	return n.Server().Name, true
}

// isHead reports whether this server is a head: only heads forward.
func (b *Backend) isHead() bool {
	me, ok := b.Follow.Now().Cluster.Server(b.Server)
	return ok && me.Has(cluster.RoleHead)
}

// ask makes a call about one node where the node is served.
func ask[T any](b *Backend, node string, local func() (T, error), remote func(*client.Client) (T, error)) (T, error) {
	s, ok := b.serverOf(node)
	if !ok {
		return local()
	}
	v, err := remote(b.at(s))
	if unanswered(err) {
		err = control.Errorf(control.Unavailable, "node %s: %v", node, err).
			WithHint(fmt.Sprintf("start %s, or see what is wrong there: dim status", s))
	}
	return v, err
}

// unanswered reports whether an error of a client says that the server could not answer.
func unanswered(err error) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && e.Code == control.Unavailable
}

// Node implements control.Backend. When the node's server does not answer, the answer is what it reported last.
func (b *Backend) Node(ctx context.Context, name string) (control.Node, error) {
	s, ok := b.serverOf(name)
	if !ok {
		return b.Backend.Node(ctx, name)
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	n, err := b.at(s).Node(look, name)
	if err == nil || !unanswered(err) && look.Err() == nil {
		return n, err
	}
	reported, lerr := b.Backend.Node(ctx, name)
	reported.Problem = cmp.Or(reported.Problem, err.Error())
	return reported, lerr
}

// NodeBoots implements control.Backend.
func (b *Backend) NodeBoots(ctx context.Context, node string) (control.NodeBoots, error) {
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return ask(b, node, func() (control.NodeBoots, error) { return b.Backend.NodeBoots(ctx, node) },
		func(c *client.Client) (control.NodeBoots, error) { return c.NodeBoots(look, node) })
}

// NodeFiles implements control.Backend.
func (b *Backend) NodeFiles(ctx context.Context, node, path string) ([]control.NodeFile, error) {
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return ask(b, node, func() ([]control.NodeFile, error) { return b.Backend.NodeFiles(ctx, node, path) },
		func(c *client.Client) ([]control.NodeFile, error) { return c.NodeFiles(look, node, path) })
}

// Saved implements control.Backend.
func (b *Backend) Saved(ctx context.Context, node string) ([]control.SavedEntry, error) {
	return ask(b, node, func() ([]control.SavedEntry, error) { return b.Backend.Saved(ctx, node) },
		func(c *client.Client) ([]control.SavedEntry, error) { return c.Saved(ctx, node) })
}

// Restore implements control.Backend.
func (b *Backend) Restore(
	ctx context.Context, node string, r control.RestoreRequest,
) ([]control.RestoredEntry, error) {
	return ask(b, node, func() ([]control.RestoredEntry, error) { return b.Backend.Restore(ctx, node, r) },
		func(c *client.Client) ([]control.RestoredEntry, error) { return c.Restore(ctx, node, r) })
}

// Forget implements control.Backend.
func (b *Backend) Forget(ctx context.Context, node string, r control.ForgetRequest) ([]control.SavedEntry, error) {
	return ask(b, node, func() ([]control.SavedEntry, error) { return b.Backend.Forget(ctx, node, r) },
		func(c *client.Client) ([]control.SavedEntry, error) { return c.Forget(ctx, node, r) })
}

// Reset implements control.Backend.
func (b *Backend) Reset(ctx context.Context, node string, r control.ResetRequest) ([]control.SavedEntry, error) {
	return ask(b, node, func() ([]control.SavedEntry, error) { return b.Backend.Reset(ctx, node, r) },
		func(c *client.Client) ([]control.SavedEntry, error) { return c.Reset(ctx, node, r) })
}

// Accept implements control.Backend.
func (b *Backend) Accept(ctx context.Context, node string, r control.AcceptRequest) (control.AcceptedLayer, error) {
	return ask(b, node, func() (control.AcceptedLayer, error) { return b.Backend.Accept(ctx, node, r) },
		func(c *client.Client) (control.AcceptedLayer, error) { return c.Accept(ctx, node, r) })
}

// RestoreSnapshot implements control.Backend.
func (b *Backend) RestoreSnapshot(
	ctx context.Context, node string, r control.RestoreSnapshotRequest,
) (control.RestoredSnapshot, error) {
	return ask(b, node,
		func() (control.RestoredSnapshot, error) { return b.Backend.RestoreSnapshot(ctx, node, r) },
		func(c *client.Client) (control.RestoredSnapshot, error) { return c.RestoreSnapshot(ctx, node, r) })
}

// NodeChanges implements control.Backend.
func (b *Backend) NodeChanges(ctx context.Context, node string, yield func(control.Change) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	more := true
	_, err := ask(b, node,
		func() (struct{}, error) { return struct{}{}, b.Backend.NodeChanges(ctx, node, yield) },
		func(c *client.Client) (struct{}, error) {
			return struct{}{}, c.NodeChanges(ctx, node, func(change control.Change) {
				if more = more && yield(change); !more {
					cancel()
				}
			})
		})
	if !more {
		return nil
	}
	return err
}

// share are the nodes of one other server that a call is about.
type share struct {
	server cluster.ServerName
	nodes  []*cluster.Node
}

// others returns the nodes of a set ("" is all) that other servers serve, by server. The others are for local.
func (b *Backend) others(set string) (list []share, local string, err error) {
	now := b.Follow.Now()
	nodes := now.Cluster.Nodes
	if set != "" {
		if nodes, err = now.Select(set); err != nil {
			return nil, "", err
		}
	}
	at := map[cluster.ServerName]int{}
	var own []*cluster.Node
	for _, n := range nodes {
		s, ok := b.serverOf(string(n.Name))
		if !ok {
			own = append(own, n)
			continue
		}
		i, known := at[s]
		if !known {
			i = len(list)
			at[s], list = i, append(list, share{server: s})
		}
		list[i].nodes = append(list[i].nodes, n)
	}
	return list, cluster.Fold(own), nil
}

// gather makes a call about many nodes at all their servers. What of no server could be had is what failed returns.
func gather[T any](
	list []share, local func() ([]T, error), remote func(share) ([]T, error), failed func(share, error) T,
) ([]T, error) {
	answers := make([][]T, len(list))
	var calls sync.WaitGroup
	for i, s := range list {
		calls.Go(func() {
			var err error
			if answers[i], err = remote(s); err != nil {
				answers[i] = append(answers[i], failed(s, err))
			}
		})
	}
	own, err := local()
	calls.Wait()
	return slices.Concat(append([][]T{own}, answers...)...), err
}

// Check implements control.Backend. A server that does not answer is a problem of its nodes.
func (b *Backend) Check(ctx context.Context, set string) ([]control.CheckResult, error) {
	list, own, err := b.others(set)
	if err != nil || len(list) == 0 {
		return b.checkOwn(ctx, set, err)
	}
	return gather(list,
		func() ([]control.CheckResult, error) {
			if own == "" {
				return nil, nil
			}
			return b.Backend.Check(ctx, own)
		},
		func(s share) (all []control.CheckResult, err error) {
			for _, n := range s.nodes { // one at a time: a check may take longer than an answer may
				one, err := b.at(s.server).Check(ctx, string(n.Name))
				if err != nil {
					return all, err
				}
				all = append(all, one...)
			}
			return all, nil
		},
		func(s share, err error) control.CheckResult {
			return control.CheckResult{
				Node: cluster.Fold(s.nodes), Problems: []control.LayerProblem{{Text: err.Error()}},
			}
		})
}

func (b *Backend) checkOwn(ctx context.Context, set string, err error) ([]control.CheckResult, error) {
	if err != nil {
		return nil, err
	}
	return b.Backend.Check(ctx, set)
}

// Snapshots implements control.Backend. A server that does not answer is a Snapshot with a Problem and no image.
func (b *Backend) Snapshots(ctx context.Context, set string) ([]control.Snapshot, error) {
	list, own, err := b.others(set)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return b.Backend.Snapshots(ctx, set)
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return gather(list,
		func() ([]control.Snapshot, error) {
			if own == "" {
				return nil, nil
			}
			return b.Backend.Snapshots(ctx, own)
		},
		func(s share) ([]control.Snapshot, error) {
			return b.at(s.server).Snapshots(look, cluster.Fold(s.nodes))
		},
		func(s share, err error) control.Snapshot {
			return control.Snapshot{Node: cluster.Fold(s.nodes), Problem: err.Error()}
		})
}
