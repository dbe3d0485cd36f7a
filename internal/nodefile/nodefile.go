// Package nodefile renders the node files: files that are rendered for each node on demand and stored nowhere. They are
// the templates of the cluster description, and built-in files with which an ordinary installation runs without a disk.
//
// # Concepts
//
// A Base has what all nodes of one image version have in common. A Set has the node files of one node. There is a
// built-in file if
//
//   - the version has a use for it,
//   - the description does not switch it off, and
//   - no <file> of the description has its path, or a path above or below it.
//
// # Invariants
//
//   - The same description, version and stamp give the same bytes on every server: the result does not depend on the
//     time, the machine or chance.
//   - Nothing is written into the image or the node's layer.
//
// # Concurrency
//
// A Base may be used by any number of goroutines. A Set does not change.
//
// # What it must not know
//
// How files are served, and where versions are stored. It reads a version through Reader.
package nodefile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
	"dim/internal/image"
)

// maxKept is the largest size of a file of one node that stays in memory. Larger files are rendered again when they are
// read.
const maxKept = 4096

// Reader reads the version below the node files. Errors for names that do not exist satisfy errors.Is(err,
// fs.ErrNotExist).
type Reader interface {
	// Entry returns the entry at name, which has no leading slash. It does not follow a link at name itself.
	Entry(name string) (image.Entry, error)

	// ReadFile returns the content of the file at name. It follows links within the version.
	ReadFile(name string) ([]byte, error)
}

// File is one node file of one node.
type File struct {
	Path   string // from the root, without a leading slash
	Mode   uint32
	UID    uint32
	GID    uint32
	Size   uint64
	Digest image.Digest // of the content
	Mtime  image.Time
	From   string // name of the built-in, or position of the template in the description
}

// Set is the node files of one node.
type Set struct {
	files    []File // by path
	contents []content
}

// content is the bytes of a file: kept or, if render is not nil, rendered again.
type content struct {
	kept   []byte
	render func() ([]byte, error)
}

// Files returns the node files, sorted by path. The caller must not change the list.
func (s *Set) Files() []File { return s.files }

// Content returns the bytes of the file at path, without I/O. The caller must not change them. The error is
// fs.ErrNotExist if there is no such node file.
func (s *Set) Content(path string) ([]byte, error) {
	i, ok := slices.BinarySearchFunc(s.files, path, func(f File, path string) int {
		return cmp.Compare(f.Path, path)
	})
	if !ok {
		return nil, fmt.Errorf("read node file /%s: %w", path, fs.ErrNotExist)
	}
	if c := s.contents[i]; c.render == nil {
		return c.kept, nil
	}
	b, err := s.contents[i].render()
	if err == nil && image.Sum(b) != s.files[i].Digest {
		err = errors.New("rendered again it has another content")
	}
	if err != nil {
		return nil, fmt.Errorf("read node file /%s: %w", path, err)
	}
	return b, nil
}

// Base is what the node files of all nodes of one version have in common.
type Base struct {
	cluster  *cluster.Cluster
	machines *Machines
	image    *cluster.Image
	lower    Reader
	stamp    image.Time

	version features
	common  []rendered // built-ins that are the same for all nodes

	mu        sync.Mutex
	templates map[*cluster.File]rendered // those that are the same for all nodes
}

// features is what the version has, as far as the built-ins depend on it.
type features struct {
	ifupdown       bool
	interfaces     []byte // etc/network/interfaces
	interfacesFile File   // owner and mode of that file
	networkManager bool
	networkd       bool // or only udev, which reads the same files
	waitOnline     bool
}

// rendered is a file with its content.
type rendered struct {
	File
	content content
}

// Prepare reads a version of image im. The files' modification time is stamp, which must be the same on every server
// and should not be in the future.
func Prepare(m *Machines, im *cluster.Image, lower Reader, stamp image.Time) (*Base, error) {
	b := &Base{
		cluster: m.cluster, machines: m, image: im, lower: lower, stamp: stamp,
		templates: map[*cluster.File]rendered{},
	}
	steps := []struct {
		name string
		make func() error
	}{
		{builtin.Hosts, b.addHosts},
		{builtin.Fstab, b.addFstabs},
		{builtin.Ifupdown, b.findIfupdown},
		{builtin.NetworkManager, b.findNetworkManager},
		{builtin.Networkd, b.findNetworkd},
	}
	for _, s := range steps {
		if im.DisabledBuiltins[s.name] {
			continue
		}
		if err := s.make(); err != nil {
			return nil, fmt.Errorf("prepare node files of %s: %s: %w", im.Name, s.name, err)
		}
	}
	return b, nil
}

// Node returns the node files of n.
func (b *Base) Node(n *cluster.Node) (*Set, error) {
	files := make([]rendered, 0, 16)
	for _, f := range b.image.Files {
		r, err := b.template(f, n)
		if err != nil {
			return nil, err
		}
		files = append(files, r)
	}
	files = append(files, b.common...)
	steps := []struct {
		name string
		make func(*cluster.Node) ([]rendered, error)
	}{
		{builtin.Hostname, b.hostname},
		{builtin.MachineID, b.machineID},
		{builtin.ResolvConf, b.resolvConf},
		{builtin.Ifupdown, b.interfaces},
		{builtin.NetworkManager, b.networkManager},
		{builtin.Networkd, b.networkd},
	}
	for _, s := range steps {
		if b.image.DisabledBuiltins[s.name] {
			continue
		}
		made, err := s.make(n)
		if err != nil {
			return nil, fmt.Errorf("make node files of %s: %s: %w", n.Name, s.name, err)
		}
		files = append(files, made...)
	}
	return b.newSet(files), nil
}

// newSet makes a Set. Of several files with one path it takes the first: the description's templates come before the
// built-ins. It leaves out a built-in below or above a template's path.
func (b *Base) newSet(files []rendered) *Set {
	files = slices.DeleteFunc(files, func(r rendered) bool {
		return slices.ContainsFunc(b.image.Files, func(f *cluster.File) bool {
			return r.From != f.Where && (r.Path == f.Path ||
				strings.HasPrefix(r.Path, f.Path+"/") || strings.HasPrefix(f.Path, r.Path+"/"))
		})
	})
	slices.SortStableFunc(files, func(a, b rendered) int { return cmp.Compare(a.Path, b.Path) })
	files = slices.CompactFunc(files, func(a, b rendered) bool { return a.Path == b.Path })
	s := &Set{files: make([]File, len(files)), contents: make([]content, len(files))}
	for i, r := range files {
		s.files[i], s.contents[i] = r.File, r.content
	}
	return s
}

// template renders a file of the description.
func (b *Base) template(f *cluster.File, n *cluster.Node) (rendered, error) {
	b.mu.Lock()
	r, ok := b.templates[f]
	b.mu.Unlock()
	if ok {
		return r, nil
	}
	out, err := f.Render(b.cluster, b.image, n)
	if err != nil {
		return rendered{}, err
	}
	r = b.file(f.Where, f.Path, out.Content)
	r.Mode, r.UID, r.GID = f.Mode, f.UID, f.GID
	switch {
	case out.Common:
		b.mu.Lock()
		b.templates[f] = r
		b.mu.Unlock()
	case len(out.Content) > maxKept:
		r.content = content{render: func() ([]byte, error) {
			again, err := f.Render(b.cluster, b.image, n)
			return again.Content, err
		}}
	}
	return r, nil
}

// file returns a file that belongs to root and that everybody may read.
func (b *Base) file(from, path string, text []byte) rendered {
	return rendered{
		File: File{
			Path: path, Mode: 0o644, Size: uint64(len(text)), Digest: image.Sum(text), Mtime: b.stamp, From: from,
		},
		content: content{kept: text},
	}
}

// replacement returns a file in place of one of the version, with the owner and mode of that one.
func (b *Base) replacement(from, path string, text []byte) (rendered, error) {
	r := b.file(from, path, text)
	e, ok, err := b.entry(path)
	if ok && e.Type == image.Regular {
		r.Mode, r.UID, r.GID = e.Mode, e.UID, e.GID
	}
	return r, err
}

// entry returns the version's entry at path, if there is one.
func (b *Base) entry(path string) (image.Entry, bool, error) {
	e, err := b.lower.Entry(path)
	if errors.Is(err, fs.ErrNotExist) {
		return image.Entry{}, false, nil
	}
	return e, err == nil, err
}

// has reports whether the version has one of the paths.
func (b *Base) has(paths ...string) (bool, error) {
	for _, p := range paths {
		if _, ok, err := b.entry(p); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// read returns the content of the version's file at path. ok is false if there is none, or only a dangling link.
func (b *Base) read(path string) (text []byte, ok bool, err error) {
	if _, ok, err := b.entry(path); !ok {
		return nil, false, err
	}
	text, err = b.lower.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return text, err == nil, err
}
