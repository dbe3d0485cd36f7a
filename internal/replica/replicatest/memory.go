// Package replicatest has what tests of replicas and of their layers share: versions in memory, operations by path on a
// file tree, and random histories that are compared with the kernel's overlayfs. It is for tests only; no program
// imports it.
//
// It must not know package replica, whose own tests use it.
package replicatest

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// Memory is a replica.Source: trees in memory, blobs in a directory.
type Memory struct {
	dir string

	mu    sync.Mutex
	trees map[image.Digest]image.Tree
	reads int // of trees
}

// NewMemory returns a Memory without versions.
func NewMemory(t testing.TB) *Memory {
	return &Memory{dir: t.TempDir(), trees: make(map[image.Digest]image.Tree)}
}

// Tree implements replica.Source.
func (m *Memory) Tree(d image.Digest) (image.Tree, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	t, ok := m.trees[d]
	if !ok {
		return nil, errors.New("no such tree")
	}
	return t, nil
}

// TreeInto implements replica.Source.
func (m *Memory) TreeInto(d image.Digest, room image.Tree) (image.Tree, error) {
	t, err := m.Tree(d)
	return append(room[:0], t...), err
}

// OpenBlob implements replica.Source.
func (m *Memory) OpenBlob(d image.Digest) (*os.File, error) {
	return os.Open(filepath.Join(m.dir, d.String()))
}

// Version makes version number of image "compute" from entries, whose directories need not be listed before what is in
// them.
func (m *Memory) Version(t testing.TB, number int, entries []vfstest.Entry) image.Version {
	t.Helper()
	b := treeBuilder{
		t: t, m: m, kids: make(map[string][]vfstest.Entry), links: make(map[string][]string),
		all: make(map[string]vfstest.Entry),
	}
	for _, e := range entries {
		b.all[e.Path] = e
		up := path.Dir(e.Path)
		if up == "." {
			up = ""
		}
		if e.Path != "" {
			b.kids[up] = append(b.kids[up], e)
		}
		target := e.Path
		if e.LinkTo != "" {
			target = e.LinkTo
		}
		b.links[target] = append(b.links[target], e.Path)
	}
	root := image.Entry{Type: image.Directory, Mode: 0o755, Mtime: image.Time{Sec: 1000}}
	if e, ok := b.all[""]; ok {
		root.Mode, root.UID, root.GID, root.Mtime = e.Mode, e.UID, e.GID, image.Time(e.Mtime)
	}
	root.Digest = b.tree("")
	enc, err := root.EncodeRoot()
	if err != nil {
		t.Fatal(err)
	}
	return image.Version{
		Image: "compute", Number: number, Root: root, Digest: image.Sum(enc), Files: b.files,
		Created: time.Unix(2000, 0),
	}
}

type treeBuilder struct {
	t     testing.TB
	m     *Memory
	all   map[string]vfstest.Entry
	kids  map[string][]vfstest.Entry
	links map[string][]string
	files uint64
}

func (b *treeBuilder) tree(dir string) image.Digest {
	b.t.Helper()
	var tree image.Tree
	for _, e := range b.kids[dir] {
		b.files++
		tree = append(tree, b.entry(e))
	}
	slices.SortFunc(tree, func(a, b image.Entry) int { return strings.Compare(a.Name, b.Name) })
	enc, err := tree.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	d := image.Sum(enc)
	b.m.mu.Lock()
	b.m.trees[d] = tree
	b.m.mu.Unlock()
	return d
}

func (b *treeBuilder) entry(e vfstest.Entry) image.Entry {
	b.t.Helper()
	p := e.Path
	group := b.links[p]
	if e.LinkTo != "" {
		group = b.links[e.LinkTo]
		e = b.all[e.LinkTo]
	}
	o := image.Entry{Name: path.Base(p), Mode: e.Mode, UID: e.UID, GID: e.GID, Mtime: image.Time(e.Mtime), Nlink: 1}
	for k, v := range e.Xattrs {
		o.Xattrs = append(o.Xattrs, image.Xattr{Name: k, Value: []byte(v)})
	}
	slices.SortFunc(o.Xattrs, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) })
	if len(group) > 1 {
		o.Nlink, o.Link = uint32(len(group)), slices.MinFunc(group, image.ComparePaths)
	}
	switch e.Type {
	case vfs.Regular:
		o.Type = image.Regular
		b.content(e, &o)
	case vfs.Directory:
		o.Type, o.Digest, o.Nlink = image.Directory, b.tree(p), 0
	case vfs.Symlink:
		o.Type, o.Target, o.Mode = image.Symlink, e.Target, 0o777
	case vfs.CharDevice:
		o.Type, o.Major, o.Minor = image.CharDevice, e.Major, e.Minor
	case vfs.BlockDevice:
		o.Type, o.Major, o.Minor = image.BlockDevice, e.Major, e.Minor
	case vfs.FIFO:
		o.Type = image.FIFO
	default:
		b.t.Fatalf("a version cannot hold %s", p)
	}
	return o
}

func (b *treeBuilder) content(e vfstest.Entry, o *image.Entry) {
	b.t.Helper()
	content := []byte(e.Content)
	if e.Size > uint64(len(content)) {
		if len(content) > 0 {
			o.Data = []image.Extent{{Length: uint64(len(content))}}
		} else {
			o.Data = []image.Extent{}
		}
		content = append(content, make([]byte, e.Size-uint64(len(content)))...)
	}
	o.Size, o.Digest = uint64(len(content)), image.Sum(content)
	name := filepath.Join(b.m.dir, o.Digest.String())
	if _, err := os.Stat(name); err == nil {
		return
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}
