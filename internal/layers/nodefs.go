package layers

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/replica"
	"dim/internal/vfs"
)

// nodeFS is what a node has as its root, without its node files: the layer below top over a version. It does not follow
// symbolic links of the layer. It is valid as long as the replica is locked.
type nodeFS struct {
	top     replica.LayerEntry
	version fs.FS
}

// at returns what the layer has at name. hidden reports that the version's entry does not show.
func (n nodeFS) at(name string) (entry replica.LayerEntry, has, hidden bool) {
	if name == "." {
		return n.top, true, false
	}
	for end := range len(name) + 1 {
		if end < len(name) && name[end] != '/' {
			continue
		}
		next, ok := n.top.At(name[:end])
		if !ok {
			return entry, false, hidden
		}
		entry = next
		last := end == len(name)
		isDir := entry.Kind() == vfs.Directory
		hidden = hidden || entry.Whiteout() || entry.Kind() != 0 && !isDir || isDir && entry.Opaque() && !last
	}
	return entry, entry.Kind() != 0, hidden
}

// nodeFileMax is the size in bytes of the largest file that is read for a node: nodes are not trusted.
const nodeFileMax = 128 << 20

// nodeDirMax is how many entries of the layer the largest directory has that is listed for a node.
const nodeDirMax = 1 << 17

var (
	errTooLarge = errors.New("larger than 128 MiB")
	errTooMany  = errors.New("more than 131072 entries")
)

// Open implements fs.FS.
func (n nodeFS) Open(name string) (fs.File, error) {
	entry, has, hidden := n.at(name)
	if !has || entry.Kind() == vfs.Directory {
		if hidden || n.version == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return n.version.Open(name)
	}
	if entry.Kind() != vfs.Regular {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	at, release, err := entry.Open()
	if err != nil {
		return nil, err
	}
	defer release()
	var st unix.Stat_t
	if err := unix.Fstatat(at.FD, at.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if st.Size > nodeFileMax {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errTooLarge}
	}
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	fd, err := unix.Openat(at.FD, at.Name, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadDir implements fs.ReadDirFS.
func (n nodeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entry, has, hidden := n.at(name)
	if hidden && !has {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var list []fs.DirEntry
	if !hidden && !(has && entry.Opaque()) {
		below, err := fs.ReadDir(n.version, name)
		if err != nil && !(has && errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		list = below
	}
	if !has {
		return list, nil
	}
	covered, mine := map[string]bool{}, []fs.DirEntry{}
	for own := range entry.Entries() {
		base := baseName(own.Path())
		covered[base] = own.Whiteout() || own.Kind() != 0
		if own.Kind() != 0 {
			mine = append(mine, nodeEntry{name: base, kind: own.Kind()})
		}
		if len(covered) > nodeDirMax {
			return nil, &fs.PathError{Op: "readdir", Path: name, Err: errTooMany}
		}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(e fs.DirEntry) bool { return covered[e.Name()] })
	return append(list, mine...), nil
}

// ReadLink implements fs.ReadLinkFS.
func (n nodeFS) ReadLink(name string) (string, error) {
	entry, has, hidden := n.at(name)
	if has && entry.Kind() == vfs.Symlink {
		at, release, err := entry.Open()
		if err != nil {
			return "", err
		}
		defer release()
		return at.Target()
	}
	if has || hidden {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return fs.ReadLink(n.version, name)
}

// Lstat implements fs.ReadLinkFS.
func (n nodeFS) Lstat(name string) (fs.FileInfo, error) {
	entry, has, hidden := n.at(name)
	switch {
	case has:
		return n.stat(name, entry)
	case hidden:
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return fs.Lstat(n.version, name)
}

// Stat implements fs.StatFS. A symbolic link of the layer is told as what it is.
func (n nodeFS) Stat(name string) (fs.FileInfo, error) {
	if _, has, hidden := n.at(name); has || hidden {
		return n.Lstat(name)
	}
	return fs.Stat(n.version, name)
}

// stat returns what is known of the layer's entry at name.
func (n nodeFS) stat(name string, entry replica.LayerEntry) (fs.FileInfo, error) {
	var st unix.Stat_t
	if err := entry.Stat(&st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	e := nodeEntry{path.Base(name), entry.Kind(), 0}
	if e.kind == vfs.Regular {
		e.size = st.Size
	}
	return e, nil
}

// nodeEntry is an entry of a directory of the layer.
type nodeEntry struct {
	name string
	kind vfs.Type
	size int64
}

func (e nodeEntry) Name() string               { return e.name }
func (e nodeEntry) IsDir() bool                { return e.kind == vfs.Directory }
func (e nodeEntry) Info() (fs.FileInfo, error) { return e, nil }
func (e nodeEntry) Size() int64                { return e.size }
func (e nodeEntry) Mode() fs.FileMode          { return e.Type() }
func (e nodeEntry) ModTime() time.Time         { return time.Time{} }
func (e nodeEntry) Sys() any                   { return nil }

// Type implements fs.DirEntry. Types that nobody asks for are irregular.
func (e nodeEntry) Type() fs.FileMode {
	switch e.kind {
	case vfs.Regular:
		return 0
	case vfs.Directory:
		return fs.ModeDir
	case vfs.Symlink:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}
