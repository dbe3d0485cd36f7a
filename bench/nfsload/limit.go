package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"dim/internal/bootload"
)

// limit makes the changes of mode names in the local directory o.local, in this process and without a server.
// Each change is synced before the next, as RFC 1813 demands of a server. Each node has its own directory.
func limit(o *options, prepare, run func(*node) error) error {
	var nodes []*node
	m := newMeter()
	for i := range o.nodes {
		dir, err := os.MkdirTemp(o.local, "limit-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		n := newNode(o, i)
		n.Meter = m.Meter
		nodes = append(nodes, n)
		o.dirs = append(o.dirs, dir)
		if err := errors.Join(prepare(nodes[i]), syncDir(dir)); err != nil {
			return err
		}
	}
	m.begin(os.Getpid())
	err := each(nodes, run)
	m.end(os.Getpid())
	m.report(os.Stdout, o.mode+".1", len(nodes))
	return err
}

// at is the path of a file in the node's directory.
func (n *node) at(name string, i int) string {
	return filepath.Join(n.opt.dirs[n.Number], fmt.Sprintf("%s-%d", name, i))
}

// victims makes the files that names renames and removes.
func (n *node) victims() error {
	for i := range n.share(n.opt.calls) / 2 {
		if err := os.WriteFile(n.at("file", i), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// names makes the changes of mode names.
func (n *node) names() error {
	return n.Parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		err := n.change(func() error { return os.Rename(n.at("file", i), n.at("renamed", i)) })
		if err != nil {
			return err
		}
		return n.change(func() error { return os.Remove(n.at("renamed", i)) })
	})
}

// change makes one change of names.
func (n *node) change(f func() error) error {
	return n.Call(func() error { return errors.Join(f(), syncDir(n.opt.dirs[n.Number])) })
}

// bootChanges makes the changes that a server makes for the changes of a boot.
func (n *node) bootChanges() error {
	return n.Parallel(bootload.Creates, func(i int, _ *rand.Rand) (err error) {
		var f *os.File
		err = n.change(func() error {
			f, err = os.OpenFile(n.at("boot", i), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
			return err
		})
		if err != nil {
			return err
		}
		defer f.Close()
		err = n.Call(func() error {
			_, err := f.WriteAt(n.Block[:], 0)
			return err
		})
		if err == nil && i < bootload.Commits {
			err = n.Call(f.Sync)
		}
		if err == nil && i < bootload.Renames {
			err = n.change(func() error { return os.Rename(n.at("boot", i), n.at("new", i)) })
		}
		if err == nil && i >= bootload.Creates-bootload.Removes {
			err = n.change(func() error { return os.Remove(n.at("boot", i)) })
		}
		return err
	})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
