package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"

	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// sampleSize is how many names the modes with random names choose from.
const sampleSize = 2000

// lookupSample looks up the names that the node will use.
func (n *node) lookupSample() error {
	if len(n.sample) == 0 {
		return fmt.Errorf("-local names no files")
	}
	files := n.sample
	switch n.opt.mode {
	case "large":
		files = n.filter(func(f file) bool { return f.size > 1<<20 })
	case "small":
		files = n.filter(func(f file) bool { return f.size <= 64<<10 })
	}
	n.sample = files[:min(len(files), sampleSize)]
	if len(n.sample) == 0 {
		return fmt.Errorf("the tree has no files for mode %s", n.opt.mode)
	}
	return n.parallel(len(n.sample), func(i int, _ *rand.Rand) error {
		_, err := n.lookup(n.sample[i].path)
		return err
	})
}

func (n *node) filter(keep func(file) bool) (files []file) {
	for _, f := range n.sample {
		if keep(f) {
			files = append(files, f)
		}
	}
	return files
}

func (n *node) mix() error {
	return n.parallel(n.share(n.opt.calls), func(i int, rng *rand.Rand) error {
		path := n.sample[rng.IntN(len(n.sample))].path
		h, dir := n.handles[path], n.tree.Root()
		if d := filepath.Dir(path); d != "." {
			dir = n.handles[d]
		}
		var a vfs.Attr
		return n.meter.call(func() (err error) {
			switch i / n.opt.inFlight % 3 {
			case 0:
				var found vfs.Handle
				found, err = n.tree.Lookup(&n.cred, dir, filepath.Base(path), &a)
				if err == nil && found != h {
					err = fmt.Errorf("lookup %s: another handle than before", path)
				}
			case 1:
				err = n.tree.Attr(h, &a)
			default:
				_, err = n.tree.Access(&n.cred, h, 0x3f, &a)
			}
			return err
		})
	})
}

// walk reads all directories of the tree, those that other nodes walk, too.
func (n *node) walk() error {
	type found struct {
		dirs []vfs.Handle
		err  error
	}
	todo := []vfs.Handle{n.tree.Root()}
	results := make(chan found)
	for running := 0; len(todo) > 0 || running > 0; {
		for len(todo) > 0 && running < n.opt.inFlight {
			h := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			running++
			go func() {
				dirs, err := n.list(h)
				results <- found{dirs, err}
			}()
		}
		r := <-results
		running--
		if r.err != nil {
			for range running {
				<-results
			}
			return r.err
		}
		todo = append(todo, r.dirs...)
	}
	return nil
}

// first makes the first call of a node that has mounted its root.
func (n *node) first() error {
	_, err := n.list(n.tree.Root())
	return err
}

// list reads one directory by READDIRPLUS and returns its directories.
func (n *node) list(h vfs.Handle) (dirs []vfs.Handle, err error) {
	var cookie, verifier uint64
	for eof := false; !eof; {
		var page []vfs.DirEntry
		err := n.meter.call(func() (err error) {
			p := nfsclient.Page{Cookie: cookie, Verifier: &verifier, Size: 64 << 10, Plus: vfs.WithAttr}
			eof, err = n.tree.ReadDirPage(&n.cred, h, p, &page)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, de := range page {
			cookie = de.Cookie
			if de.Name == "." || de.Name == ".." {
				continue
			}
			n.meter.names.Add(1)
			if de.Attr.Type == vfs.Directory {
				dirs = append(dirs, de.Handle)
			}
		}
	}
	return dirs, nil
}

func (n *node) large() error {
	var left atomic.Int64
	left.Store(int64(n.share(n.opt.megabytes)) << 20)
	err := n.parallel(1<<30, func(i int, _ *rand.Rand) error {
		f := n.sample[i%len(n.sample)]
		if left.Add(-f.size) < -f.size {
			return errDone
		}
		return n.readAndCompare(f, n.handles[f.path], 1<<20)
	})
	if errors.Is(err, errDone) && onlyDone(err) {
		return nil
	}
	return err
}

// onlyDone reports whether all the joined errors are errDone.
func onlyDone(err error) bool {
	all, _ := err.(interface{ Unwrap() []error })
	for _, e := range all.Unwrap() {
		if e != errDone {
			return false
		}
	}
	return true
}

func (n *node) small() error {
	return n.parallel(n.share(n.opt.calls)/3, func(i int, rng *rand.Rand) error {
		f := n.sample[rng.IntN(len(n.sample))]
		h := n.handles[f.path]
		dir, err := n.lookup(filepath.Dir(f.path))
		if err != nil {
			return err
		}
		if err := n.touch(dir, f.path, h); err != nil {
			return err
		}
		n.meter.names.Add(1)
		return n.readAndCompare(f, h, 1<<20)
	})
}

// touch makes the LOOKUP and GETATTR that come before a READ.
func (n *node) touch(dir vfs.Handle, path string, h vfs.Handle) error {
	var a vfs.Attr
	err := n.meter.call(func() error {
		_, err := n.tree.Lookup(&n.cred, dir, filepath.Base(path), &a)
		return err
	})
	if err != nil {
		return err
	}
	return n.meter.call(func() error { return n.tree.Attr(h, &a) })
}

// create makes a file with 4 KiB in it.
func (n *node) create(name string) (vfs.Handle, error) {
	var made vfs.Made
	err := n.meter.call(func() (err error) {
		how := vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}}
		made, err = n.tree.Create(&n.cred, n.own, name, &how)
		return err
	})
	if err != nil {
		return made.Handle, fmt.Errorf("create %s: %w", name, err)
	}
	return made.Handle, n.meter.call(func() error {
		_, err := n.tree.Write(&n.cred, made.Handle, n.block[:], 0, vfs.Unstable)
		return err
	})
}

func (n *node) commit(h vfs.Handle) error {
	return n.meter.call(func() error {
		_, err := n.tree.Commit(&n.cred, h)
		return err
	})
}

func (n *node) createFiles() error {
	return n.parallel(n.share(n.opt.calls)/3, func(i int, _ *rand.Rand) error {
		h, err := n.create(fmt.Sprintf("file-%d", i))
		if err != nil {
			return err
		}
		n.meter.names.Add(1)
		return n.commit(h)
	})
}

func (n *node) makeVictims() error {
	if err := n.makeOwn(); err != nil {
		return err
	}
	return n.parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		_, err := n.tree.Create(&n.cred, n.own, fmt.Sprintf("file-%d", i), &vfs.Create{})
		return err
	})
}

func (n *node) renameAndRemove() error {
	return n.parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		from, to := fmt.Sprintf("file-%d", i), fmt.Sprintf("renamed-%d", i)
		if err := n.rename(from, to); err != nil {
			return err
		}
		return n.remove(to)
	})
}

func (n *node) rename(from, to string) error {
	return n.meter.call(func() error {
		_, err := n.tree.Rename(&n.cred, n.own, from, n.own, to)
		return err
	})
}

func (n *node) remove(name string) error {
	return n.meter.call(func() error {
		_, err := n.tree.Remove(&n.cred, n.own, name)
		return err
	})
}

func (n *node) syncWrites() error {
	made, err := n.tree.Create(&n.cred, n.own, "file", &vfs.Create{})
	if err != nil {
		return err
	}
	return n.parallel(n.share(n.opt.calls), func(i int, rng *rand.Rand) error {
		return n.meter.call(func() error {
			_, err := n.tree.Write(&n.cred, made.Handle, n.block[:], uint64(rng.IntN(1024))*4096, vfs.FileSync)
			return err
		})
	})
}
