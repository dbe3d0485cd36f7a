package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// file is a regular file of the local copy.
type file struct {
	path string // relative
	size int64
}

// node is one client with a connection of its own.
type node struct {
	opt    *options
	number int
	sample []file
	client *nfsclient.Client
	tree   *nfsclient.Tree
	meter  *meter
	own    vfs.Handle // its own directory
	cred   vfs.Cred   // root's
	block  [4096]byte // what it writes

	mu      sync.Mutex
	handles map[string]vfs.Handle
}

// chooseFiles lists the regular files of the local copy, in an order that depends on the seed alone.
func chooseFiles(o *options) (files []file, err error) {
	if o.local == "" {
		return nil, nil
	}
	err = filepath.WalkDir(o.local, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(o.local, path)
		files = append(files, file{rel, info.Size()})
		return err
	})
	rng := rand.New(rand.NewPCG(o.seed, 0))
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	return files, err
}

func startNodes(o *options, sample []file) (nodes []*node, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for i := range o.nodes {
		n := &node{opt: o, number: i, sample: sample, handles: make(map[string]vfs.Handle), meter: newMeter()}
		path := o.export
		if strings.Contains(path, "%") {
			path = fmt.Sprintf(path, i)
		}
		h, err := o.mount(ctx, i, path)
		for end := time.Now().Add(o.wait); err != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
			h, err = o.mount(ctx, i, path)
		}
		if err != nil {
			return nodes, fmt.Errorf("mount %s: %w", path, err)
		}
		if n.client, err = o.dial(ctx, i, o.addr); err != nil {
			return nodes, err
		}
		n.tree = n.client.TreeAt(h)
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (o *options) mount(ctx context.Context, i int, path string) (vfs.Handle, error) {
	c, err := o.dial(ctx, i, o.mountAddr)
	if err != nil {
		return vfs.Handle{}, err
	}
	defer c.Close()
	return c.Mount(path)
}

// dial connects from the address of node number i.
func (o *options) dial(ctx context.Context, i int, addr string) (*nfsclient.Client, error) {
	var d net.Dialer
	if o.from.IsValid() {
		ip := o.from
		for range i {
			ip = ip.Next()
		}
		d.LocalAddr = &net.TCPAddr{IP: ip.AsSlice()}
	}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return nfsclient.NewClient(nc), nil
}

func closeNodes(nodes []*node) {
	for _, n := range nodes {
		n.client.Close()
	}
}

// each runs f for all nodes at once.
func each(nodes []*node, f func(*node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// parallel runs f for 0 <= i < n with as many at a time as the node has calls in flight.
func (n *node) parallel(count int, f func(i int, rng *rand.Rand) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n.opt.inFlight)
	for w := range n.opt.inFlight {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(n.opt.seed, uint64(n.number)<<16|uint64(w)))
			for i := w; i < count && errs[w] == nil; i += n.opt.inFlight {
				errs[w] = f(i, rng)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// share is this node's part of all calls.
func (n *node) share(total int) int { return max(total/n.opt.nodes, 1) }

// lookup finds path by one LOOKUP for each component that it did not look up before.
func (n *node) lookup(path string) (h vfs.Handle, err error) {
	if path == "." || path == "" {
		return n.tree.Root(), nil
	}
	n.mu.Lock()
	h, known := n.handles[path]
	n.mu.Unlock()
	if known {
		return h, nil
	}
	dir, err := n.lookup(filepath.Dir(path))
	if err != nil {
		return h, err
	}
	var a vfs.Attr
	err = n.meter.call(func() (err error) {
		h, err = n.tree.Lookup(&n.cred, dir, filepath.Base(path), &a)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("lookup %s: %w", path, err)
	}
	n.mu.Lock()
	n.handles[path] = h
	n.mu.Unlock()
	return h, nil
}

// readAndCompare reads a whole file in READs of at most chunk bytes and compares it with the local copy, unless the
// answers are constant.
func (n *node) readAndCompare(f file, h vfs.Handle, chunk int) error {
	var local *os.File
	if !n.opt.constant {
		var err error
		if local, err = os.Open(filepath.Join(n.opt.local, f.path)); err != nil {
			return err
		}
		defer local.Close()
	}
	bufs, ok := n.opt.buffers.Get().(*[2][1 << 20]byte)
	if !ok {
		bufs = new([2][1 << 20]byte)
	}
	defer n.opt.buffers.Put(bufs)
	for off := int64(0); off < f.size; {
		p := bufs[0][:min(int64(chunk), f.size-off)]
		var got int
		err := n.meter.call(func() (err error) {
			got, _, err = n.tree.ReadOnce(&n.cred, h, p, uint64(off))
			return err
		})
		if err == nil && got == 0 {
			err = fmt.Errorf("nothing at %d of %d", off, f.size)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		if err := compare(local, p[:got], bufs[1][:got], off); err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		n.meter.read.Add(uint64(got))
		off += int64(got)
	}
	return nil
}

// compare compares what was read with what stands at off in local, if there is one.
func compare(local *os.File, got, want []byte, off int64) error {
	if local == nil {
		return nil
	}
	if _, err := local.ReadAt(want, off); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("bytes differ after %d", off)
	}
	return nil
}

// makeOwn makes the node's own directory.
func (n *node) makeOwn() error {
	parent, err := n.lookup(n.opt.scratch)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("nfsload-%d-%d", n.number, time.Now().UnixNano())
	made, err := n.tree.Mkdir(&n.cred, parent, name, &vfs.SetAttr{})
	n.own = made.Handle
	return err
}
