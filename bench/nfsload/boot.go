package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"dim/internal/nfs/nfsclient"
	"dim/internal/vfs"
)

// The calls of a node that boots, measured on a Debian with systemd: about 10,300.
//
//	files are read whole, 140 MB of them, in READs of at most 256 KiB, each after the LOOKUPs that
//	lead there, one ACCESS and one GETATTR (close-to-open); directories of the files are looked up once
//	100 READDIRPLUS
//	300 files are made: CREATE, WRITE of 4 KiB; 100 of them committed
//	60 RENAME, 40 REMOVE
//	the rest of the 10,300 calls are GETATTR
const (
	bootCalls     = 10300
	bootBytes     = 140_000_000
	bootChunk     = 256 << 10
	bootListings  = 100
	bootCreates   = 300
	bootCommits   = 100
	bootRenames   = 60
	bootRemoves   = 40
	bootFileLimit = 8 << 20 // larger files are no part of a boot
	bootFiles     = 1500    // at most
)

// errDone ends a parallel loop early.
var errDone = errors.New("done")

func (n *node) boot() error {
	files := n.bootSample()
	calls := new(meter) // the calls of this node, to stop when there were enough
	m := n.meter
	defer func() { n.meter = m }()
	n.meter = calls
	steps := []func() error{
		func() error { return n.bootRead(files) },
		func() error { return n.bootList(files) },
		n.bootWrite,
		func() error { return n.bootRest(files, bootCalls-int(calls.calls.Load())) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	m.merge(calls)
	return nil
}

// bootSample chooses the same files for every node, as a common image does, in another order for each.
func (n *node) bootSample() (files []file) {
	var total int64
	const most = int64(bootBytes) / bootFiles
	for _, f := range n.sample {
		if len(files) == bootFiles || total >= bootBytes {
			break
		}
		// Take small files as they come, large ones while the average allows.
		if f.size > 0 && f.size <= bootFileLimit && (f.size <= most || total+f.size <= most*int64(len(files)+1)*2) {
			files = append(files, f)
			total += f.size
		}
	}
	for _, f := range n.sample { // then add large ones
		if total >= bootBytes {
			break
		}
		if f.size > 1<<20 && f.size <= bootFileLimit {
			files = append(files, f)
			total += f.size
		}
	}
	rng := rand.New(rand.NewPCG(n.opt.seed, uint64(n.number)))
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	return files
}

func (n *node) bootRead(files []file) error {
	return n.parallel(len(files), func(i int, _ *rand.Rand) error {
		h, err := n.lookup(files[i].path)
		if err != nil {
			return err
		}
		var a vfs.Attr
		err = n.meter.call(func() error {
			_, err := n.tree.Access(&n.cred, h, 0x3f, &a)
			return err
		})
		if err == nil {
			err = n.meter.call(func() error { return n.tree.Attr(h, &a) })
		}
		if err != nil {
			return err
		}
		return n.readAndCompare(files[i], h, bootChunk)
	})
}

func (n *node) bootList(files []file) error {
	return n.parallel(bootListings, func(i int, _ *rand.Rand) error {
		dir, err := n.lookup(filepath.Dir(files[i%len(files)].path))
		if err != nil {
			return err
		}
		var page []vfs.DirEntry
		return n.meter.call(func() error {
			_, err := n.tree.ReadDirPage(&n.cred, dir, nfsclient.Page{Size: 64 << 10, Plus: vfs.WithAttr}, &page)
			return err
		})
	})
}

func (n *node) bootWrite() error {
	return n.parallel(bootCreates, func(i int, _ *rand.Rand) error {
		name := fmt.Sprintf("boot-%d", i)
		h, err := n.create(name)
		if err == nil && i < bootCommits {
			err = n.commit(h)
		}
		if err == nil && i < bootRenames {
			err = n.rename(name, name+".new")
		}
		if err == nil && i >= bootCreates-bootRemoves {
			err = n.remove(name)
		}
		return err
	})
}

func (n *node) bootRest(files []file, count int) error {
	return n.parallel(count, func(i int, rng *rand.Rand) error {
		h, err := n.lookup(files[rng.IntN(len(files))].path)
		if err != nil {
			return err
		}
		var a vfs.Attr
		return n.meter.call(func() error { return n.tree.Attr(h, &a) })
	})
}
