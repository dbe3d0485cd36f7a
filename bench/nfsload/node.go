package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dim/internal/bootload"
	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// node is one client with a connection of its own.
type node struct {
	bootload.Node
	opt    *options
	sample []bootload.File
	client *nfsclient.Client
	own    []vfs.Handle // of mode own
}

// chooseFiles lists the regular files of the local copy, in an order that depends on the seed alone.
func chooseFiles(o *options) (files []bootload.File, err error) {
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
		files = append(files, bootload.File{Path: rel, Size: info.Size()})
		return err
	})
	bootload.Shuffle(files, o.seed)
	return files, err
}

func newNode(o *options, number int) *node {
	n := &node{opt: o}
	n.Number, n.Seed, n.InFlight, n.Meter = number, o.seed, o.inFlight, new(bootload.Meter)
	if !o.constant {
		n.Check = o.compare
	}
	return n
}

func startNodes(o *options, sample []bootload.File) (nodes []*node, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for i := range o.nodes {
		n := newNode(o, i)
		n.sample = sample
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
		n.Tree = n.client.TreeAt(h)
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

// share is this node's part of all calls.
func (n *node) share(total int) int { return max(total/n.opt.nodes, 1) }

// compare is bootload.Node.Check: it compares what is read with the local copy.
func (o *options) compare(f bootload.File) (io.WriteCloser, error) {
	local, err := os.Open(filepath.Join(o.local, f.Path))
	if err != nil {
		return nil, err
	}
	return &comparison{opt: o, local: local}, nil
}

// comparison compares what is written to it with a local file.
type comparison struct {
	opt   *options
	local *os.File
	at    int64
}

// Write implements io.Writer.
func (c *comparison) Write(got []byte) (int, error) {
	buf, ok := c.opt.buffers.Get().(*[1 << 20]byte)
	if !ok {
		buf = new([1 << 20]byte)
	}
	defer c.opt.buffers.Put(buf)
	want := buf[:len(got)]
	if _, err := c.local.ReadAt(want, c.at); err != nil {
		return 0, err
	}
	if !bytes.Equal(got, want) {
		return 0, fmt.Errorf("bytes differ after %d", c.at)
	}
	c.at += int64(len(got))
	return len(got), nil
}

// Close implements io.Closer.
func (c *comparison) Close() error { return c.local.Close() }

// makeOwn makes the node's own directory.
func (n *node) makeOwn() error {
	parent, err := n.Lookup(n.opt.scratch)
	if err != nil {
		return err
	}
	return n.MakeOwn(parent, fmt.Sprintf("nfsload-%d-%d", n.Number, time.Now().UnixNano()))
}
