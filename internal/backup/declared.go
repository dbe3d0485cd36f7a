package backup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
)

// notDeclared are the names in a data directory that are not copied as they are.
func notDeclared(name string) bool {
	switch name {
	case "replicas", "store", "cache", "coord", "loadtest", "lock", "lost+found", restoring:
		return true
	}
	return strings.HasPrefix(name, ".tmp-") || strings.HasSuffix(name, ".sock")
}

// declared emits all that is small: keys, the declared state, the clock.
func (m *maker) declared() error {
	m.part = "state"
	names, err := m.data.List(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if notDeclared(name) {
			continue
		}
		list, err := m.settled(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, x := range list {
			m.info.Secrets = m.info.Secrets || strings.HasSuffix(x.path, "key.pem")
			if err := m.emit(x.entry, x.content); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallEntry is an entry with its content in memory.
type smallEntry struct {
	*entry
	content
}

// settled reads what name has in the data directory until it is the same twice: a key and its certificate must not be
// of two moments.
func (m *maker) settled(name string) (list []smallEntry, err error) {
	before := ""
	for range 10 {
		var now string
		if list, now, err = m.collect(name); err != nil {
			return nil, err
		}
		if now == before {
			return list, nil
		}
		before = now
	}
	return nil, errors.New("it changes all the time")
}

// smallMax bounds a file that is read into memory.
const smallMax = 256 << 20

// collect reads a file or a directory with all that is in it. text is different for each state of it.
func (m *maker) collect(name string) (list []smallEntry, text string, err error) {
	var all strings.Builder
	t := tree{
		root: m.data, prefix: dataDir,
		failed: func(path string, failed error) { err = errors.Join(err, fmt.Errorf("%s: %w", path, failed)) },
		skip:   func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".tmp-") },
		emit: func(e *entry, c content) error {
			x := smallEntry{e, nil}
			if c != nil {
				if e.size > smallMax {
					return fmt.Errorf("%s is larger than any file that belongs there", e.path)
				}
				b := make([]byte, e.size)
				if err := c.each(func(part []byte, off uint64) error { copy(b[off:], part); return nil }); err != nil {
					return err
				}
				x.content, e.digest = bytesContent(b), image.Sum(b)
			}
			all.Write(e.line())
			list = append(list, x)
			return nil
		},
	}
	walked := t.walkAny(name)
	return list, all.String(), errors.Join(err, walked)
}

// walkAny emits an entry at the top: a directory with all that is in it, or a file.
func (t *tree) walkAny(name string) error {
	if t.links == nil {
		t.links = map[layer.Inode]string{}
	}
	dir, err := t.root.OpenDir(".")
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	isDir, err := t.one(layer.Dir(dir), name)
	if isDir && err == nil {
		return t.walk(name)
	}
	return err
}
