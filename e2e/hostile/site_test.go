package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"dim/internal/capture"
	"dim/internal/image"
	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// root is who calls: the node's superuser.
var root = &vfs.Cred{}

const secret = "what no node may read"

// site is an image server with two replicas: one is the node's own.
type site struct {
	dir      string
	versions []image.Version
	set      *replica.Set
	own      *replica.Replica
	other    *replica.Replica
	at       atomic.Int32
	addr     string
}

// Client, Current, Mount, Find and Paths give the node its own replica alone, as the daemon does.
func (s *site) Client(nfs.Peer) (nfs.Client, error)           { return s, nil }
func (s *site) Current() bool                                 { return true }
func (s *site) Mount(context.Context, string) (vfs.FS, error) { return s.own, nil }
func (s *site) Paths() []string                               { return nil }
func (s *site) Find(h vfs.Handle) (nfs.Export, error) {
	t, ok := replica.TreeOf(h)
	switch {
	case !ok:
		return nfs.Export{}, vfs.EBADHANDLE
	case t == s.own.Tree():
		return nfs.Export{FS: s.own}, nil
	case t == s.other.Tree():
		return nfs.Export{}, vfs.EACCES
	}
	return nfs.Export{}, vfs.ESTALE
}

func newSite(t testing.TB) *site {
	t.Helper()
	testkit.NeedRoot(t, "layers hold owners and devices")
	s := &site{dir: t.TempDir()}
	master, outside := filepath.Join(s.dir, "master"), s.outside()
	testkit.Must(t, errors.Join(os.MkdirAll(filepath.Join(master, "d/e"), 0o755), os.Mkdir(outside, 0o755),
		os.WriteFile(filepath.Join(outside, "secret"), []byte(secret), 0o600),
		os.WriteFile(filepath.Join(master, "d/f"), []byte("content"), 0o644),
		os.Link(filepath.Join(master, "d/f"), filepath.Join(master, "h")),
		os.Symlink("d/f", filepath.Join(master, "l"))))
	st, err := store.Open(filepath.Join(s.dir, "store"), store.Options{})
	testkit.Must(t, err)
	number := testkit.Counter()
	for i := range 2 {
		testkit.Must(t, errors.Join(os.WriteFile(filepath.Join(master, "d/a"), []byte(fmt.Sprint("version ", i)),
			0o644),
			os.WriteFile(filepath.Join(master, fmt.Sprint("only", i)), nil, 0o644)))
		res, err := capture.Run(context.Background(), st,
			capture.Options{Image: "compute", Dir: master, Reserve: number})
		testkit.Must(t, err)
		s.versions = append(s.versions, res.Version)
		testkit.Must(t, os.Remove(filepath.Join(master, fmt.Sprint("only", i))))
	}
	s.set, err = replica.Open(replica.Options{Dir: filepath.Join(s.dir, "replicas"), Source: st,
		Durability: replica.Relaxed})
	testkit.Must(t, err)
	s.own, err = s.set.Attach(replica.Spec{Node: "n01", Image: "compute", Version: s.versions[0]})
	testkit.Must(t, err)
	s.other, err = s.set.Attach(replica.Spec{Node: "n02", Image: "compute", Version: s.versions[0]})
	testkit.Must(t, err)
	s.serve(t)
	t.Cleanup(func() { testkit.Must(t, errors.Join(s.set.Close(), st.Close())) })
	return s
}

// outside is a directory beside the replicas.
func (s *site) outside() string { return filepath.Join(s.dir, "outside") }

func (s *site) serve(t testing.TB) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- oncrpc.NewServer(oncrpc.Options{}, nfs.New(s, nfs.Options{}).Programs()...).Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		testkit.Must(t, <-done)
	})
}

func (s *site) tree(t testing.TB) *nfsclient.Tree {
	t.Helper()
	c, err := nfsclient.Dial(context.Background(), s.addr)
	testkit.Must(t, err)
	t.Cleanup(func() { c.Close() })
	tree, err := c.Tree("/")
	testkit.Must(t, err)
	return tree
}

// flip switches the node's replica to the other version.
func (s *site) flip() error {
	to := s.versions[s.at.Add(1)%2]
	_, err := s.set.Switch(context.Background(), []replica.Move{{Replica: s.own, Version: to}})
	return err
}

// checkOutside checks that nothing outside of the node's layer has changed.
func (s *site) checkOutside(t testing.TB) {
	t.Helper()
	list, err := os.ReadDir(s.outside())
	testkit.Must(t, err)
	b, err := os.ReadFile(filepath.Join(s.outside(), "secret"))
	if len(list) != 1 || string(b) != secret || err != nil {
		t.Errorf("outside there are %v, and the secret is %q, %v", list, b, err)
	}
	if list, err := os.ReadDir(filepath.Join(s.dir, "replicas/n02")); err == nil {
		t.Errorf("the other node has a layer: %v", list)
	}
}
