package bootload

import (
	"fmt"
	"math/rand/v2"
	"path"

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
	Creates = 300 // files that are made, with a block each
	Commits = 100 // of these, which are committed
	Renames = 60  // of these, which get another name
	Removes = 40  // of these, which are removed

	bootCalls    = 10300
	bootBytes    = 140_000_000
	bootChunk    = 256 << 10
	bootListings = 100
	fileLimit    = 8 << 20 // larger files are no part of a boot
	maxFiles     = 1500
)

// File is a regular file of the tree that nodes boot from.
type File struct {
	Path   string   `json:"path"` // without a leading slash
	Size   int64    `json:"bytes"`
	Digest [32]byte `json:"sha256"` // SHA-256 of its content; zero where the content is compared in another way
}

// Shuffle brings files into an order that depends on the seed alone.
func Shuffle(files []File, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
}

// Sample returns the files that a node reads when it boots, out of shuffled ones.
func Sample(shuffled []File) (files []File) {
	var total int64
	const most = int64(bootBytes) / maxFiles
	for _, f := range shuffled {
		if len(files) == maxFiles || total >= bootBytes {
			break
		}
		// Take small files as they come, large ones while the average allows.
		if f.Size > 0 && f.Size <= fileLimit && (f.Size <= most || total+f.Size <= most*int64(len(files)+1)*2) {
			files = append(files, f)
			total += f.Size
		}
	}
	for _, f := range shuffled { // then add large ones
		if total >= bootBytes {
			break
		}
		if f.Size > 1<<20 && f.Size <= fileLimit {
			files = append(files, f)
			total += f.Size
		}
	}
	return files
}

// Boot makes the calls of a boot. All nodes read the same files, as those of a common image do, in another order each.
// sample has at least one file.
func (n *Node) Boot(sample []File) error {
	files := append([]File(nil), sample...)
	rng := rand.New(rand.NewPCG(n.Seed, uint64(n.Number)))
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	before := n.calls.Load()
	for _, step := range []func([]File) error{
		n.bootRead, n.bootList, n.bootWrite,
		func(files []File) error { return n.bootRest(files, bootCalls-int(n.calls.Load()-before)) },
	} {
		if err := step(files); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) bootRead(files []File) error {
	return n.Parallel(len(files), func(i int, _ *rand.Rand) error {
		h, err := n.Lookup(files[i].Path)
		if err != nil {
			return err
		}
		var a vfs.Attr
		err = n.Call(func() error {
			_, err := n.Tree.Access(&n.Cred, h, 0x3f, &a)
			return err
		})
		if err == nil {
			err = n.Call(func() error { return n.Tree.Attr(h, &a) })
		}
		if err != nil {
			return err
		}
		return n.Read(files[i], h, bootChunk)
	})
}

func (n *Node) bootList(files []File) error {
	return n.Parallel(bootListings, func(i int, _ *rand.Rand) error {
		dir, err := n.Lookup(path.Dir(files[i%len(files)].Path))
		if err != nil {
			return err
		}
		var page []vfs.DirEntry
		return n.Call(func() error {
			_, err := n.Tree.ReadDirPage(&n.Cred, dir, nfsclient.Page{Size: 64 << 10, Plus: vfs.WithAttr}, &page)
			return err
		})
	})
}

func (n *Node) bootWrite([]File) error {
	return n.Parallel(Creates, func(i int, _ *rand.Rand) error {
		name := fmt.Sprintf("boot-%d", i)
		h, err := n.Create(name)
		if err == nil && i < Commits {
			err = n.Commit(h)
		}
		if err == nil && i < Renames {
			err = n.Rename(name, name+".new")
		}
		if err == nil && i >= Creates-Removes {
			err = n.Remove(name)
		}
		return err
	})
}

func (n *Node) bootRest(files []File, count int) error {
	return n.Parallel(count, func(i int, rng *rand.Rand) error {
		h, err := n.Lookup(files[rng.IntN(len(files))].Path)
		if err != nil {
			return err
		}
		var a vfs.Attr
		return n.Call(func() error { return n.Tree.Attr(h, &a) })
	})
}
