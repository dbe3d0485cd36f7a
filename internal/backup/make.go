package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/store"
)

// Source gives what cannot be copied from the data directory as it is while a server runs. A *client.Client is one.
type Source interface {
	// BackupState brings the copy of the declared state on disk up to date, and returns what a backup needs besides it.
	BackupState(ctx context.Context) (control.BackupState, error)
	// Stage returns a copy of what a replica has on disk, which exists until release is called.
	Stage(ctx context.Context, r control.StageRequest) (s control.Staged, release func(), err error)
}

// Options of a backup. Data and Source are needed.
type Options struct {
	Data     string // the data directory
	Source   Source
	NoLayers bool // what nodes have written is left out
	NoStore  bool // the content of images is left out
	Program  string
	Progress func(control.Progress) // nil: nobody watches
}

// The parts of a data directory.
const (
	layersDir = dataDir + "/replicas"
	storeDir  = dataDir + "/store"

	partLayers = "layers"
	partStore  = "store"
)

// maker makes one backup.
type maker struct {
	Options
	ctx    context.Context
	info   *Info
	out    *recorder
	former *former
	data   layer.Dir
	began  time.Time
	part   string
	hollow bool   // files that the former backup has come without content
	total  uint64 // bytes that will be written, as far as it is known

	staged   map[string]bool // replicas that are in the backup
	segments []byte          // the journal of each of them at its moment
}

// Make makes a backup in dir, beside earlier ones, and returns its description. What is as in the latest of them is
// shared with it. A backup that lacks something is made all the same: Info.Complete is false then.
func Make(ctx context.Context, dir string, o Options) (path string, info *Info, err error) {
	d, err := newDestination(dir)
	if err != nil {
		return "", nil, fmt.Errorf("backup to %s: %w", dir, err)
	}
	defer d.close()
	f := loadFormer(dir)
	defer f.close()
	sink := newDirSink(d.root)
	sink.links = true
	info, err = o.make(ctx, d.manifest, sink, f)
	if err == nil {
		err = sink.finish()
	}
	if err == nil {
		path, err = d.commit(info)
	}
	if err != nil {
		return "", nil, fmt.Errorf("backup to %s: %w", dir, errors.Join(err, d.discard()))
	}
	return path, info, nil
}

// Stream writes a backup to w as a tar archive.
func Stream(ctx context.Context, w io.Writer, o Options) (info *Info, err error) {
	manifest, err := tempFile()
	if err != nil {
		return nil, err
	}
	defer manifest.Close()
	var problems []string
	sink := newTarSink(w, func(path string, err error) {
		problems = append(problems, fmt.Sprintf("%s: %v; the rest of it is zeros", path, err))
	})
	if info, err = o.make(ctx, manifest, sink, nil); err != nil {
		return nil, err
	}
	info.Problems = append(info.Problems, problems...)
	info.Complete = len(info.Problems) == 0
	b, err := info.encode()
	if err != nil {
		return nil, err
	}
	size, err := manifest.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = manifest.Seek(0, io.SeekStart)
	}
	at := image.Time{Sec: info.Ended.Unix()}
	if err == nil {
		err = sink.small(manifestName, uint64(size), manifest, at)
	}
	if err == nil {
		err = sink.small(infoName, uint64(len(b)), bytes.NewReader(b), at)
	}
	if err == nil {
		err = sink.end()
	}
	return info, err
}

// tempFile returns a file without a name.
func tempFile() (*os.File, error) {
	f, err := os.CreateTemp("", "dim-manifest-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// make gives everything to a sink.
func (o Options) make(ctx context.Context, manifest io.Writer, s sink, f *former) (*Info, error) {
	m := &maker{Options: o, ctx: ctx, former: f, began: time.Now(), staged: map[string]bool{}}
	m.info = &Info{Format: format, Program: o.Program, Began: m.began.UTC().Truncate(time.Second)}
	if m.Progress == nil {
		m.Progress = func(control.Progress) {}
	}
	var err error
	if m.out, err = newRecorder(manifest, s, m.info); err != nil {
		return nil, err
	}
	fd, err := unix.Open(o.Data, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: o.Data, Err: err}
	}
	m.data = layer.Dir(fd)
	defer unix.Close(fd)
	if parts, err := o.plan(ctx, f); err == nil { // what changes meanwhile is not worth a failure
		for _, p := range parts {
			m.total += p.New
		}
	}
	if err := m.all(); err != nil {
		return nil, err
	}
	m.info.Ended = time.Now().UTC().Truncate(time.Second)
	m.info.Complete = len(m.info.Problems) == 0
	m.info.Manifest = image.Digest(m.out.hash.Sum(nil))
	return m.info, nil
}

// all emits the parts. Layers come first, the declared state after them, and the store last: it then has every version
// that a layer or the state refers to. Nothing is removed from the store meanwhile.
func (m *maker) all() error {
	if !m.NoStore {
		_, release, err := store.OpenHeld(filepath.Join(m.Data, "store"))
		if err != nil {
			return err
		}
		defer release()
	}
	versions, err := m.versions()
	if err != nil {
		return err
	}
	if err := m.emitDir(".", dataDir); err != nil {
		return err
	}
	if err := m.layers(); err != nil {
		return err
	}
	if err := m.declared(); err != nil {
		return err
	}
	if m.NoStore {
		m.info.LeftOut = append(m.info.LeftOut, partStore)
		return nil
	}
	return m.store(versions)
}

func (m *maker) problem(path string, err error) {
	m.info.Problems = append(m.info.Problems, fmt.Sprintf("%s: %v", path, err))
}

// emit gives an entry to the recorder. Content that a former backup has is taken from there.
func (m *maker) emit(e *entry, c content) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	old := m.former.content(e)
	if old != nil {
		if !m.hollow {
			old.instead = c
		}
		c = old
	}
	err := m.out.add(e, c)
	if err == nil && old != nil && e.digest != old.digest {
		m.problem(e.path, errors.New("the backup before, which has it too, is damaged: its content has another digest"))
	}
	m.progress()
	return err
}

func (m *maker) progress() {
	m.Progress(control.Progress{
		Image: "backup", Stage: m.part, Started: m.began, Files: m.info.Entries, Bytes: m.info.Written,
		BytesTotal: m.total,
	})
}

// emitDir emits a directory of the data directory, without what is in it.
func (m *maker) emitDir(path, as string) error {
	fd, err := m.data.OpenDir(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	e, err := readDir(layer.Dir(fd), as)
	if err != nil {
		return err
	}
	return m.emit(e, nil)
}

// emitBytes emits a file that has no other of its kind on disk.
func (m *maker) emitBytes(path string, b []byte) error {
	e := &entry{path: path, kind: fileKind, mode: 0o600, size: uint64(len(b)), mtime: timeOf(m.began)}
	return m.emit(e, bytesContent(b))
}

// bytesContent is content in memory.
type bytesContent []byte

func (b bytesContent) extents() ([]image.Extent, error) {
	return []image.Extent{{Length: uint64(len(b))}}, nil
}

func (b bytesContent) each(write func([]byte, uint64) error) error { return write(b, 0) }

// layers emits what replicas have on disk, and a journal that has each of them as it was at its moment.
func (m *maker) layers() error {
	m.part = partLayers
	state, err := m.Source.BackupState(m.ctx)
	if err != nil {
		return err
	}
	m.info.Cluster, m.info.Server, m.info.Heads = state.Cluster, state.Server, state.Heads
	if m.NoLayers {
		m.info.LeftOut = append(m.info.LeftOut, partLayers)
		return nil
	}
	if err := m.emitDir("replicas", layersDir); err != nil {
		return err
	}
	// Replicas that appear meanwhile are taken too, but not for ever.
	for range 3 {
		fresh := slices.DeleteFunc(slices.Clone(state.Replicas), func(r string) bool { return m.staged[r] })
		for _, r := range fresh {
			if err := m.layer(r); err != nil {
				return err
			}
		}
		if state, err = m.Source.BackupState(m.ctx); err != nil {
			return err
		}
		if len(fresh) == 0 {
			break
		}
	}
	if state.Missing != "" {
		m.problem("state.json", errors.New("it may lack the latest changes: "+state.Missing))
	}
	if err := m.emitBytes(layersDir+"/switches.log", slices.Concat(state.Journal, m.segments)); err != nil {
		return err
	}
	return m.emitBytes(layersDir+"/format", []byte("1\n"))
}

// layer emits what one replica has on disk. If it cannot be had, the backup lacks it.
func (m *maker) layer(replica string) error {
	m.staged[replica] = true
	s, release, err := m.Source.Stage(m.ctx, control.StageRequest{Replica: replica, Known: m.former.known(replica)})
	if err != nil {
		if m.ctx.Err() == nil {
			m.problem("replicas/"+replica, err)
			return nil
		}
		return err
	}
	defer release()
	node, name, _ := strings.Cut(replica, "/")
	at := layersDir + "/" + node
	if !m.staged[node] {
		m.staged[node] = true
		if err := m.emit(&entry{path: at, kind: dirKind, mode: 0o700, mtime: timeOf(m.began)}, nil); err != nil {
			return err
		}
	}
	fd, err := m.data.OpenDir("replicas/" + s.Path)
	if err != nil {
		return fmt.Errorf("open the copy of %s: %w", replica, err)
	}
	defer unix.Close(fd)
	before := *m.info
	t := tree{
		root: layer.Dir(fd), prefix: at + "/" + name, skip: notKept, emit: m.emit, failed: m.problem,
		origins: s.InPlace,
	}
	m.hollow = !s.InPlace
	err = t.walk(".")
	m.hollow = false
	if err != nil {
		return err
	}
	m.segments = append(m.segments, s.Journal...)
	m.info.Layers = append(m.info.Layers, Layer{
		Node: node, Image: name, Version: s.Version, Digest: s.Digest, Moment: s.Time.UTC(), Held: s.Held,
		Entries: m.info.Entries - before.Entries, Bytes: m.info.Bytes - before.Bytes,
	})
	return nil
}

// notKept reports whether a path from a replica's directory is of no use elsewhere: what is being made or removed, and
// snapshots.
func notKept(path string) bool {
	h := layer.Home("")
	return strings.HasPrefix(path, h.Work()+"/") || path == h.Snapshots() || strings.HasPrefix(path, h.Saved()+"/#")
}

func timeOf(t time.Time) image.Time { return image.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} }
