package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// limit is what mode names does, by this process on the local directory o.local and without any server: each rename and each removal is
// followed by an fsync of the directory, as RFC 1813 demands it of a server. Each node has a directory of its own.
func limit(o *options) error {
	var nodes []*node
	m := newMeter()
	for i := range o.nodes {
		dir, err := os.MkdirTemp(o.local, "limit-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		n := &node{opt: o, number: i, meter: m}
		nodes = append(nodes, n)
		o.dirs = append(o.dirs, dir)
		for f := range n.share(o.calls) / 2 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", f)), nil, 0o644); err != nil {
				return err
			}
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	m.begin(os.Getpid())
	err := each(nodes, (*node).limit)
	m.end(os.Getpid())
	m.report(os.Stdout, "limit.1", len(nodes))
	return err
}

func (n *node) limit() error {
	dir := n.opt.dirs[n.number]
	return n.parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		from, to := filepath.Join(dir, fmt.Sprintf("file-%d", i)), filepath.Join(dir, fmt.Sprintf("renamed-%d", i))
		err := n.meter.call(func() error { return errors.Join(os.Rename(from, to), syncDir(dir)) })
		if err != nil {
			return err
		}
		return n.meter.call(func() error { return errors.Join(os.Remove(to), syncDir(dir)) })
	})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
