package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/pki"
	"dim/internal/sysfile"
)

// restoring is the name of a file that a data directory has while a backup is restored to it.
const restoring = "restoring"

// Restoration is what Verify and Restore read.
type Restoration struct {
	From     string                 // a directory with backups, or one backup
	Stream   io.Reader              // instead of From
	Progress func(control.Progress) // nil: nobody watches
}

// Verify reads a backup and compares all of it with its manifest. The error names the first difference.
func (r Restoration) Verify(ctx context.Context) (*Info, error) {
	info, err := r.to(ctx, checkSink{}, r.verifyStored)
	if err != nil {
		return nil, fmt.Errorf("verify backup: %w", err)
	}
	return info, nil
}

// Restore writes a backup to a new data directory, and verifies it meanwhile. The directory can be served when Restore
// has returned nil, and not before.
func (r Restoration) Restore(ctx context.Context, data string) (*Info, error) {
	t, err := newTarget(data)
	if err != nil {
		return nil, fmt.Errorf("restore to %s: %w", data, err)
	}
	defer t.close()
	info, err := r.to(ctx, t, func(s *Stored, out *recorder) error { return r.copyStored(ctx, s, out) })
	if err == nil {
		err = t.commit()
	}
	if err != nil {
		return nil, fmt.Errorf("restore to %s: %w", data, err)
	}
	return info, nil
}

// to gives a backup to a sink.
func (r Restoration) to(ctx context.Context, s sink, stored func(*Stored, *recorder) error) (*Info, error) {
	if r.Stream != nil {
		return r.stream(ctx, s)
	}
	b, err := OpenStored(r.From)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	out, err := newRecorder(io.Discard, s, &Info{})
	if err != nil {
		return nil, err
	}
	return b.Info, stored(b, out)
}

func (r Restoration) progress(began time.Time, stage string, done, all *Info) {
	if r.Progress == nil {
		return
	}
	p := control.Progress{Image: "backup", Stage: stage, Started: began, Files: done.Entries, Bytes: done.Bytes}
	if all != nil {
		p.FilesTotal, p.BytesTotal = all.Entries, all.Bytes
	}
	r.Progress(p)
}

// copyStored gives the entries of a backup in a directory to a recorder.
func (r Restoration) copyStored(ctx context.Context, s *Stored, out *recorder) error {
	began := time.Now()
	return s.entries(func(e *entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		want := e.digest
		var c content
		if e.kind == fileKind && e.hardLink == "" {
			c = &storedContent{root: s.root, path: e.path, size: e.size}
		}
		err := out.add(e, c)
		if err == nil && e.digest != want {
			err = fmt.Errorf("%s is damaged: its content does not have the digest of the manifest", e.path)
		}
		r.progress(began, "restore", out.info, s.Info)
		return err
	})
}

// verifyStored compares the files of a backup in a directory with its manifest.
func (r Restoration) verifyStored(s *Stored, out *recorder) error {
	began := time.Now()
	inodes := map[string]layer.Inode{} // of files with several names, by their first
	there := map[string]bool{}
	err := s.entries(func(e *entry) error {
		there[e.path] = true
		if err := s.compare(e, inodes); err != nil {
			return err
		}
		if e.kind == fileKind && e.hardLink == "" {
			want := e.digest
			c := &storedContent{root: s.root, path: e.path, size: e.size}
			if err := out.add(e, c); err != nil {
				return err
			}
			if e.digest != want {
				return fmt.Errorf("%s is damaged: its content does not have the digest of the manifest", e.path)
			}
		}
		r.progress(began, "verify", out.info, s.Info)
		return nil
	})
	if err != nil {
		return err
	}
	return s.surplus(there)
}

// compare compares an entry's attributes with those of the file.
func (s *Stored) compare(e *entry, inodes map[string]layer.Inode) error {
	i := strings.LastIndexByte(e.path, '/')
	parent := "."
	if i >= 0 {
		parent = e.path[:i]
	}
	dir, err := s.root.OpenDir(parent)
	if err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	defer unix.Close(dir)
	at := layer.At(dir, e.path[i+1:])
	var st unix.Stat_t
	if err := unix.Fstatat(dir, at.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
	if e.hardLink != "" {
		if first, ok := inodes[e.hardLink]; !ok || first != ino {
			return fmt.Errorf("%s is not the same file as %s", e.path, e.hardLink)
		}
		return nil
	}
	if st.Nlink > 1 && e.kind != dirKind {
		inodes[e.path] = ino
	}
	have, err := readEntry(at, e.path, &st)
	if err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	have.digest, have.origin = e.digest, e.origin
	have.dropLabel(e)
	if a, b := string(have.line()), string(e.line()); a != b {
		return fmt.Errorf("%s is not as in the manifest: it is %q, and was %q", e.path, strings.TrimSpace(a),
			strings.TrimSpace(b))
	}
	return nil
}

// dropLabel removes the label that this machine gives every file, if the entry that e is compared with has none.
func (e *entry) dropLabel(other *entry) {
	const label = "security.selinux"
	var mine []image.Xattr
	for _, x := range e.xattrs {
		if x.Name != label {
			mine = append(mine, x)
		}
	}
	for _, x := range other.xattrs {
		if x.Name == label {
			return
		}
	}
	e.xattrs = mine
}

// surplus reports a file that the manifest does not have.
func (s *Stored) surplus(there map[string]bool) error {
	t := tree{
		root: s.root, prefix: "", failed: func(string, error) {},
		emit: func(e *entry, _ content) error {
			if !there[e.path] {
				return fmt.Errorf("%s is not in the manifest", e.path)
			}
			return nil
		},
	}
	return t.walk(dataDir)
}

// stream gives the entries of a stream to a sink. The manifest at its end must be that of what was read.
func (r Restoration) stream(ctx context.Context, s sink) (*Info, error) {
	began := time.Now()
	made, err := tempFile()
	if err != nil {
		return nil, err
	}
	defer made.Close()
	w := bufio.NewWriterSize(made, 1<<20)
	out, err := newRecorder(w, s, &Info{})
	if err != nil {
		return nil, err
	}
	var info *Info
	var listed image.Digest
	err = readTar(ctx, r.Stream, func(m *member) error {
		switch {
		case info != nil:
			return errors.New("it comes after the end of the backup")
		case m.e != nil:
			err := out.add(m.e, m.c)
			r.progress(began, "read", out.info, nil)
			return err
		case m.name == manifestName:
			if err := w.Flush(); err != nil {
				return err
			}
			listed, err = compareManifests(m.from, made)
			return err
		}
		b, err := io.ReadAll(io.LimitReader(m.from, infoMax))
		if err == nil {
			info, err = parseInfo(b)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case info == nil:
		return nil, errors.New("the stream ends before the backup does: it is incomplete")
	case listed != info.Manifest || listed != image.Digest(out.hash.Sum(nil)):
		return nil, errors.New("the manifest is not the one that the backup was made with")
	}
	return info, nil
}

// compareManifests compares the manifest of a stream with the one that was made of what was read, and returns its
// digest.
func compareManifests(from io.Reader, made *os.File) (image.Digest, error) {
	if _, err := made.Seek(0, io.SeekStart); err != nil {
		return image.Digest{}, err
	}
	have := bufio.NewReaderSize(made, 1<<20)
	if _, err := have.Discard(len(firstLine)); err != nil {
		return image.Digest{}, err
	}
	digest, err := readManifest(from, func(e *entry) error {
		line, err := readLine(have)
		if want := e.line(); err != nil || string(line) != string(want) {
			return fmt.Errorf("%s is damaged: the stream has %q, and the manifest %q", e.path,
				strings.TrimSpace(string(line)), strings.TrimSpace(string(want)))
		}
		return nil
	})
	if err == nil {
		if _, more := have.ReadByte(); more == nil {
			err = errors.New("the stream has entries that the manifest does not have")
		}
	}
	return digest, err
}

// target is a data directory that a backup is restored to.
type target struct {
	dirSink
	data   string
	marker *os.File
	format []byte // of the data directory: it is written last
}

var errNotEmpty = errors.New("it is not empty")

// newTarget makes the directory, or empties what a restore that did not end has left.
func newTarget(data string) (*target, error) {
	if err := pki.Check(data); !errors.Is(err, pki.ErrNotInitialised) {
		if err == nil {
			err = errors.New("it is initialised already: a backup is restored to a new directory, named by --data")
		}
		return nil, err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(data)
	if err != nil {
		return nil, err
	}
	begun := false
	for _, e := range names {
		begun = begun || e.Name() == restoring
	}
	for _, e := range names {
		if !begun && e.Name() != "lost+found" {
			return nil, fmt.Errorf("%w: it contains %s", errNotEmpty, e.Name())
		}
	}
	t := &target{data: data}
	t.marker, err = os.OpenFile(filepath.Join(data, restoring), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(t.marker.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.marker.Close()
		return nil, errors.New("another backup is being restored to it")
	}
	for _, e := range names {
		if e.Name() != restoring && e.Name() != "lost+found" && err == nil {
			err = removeTree(data, e.Name())
		}
	}
	if err == nil {
		err = os.Chmod(data, 0o700)
	}
	fd := -1
	if err == nil {
		fd, err = unix.Open(data, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		t.marker.Close()
		return nil, err
	}
	t.dirSink = *newDirSink(layer.Dir(fd))
	t.strip = dataDir + "/"
	return t, nil
}

// formatMax bounds DATA/format in bytes.
const formatMax = 64

// add implements sink.
func (t *target) add(e *entry, c content) (uint64, error) {
	name := strings.TrimPrefix(e.path, t.strip)
	switch {
	case name == "format" && e.kind == fileKind && c != nil && e.size <= formatMax:
		h := newHasher(e.size)
		err := c.each(func(b []byte, off uint64) error {
			t.format = append(t.format, b...)
			return h.write(b, off)
		})
		e.digest = h.sum()
		return 0, err
	case !strings.Contains(name, "/") && (name == "format" || name == restoring || name == "lock"):
		return 0, errors.New("no backup has this name")
	}
	return t.dirSink.add(e, c)
}

// commit makes the directory a data directory.
func (t *target) commit() error {
	if len(t.format) == 0 {
		return errors.New("the backup lacks data/format")
	}
	for _, part := range []string{"replicas", "store", "coord", "cache"} {
		if err := os.Mkdir(filepath.Join(t.data, part), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := t.finish(); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(t.data, "format"), t.format, 0o600); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(t.data, restoring)); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(t.data), durable.SyncDir(filepath.Dir(filepath.Clean(t.data))))
}

func (t *target) close() {
	t.dirSink.close()
	unix.Close(int(t.root))
	_ = sysfile.Unlock(t.marker)
}
