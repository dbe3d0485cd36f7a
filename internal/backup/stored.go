package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
)

// Stored is a backup in a directory.
type Stored struct {
	Dir  string
	Info *Info

	root layer.Dir
}

// errNone means that a directory has no backup.
var errNone = errors.New("it has no backup: name the directory that dim backup was given, or a backup in it")

// incomplete begins the name of a backup that is being made. Any other name is a time, as in layer.StampName.
const incomplete = "incomplete-"

// List returns the names of the backups in a directory that have a description, the latest first.
func List(dir string) ([]string, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range names {
		_, err := layer.ParseStamp(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), infoName)); err == nil {
			list = append(list, e.Name())
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list, nil
}

// OpenStored opens the backup that dir is, or the latest one in it. The error is errNone if there is none.
func OpenStored(dir string) (*Stored, error) {
	if _, err := os.Lstat(filepath.Join(dir, infoName)); errors.Is(err, fs.ErrNotExist) {
		names, err := List(dir)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("open backup %s: %w", dir, errNone)
		}
		dir = filepath.Join(dir, names[0])
	}
	b, err := readBounded(filepath.Join(dir, infoName), infoMax)
	if err != nil {
		return nil, err
	}
	s := &Stored{Dir: dir}
	if s.Info, err = parseInfo(b); err != nil {
		return nil, fmt.Errorf("open backup %s: %w", dir, err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	s.root = layer.Dir(fd)
	return s, err
}

// Close closes the directory.
func (s *Stored) Close() error { return unix.Close(int(s.root)) }

func readBounded(path string, most int64) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > most {
		return nil, fmt.Errorf("%s: it is no file of at most %d bytes", path, most)
	}
	return os.ReadFile(path)
}

// entries calls each with every entry of the manifest, whose digest must be the one of the description.
func (s *Stored) entries(each func(*entry) error) error {
	f, err := os.Open(filepath.Join(s.Dir, manifestName))
	if err != nil {
		return err
	}
	defer f.Close()
	digest, err := readManifest(f, each)
	if err == nil && digest != s.Info.Manifest {
		err = fmt.Errorf("the manifest is not the one that the backup was made with: its digest is %s", digest.Short())
	}
	if err != nil {
		return fmt.Errorf("backup %s: %w", s.Dir, err)
	}
	return nil
}

// storedContent is the content of a file of a backup.
type storedContent struct {
	root   layer.Dir
	path   string
	size   uint64
	digest image.Digest

	copyOnly bool    // its attributes are others than those that are wanted
	instead  content // the same content, if it cannot be shared; nil: there is none
}

// at opens the directory that the file is in.
func (c *storedContent) at() (dir int, name string, err error) {
	i := strings.LastIndexByte(c.path, '/')
	dir, err = c.root.OpenDir(c.path[:max(i, 0)])
	return dir, c.path[i+1:], err
}

// link makes another name of the file.
func (c *storedContent) link(dir int, name string) error {
	if len(c.path) < unix.PathMax {
		return unix.Linkat(int(c.root), c.path, dir, name, 0)
	}
	from, old, err := c.at()
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, old, dir, name, 0)
}

// use calls do with the open file.
func (c *storedContent) use(do func(*fileContent) error) error {
	dir, name, err := c.at()
	if err != nil {
		return c.lost(err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.lost(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return c.lost(err)
	}
	if uint64(st.Size) != c.size || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return c.lost(fmt.Errorf("it is no file of %d bytes", c.size))
	}
	return do(&fileContent{fd: fd, size: c.size})
}

// lost is the error of a backup that is damaged. A missing file of it is none that has vanished from the server.
func (c *storedContent) lost(err error) error {
	return &readError{fmt.Errorf("read %s of a backup: %v", c.path, err)}
}

func (c *storedContent) extents() (list []image.Extent, err error) {
	if c.instead != nil {
		return c.instead.extents()
	}
	err = c.use(func(f *fileContent) error { list, err = f.extents(); return err })
	return list, err
}

func (c *storedContent) each(write func(b []byte, off uint64) error) error {
	if c.instead != nil {
		return c.instead.each(write)
	}
	return c.use(func(f *fileContent) error { return f.each(write) })
}

// former is what a former backup offers to the next one.
type former struct {
	root     layer.Dir
	origins  map[origin]*entry
	objects  map[string]*entry // of the store, by path
	perLayer map[string][]byte // the origins of each replica, one after the other
}

// loadFormer reads the latest backup in a directory that can be read; nil: there is none.
func loadFormer(dir string) *former {
	names, err := List(dir)
	if err != nil {
		return nil
	}
	for _, name := range names {
		s, err := OpenStored(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		f := &former{
			root: s.root, origins: map[origin]*entry{}, objects: map[string]*entry{}, perLayer: map[string][]byte{},
		}
		err = s.entries(func(e *entry) error {
			switch {
			case e.kind != fileKind || e.hardLink != "":
			case e.origin != nil:
				f.origins[*e.origin] = e
				replica := replicaOf(e.path)
				f.perLayer[replica] = append(f.perLayer[replica], e.origin[:]...)
			case strings.HasPrefix(e.path, storeDir+"/trees/"), strings.HasPrefix(e.path, storeDir+"/blobs/"):
				f.objects[e.path] = e
			}
			return nil
		})
		if err == nil {
			return f
		}
		s.Close()
	}
	return nil
}

func (f *former) close() {
	if f != nil {
		unix.Close(int(f.root))
	}
}

// content returns what the former backup has of a file: an object of the store, or a file of a layer with the same
// origin; nil if it has nothing. Of the latter a staged copy has no content.
func (f *former) content(e *entry) *storedContent {
	if f == nil || e.kind != fileKind || e.hardLink != "" {
		return nil
	}
	old := f.objects[e.path]
	if e.origin != nil {
		old = f.origins[*e.origin]
	}
	if old == nil || old.size != e.size {
		return nil
	}
	same := old.mtime == e.mtime && old.mode == e.mode && old.uid == e.uid && old.gid == e.gid &&
		slices.EqualFunc(old.xattrs, e.xattrs, func(a, b image.Xattr) bool {
			return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
		})
	return &storedContent{root: f.root, path: old.path, size: old.size, digest: old.digest, copyOnly: !same}
}

// known returns the origins of the files of a replica's layer that the former backup has, for control.StageRequest.
func (f *former) known(replica string) []byte {
	if f == nil || len(f.perLayer[replica]) > knownMax {
		return nil
	}
	return f.perLayer[replica]
}

// knownMax bounds what is sent: two million files, 43 MB in base64.
const knownMax = 2_000_000 * len(origin{})

// replicaOf returns NODE/IMAGE of a path in a backup's layers.
func replicaOf(path string) string {
	parts := strings.SplitN(strings.TrimPrefix(path, layersDir+"/"), "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}
