package nfs_test

import (
	"sync/atomic"
	"testing"

	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// revised is Exports that counts how often it was asked for a Client, and whose Clients are current until the
// revision changes.
type revised struct {
	trees
	asked    atomic.Int32
	revision atomic.Int32
}

type revisedClient struct {
	*revised
	of int32
}

func (r *revised) Client(nfs.Peer) (nfs.Client, error) {
	r.asked.Add(1)
	return revisedClient{r, r.revision.Load()}, nil
}

func (c revisedClient) Current() bool { return c.revision.Load() == c.of }

func (c revisedClient) Find(h vfs.Handle) (nfs.Export, error) {
	if c.of > 1 {
		return nfs.Export{}, vfs.EACCES
	}
	return c.trees.Find(h)
}

func TestAClientIsResolvedOncePerConnectionAndAfterEachChange(t *testing.T) {
	e := &revised{trees: trees{"/export": directory(t, t.TempDir())}}
	addr, _ := serve(t, e, nfs.Options{}, oncrpc.Options{})
	first, second := dial(t, addr), dial(t, addr)
	root := e.trees["/export"].Root()
	call := func() error { return first.TreeAt(root).Attr(root, &vfs.Attr{}) }
	for range 5 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.asked.Load(); n != 1 {
		t.Errorf("asked %d times for five calls of one connection", n)
	}
	if err := second.TreeAt(root).Attr(root, &vfs.Attr{}); err != nil || e.asked.Load() != 2 {
		t.Errorf("asked %d times with a second connection: %v", e.asked.Load(), err)
	}
	e.revision.Store(1)
	for range 5 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.asked.Load(); n != 3 {
		t.Errorf("asked %d times after a change", n)
	}
	e.revision.Store(2)
	if err := call(); err != vfs.EACCES {
		t.Errorf("after the client lost its right to the tree: %v", err)
	}
}
