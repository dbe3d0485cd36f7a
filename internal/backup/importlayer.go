package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
)

// ErrNoLayer means that a backup has no layer of a node over an image.
var ErrNoLayer = errors.New("it has no such layer")

// Imported is a layer of a backup that was made a snapshot of the node, from which the daemon can restore it.
type Imported struct {
	Stamp string // of the snapshot
	Layer Layer

	replicas, home string
}

// ImportLayer makes the layer of a node in the backup a snapshot of the node in a data directory. A daemon may serve
// the node meanwhile.
func (s *Stored) ImportLayer(ctx context.Context, data, node, name string) (*Imported, error) {
	for _, l := range s.Info.Layers {
		if l.Node == node && l.Image == name {
			i := &Imported{
				Stamp: layer.StampName(l.Moment), Layer: l, replicas: filepath.Join(data, "replicas"),
				home: node + "/" + name,
			}
			if err := i.run(ctx, s); err != nil {
				return nil, fmt.Errorf("take the layer of %s over %s from the backup: %w", node, name, err)
			}
			return i, nil
		}
	}
	return nil, fmt.Errorf("backup %s: node %s, image %s: %w", s.Dir, node, name, ErrNoLayer)
}

// path returns where the snapshot is.
func (i *Imported) path() string {
	return filepath.Join(i.replicas, layer.Home(i.home).Snapshots(i.Stamp))
}

// Remove removes the snapshot.
func (i *Imported) Remove() error { return removeTree(filepath.Dir(i.path()), i.Stamp) }

func (i *Imported) run(ctx context.Context, s *Stored) error {
	if err := checkPath(i.home); err != nil {
		return err
	}
	// The daemon removes what is here at its start.
	staging := filepath.Join(i.replicas, ".staged")
	tmp, err := os.MkdirTemp(mustMake(staging), "import-")
	if err != nil {
		return err
	}
	defer func() { _ = removeTree(staging, filepath.Base(tmp)) }()
	fd, err := unix.Open(tmp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := i.fill(ctx, s, layer.Dir(fd)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(i.path()), 0o700); err != nil {
		return err
	}
	return os.Rename(tmp, i.path())
}

func mustMake(dir string) string {
	_ = os.MkdirAll(dir, 0o700) // if it fails, so does what is made in it
	return dir
}

// fill writes the layer to an open directory.
func (i *Imported) fill(ctx context.Context, s *Stored, to layer.Dir) error {
	l := &layerImport{
		prefix: layersDir + "/" + i.home + "/upper", from: s.root,
		outside: map[string]*entry{}, moved: map[string]string{},
	}
	sink := newDirSink(to)
	sink.strip = l.prefix + "/"
	var err error
	if l.out, err = newRecorder(io.Discard, sink, &Info{}); err != nil {
		return err
	}
	err = s.entries(func(e *entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !strings.HasPrefix(e.path, layersDir+"/"+i.home+"/") {
			return nil
		}
		return l.add(e)
	})
	if err == nil && l.top == nil {
		err = ErrNoLayer
	}
	if err == nil {
		err = sink.finish()
	}
	if err == nil {
		err = l.top.setAttributes(int(to), ".")
	}
	if err != nil {
		return err
	}
	digest, _ := image.ParseDigest(i.Layer.Digest)
	info := layer.SnapshotInfo{Why: "restore", Files: i.Layer.Entries, Bytes: i.Layer.Bytes, Copied: i.Layer.Bytes}
	if i.Layer.Version > 0 {
		info.Over = []image.Version{{Image: i.Layer.Image, Number: i.Layer.Version, Digest: digest}}
	}
	return layer.At(int(to), ".").SetSnapshotInfo(&info)
}

// layerImport is the part of a backup that is one layer, without what was set aside.
type layerImport struct {
	prefix  string
	from    layer.Dir
	out     *recorder
	top     *entry
	outside map[string]*entry // files whose first name was set aside
	moved   map[string]string // the first name in the layer of these
}

func (l *layerImport) add(e *entry) error {
	switch {
	case e.path == l.prefix:
		l.top = e
	case !strings.HasPrefix(e.path, l.prefix+"/"):
		if e.kind != dirKind && e.hardLink == "" {
			l.outside[e.path] = e
		}
		return nil
	}
	path := e.path
	if first := l.outside[e.hardLink]; first != nil {
		link := *e
		if to, ok := l.moved[e.hardLink]; ok {
			link.hardLink = to
			e = &link
		} else {
			l.moved[e.hardLink] = e.path
			link = *first
			link.path = e.path
			path, e = first.path, &link
		}
	}
	if e.kind != fileKind || e.hardLink != "" {
		return l.out.add(e, nil)
	}
	want := e.digest
	err := l.out.add(e, &storedContent{root: l.from, path: path, size: e.size})
	if err == nil && e.digest != want {
		err = fmt.Errorf("%s is damaged: its content does not have the digest of the manifest", e.path)
	}
	return err
}
