package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"

	"dim/internal/bootload"
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
		files = n.filter(func(f bootload.File) bool { return f.Size > 1<<20 })
	case "small":
		files = n.filter(func(f bootload.File) bool { return f.Size <= 64<<10 })
	}
	n.sample = files[:min(len(files), sampleSize)]
	if len(n.sample) == 0 {
		return fmt.Errorf("the tree has no files for mode %s", n.opt.mode)
	}
	return n.Parallel(len(n.sample), func(i int, _ *rand.Rand) error {
		_, err := n.Lookup(n.sample[i].Path)
		return err
	})
}

// handle returns the handle of a path that was looked up before.
func (n *node) handle(path string) vfs.Handle {
	h, _ := n.Lookup(path)
	return h
}

func (n *node) filter(keep func(bootload.File) bool) (files []bootload.File) {
	for _, f := range n.sample {
		if keep(f) {
			files = append(files, f)
		}
	}
	return files
}

func (n *node) mix() error {
	return n.Parallel(n.share(n.opt.calls), func(i int, rng *rand.Rand) error {
		path := n.sample[rng.IntN(len(n.sample))].Path
		h, dir := n.handle(path), n.Tree.Root()
		if d := filepath.Dir(path); d != "." {
			dir = n.handle(d)
		}
		var a vfs.Attr
		return n.Call(func() (err error) {
			switch i / n.opt.inFlight % 3 {
			case 0:
				var found vfs.Handle
				found, err = n.Tree.Lookup(&n.Cred, dir, filepath.Base(path), &a)
				if err == nil && found != h {
					err = fmt.Errorf("lookup %s: another handle than before", path)
				}
			case 1:
				err = n.Tree.Attr(h, &a)
			default:
				_, err = n.Tree.Access(&n.Cred, h, 0x3f, &a)
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
	todo := []vfs.Handle{n.Tree.Root()}
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
	_, err := n.list(n.Tree.Root())
	return err
}

// list reads one directory by READDIRPLUS and returns its directories.
func (n *node) list(h vfs.Handle) (dirs []vfs.Handle, err error) {
	var cookie, verifier uint64
	for eof := false; !eof; {
		var page []vfs.DirEntry
		err := n.Call(func() (err error) {
			p := nfsclient.Page{Cookie: cookie, Verifier: &verifier, Size: 64 << 10, Plus: vfs.WithAttr}
			eof, err = n.Tree.ReadDirPage(&n.Cred, h, p, &page)
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
			n.Meter.Names.Add(1)
			if de.Attr.Type == vfs.Directory {
				dirs = append(dirs, de.Handle)
			}
		}
	}
	return dirs, nil
}

// errDone ends a parallel loop early.
var errDone = errors.New("done")

func (n *node) large() error {
	var left atomic.Int64
	left.Store(int64(n.share(n.opt.megabytes)) << 20)
	err := n.Parallel(1<<30, func(i int, _ *rand.Rand) error {
		f := n.sample[i%len(n.sample)]
		if left.Add(-f.Size) < -f.Size {
			return errDone
		}
		return n.Read(f, n.handle(f.Path), 1<<20)
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
	return n.Parallel(n.share(n.opt.calls)/3, func(i int, rng *rand.Rand) error {
		f := n.sample[rng.IntN(len(n.sample))]
		h := n.handle(f.Path)
		dir, err := n.Lookup(filepath.Dir(f.Path))
		if err != nil {
			return err
		}
		if err := n.touch(dir, f.Path, h); err != nil {
			return err
		}
		n.Meter.Names.Add(1)
		return n.Read(f, h, 1<<20)
	})
}

// touch makes the LOOKUP and GETATTR that come before a READ.
func (n *node) touch(dir vfs.Handle, path string, h vfs.Handle) error {
	var a vfs.Attr
	err := n.Call(func() error {
		_, err := n.Tree.Lookup(&n.Cred, dir, filepath.Base(path), &a)
		return err
	})
	if err != nil {
		return err
	}
	return n.Call(func() error { return n.Tree.Attr(h, &a) })
}

// writeOwn writes as many small files as the sample has, for mode own.
func (n *node) writeOwn() error {
	if err := n.makeOwn(); err != nil {
		return err
	}
	n.own = make([]vfs.Handle, sampleSize)
	return n.Parallel(sampleSize, func(i int, _ *rand.Rand) (err error) {
		n.own[i], err = n.Create(fmt.Sprintf("file-%d", i))
		return err
	})
}

// readOwn reads files back that the node wrote, with the calls that mode small makes.
func (n *node) readOwn() error {
	return n.Parallel(n.share(n.opt.calls)/3, func(_ int, rng *rand.Rand) error {
		i := rng.IntN(len(n.own))
		if err := n.touch(n.Own, fmt.Sprintf("file-%d", i), n.own[i]); err != nil {
			return err
		}
		n.Meter.Names.Add(1)
		return n.Call(func() error {
			p := make([]byte, len(n.Block))
			got, _, err := n.Tree.Read(&n.Cred, n.own[i], p, 0)
			if err == nil && got != len(n.Block) {
				err = fmt.Errorf("read %d bytes of file-%d", got, i)
			}
			return err
		})
	})
}

func (n *node) createFiles() error {
	return n.Parallel(n.share(n.opt.calls)/3, func(i int, _ *rand.Rand) error {
		h, err := n.Create(fmt.Sprintf("file-%d", i))
		if err != nil {
			return err
		}
		n.Meter.Names.Add(1)
		return n.Commit(h)
	})
}

func (n *node) makeVictims() error {
	if err := n.makeOwn(); err != nil {
		return err
	}
	return n.Parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		_, err := n.Tree.Create(&n.Cred, n.Own, fmt.Sprintf("file-%d", i), &vfs.Create{})
		return err
	})
}

func (n *node) renameAndRemove() error {
	return n.Parallel(n.share(n.opt.calls)/2, func(i int, _ *rand.Rand) error {
		from, to := fmt.Sprintf("file-%d", i), fmt.Sprintf("renamed-%d", i)
		if err := n.Rename(from, to); err != nil {
			return err
		}
		return n.Remove(to)
	})
}

func (n *node) syncWrites() error {
	made, err := n.Tree.Create(&n.Cred, n.Own, "file", &vfs.Create{})
	if err != nil {
		return err
	}
	return n.Parallel(n.share(n.opt.calls), func(i int, rng *rand.Rand) error {
		return n.Call(func() error {
			_, err := n.Tree.Write(&n.Cred, made.Handle, n.Block[:], uint64(rng.IntN(1024))*4096, vfs.FileSync)
			return err
		})
	})
}
