// Package bootload makes the calls of diskless nodes that boot, measures them, and verifies what is read. Benchmarks
// and the load test of a cluster use it.
//
// A Node is one client with calls in flight on a connection. Its Boot makes the calls that were recorded of a real
// boot. The other methods make single calls for other kinds of load.
//
// # Concurrency
//
// A Meter may be used by any number of goroutines, and so may the methods of a Node; its fields are set before.
//
// It must not know what an image is nor nodes of a cluster description.
package bootload

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"

	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// Node is one simulated node. The fields from Tree to Meter must be set; MakeOwn sets Own.
type Node struct {
	Number   int // makes its random choices differ from those of others
	Seed     uint64
	InFlight int // calls in flight
	Tree     *nfsclient.Tree
	Cred     vfs.Cred
	Meter    *Meter
	// Check returns a writer that is given all bytes of a file, in order. A Write or Close fails if they are not what
	// they should be. nil: nothing is compared.
	Check func(File) (io.WriteCloser, error)
	Own   vfs.Handle // directory in which Boot makes files
	Block [4096]byte // what is written

	calls atomic.Uint64

	mu      sync.Mutex
	handles map[string]vfs.Handle
}

// Call makes a call and measures it.
func (n *Node) Call(f func() error) error {
	n.calls.Add(1)
	return n.Meter.call(f)
}

// Parallel runs f for 0 <= i < count with as many at a time as the node has calls in flight.
func (n *Node) Parallel(count int, f func(i int, rng *rand.Rand) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n.InFlight)
	for w := range n.InFlight {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(n.Seed, uint64(n.Number)<<16|uint64(w)))
			for i := w; i < count && errs[w] == nil; i += n.InFlight {
				errs[w] = f(i, rng)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Lookup finds a path by one LOOKUP for each component that the node has not looked up before.
func (n *Node) Lookup(name string) (h vfs.Handle, err error) {
	if name == "." || name == "" {
		return n.Tree.Root(), nil
	}
	n.mu.Lock()
	h, known := n.handles[name]
	n.mu.Unlock()
	if known {
		return h, nil
	}
	dir, err := n.Lookup(path.Dir(name))
	if err != nil {
		return h, err
	}
	var a vfs.Attr
	err = n.Call(func() (err error) {
		h, err = n.Tree.Lookup(&n.Cred, dir, path.Base(name), &a)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("lookup %s: %w", name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handles == nil {
		n.handles = make(map[string]vfs.Handle)
	}
	n.handles[name] = h
	return h, nil
}

// Read reads a whole file in READs of at most chunk bytes, which are at most 1 MiB, and checks it.
func (n *Node) Read(f File, h vfs.Handle, chunk int) (err error) {
	var check io.WriteCloser
	if n.Check != nil {
		if check, err = n.Check(f); err != nil {
			return err
		}
	}
	buf := make([]byte, min(int64(chunk), f.Size))
	for off := int64(0); off < f.Size && err == nil; {
		p := buf[:min(int64(chunk), f.Size-off)]
		var got int
		err = n.Call(func() (err error) {
			got, _, err = n.Tree.ReadOnce(&n.Cred, h, p, uint64(off))
			return err
		})
		if err == nil && got == 0 {
			err = fmt.Errorf("nothing at %d of %d", off, f.Size)
		}
		if err == nil && check != nil {
			_, err = check.Write(p[:got])
		}
		n.Meter.Read.Add(uint64(got))
		off += int64(got)
	}
	if check != nil {
		err = errors.Join(err, check.Close())
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	return nil
}

// MakeOwn makes the node's own directory, which has a name that no other has, in parent.
func (n *Node) MakeOwn(parent vfs.Handle, name string) error {
	made, err := n.Tree.Mkdir(&n.Cred, parent, name, &vfs.SetAttr{})
	n.Own = made.Handle
	return err
}

// Create makes a file with a block of 4 KiB in the node's own directory.
func (n *Node) Create(name string) (vfs.Handle, error) {
	var made vfs.Made
	err := n.Call(func() (err error) {
		how := vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}}
		made, err = n.Tree.Create(&n.Cred, n.Own, name, &how)
		return err
	})
	if err != nil {
		return made.Handle, fmt.Errorf("create %s: %w", name, err)
	}
	return made.Handle, n.Call(func() error {
		_, err := n.Tree.Write(&n.Cred, made.Handle, n.Block[:], 0, vfs.Unstable)
		return err
	})
}

// Commit commits a file.
func (n *Node) Commit(h vfs.Handle) error {
	return n.Call(func() error {
		_, err := n.Tree.Commit(&n.Cred, h)
		return err
	})
}

// Rename gives a file in the node's own directory another name.
func (n *Node) Rename(from, to string) error {
	return n.Call(func() error {
		_, err := n.Tree.Rename(&n.Cred, n.Own, from, n.Own, to)
		return err
	})
}

// Remove removes a file in the node's own directory.
func (n *Node) Remove(name string) error {
	return n.Call(func() error {
		_, err := n.Tree.Remove(&n.Cred, n.Own, name)
		return err
	})
}
