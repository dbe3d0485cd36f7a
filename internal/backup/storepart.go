package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dim/internal/image"
)

// version is a version of an image, as the store has it.
type version struct{ image, file string }

// versions returns the files of the versions that the store has now.
func (m *maker) versions() (map[version][]byte, error) {
	all := map[version][]byte{}
	if m.NoStore {
		return all, nil
	}
	images, err := m.data.List("store/versions")
	if err != nil {
		return nil, err
	}
	for _, name := range images {
		files, err := m.data.List("store/versions/" + name)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			b, err := os.ReadFile(filepath.Join(m.Data, "store/versions", name, file))
			if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(file, ".tmp-") {
				continue
			}
			if err != nil {
				return nil, err
			}
			all[version{name, file}] = b
		}
	}
	return all, nil
}

// store emits the store: versions, then trees, then blobs. A version that was removed since the start may be under a
// layer of the backup, so it is taken too.
func (m *maker) store(before map[version][]byte) error {
	m.part = partStore
	now, err := m.versions()
	if err != nil {
		return err
	}
	for v, b := range before {
		now[v] = b
	}
	for _, dir := range []string{"store", "store/versions"} {
		if err := m.emitDir(dir, dataDir+"/"+dir); err != nil {
			return err
		}
	}
	list := make([]version, 0, len(now))
	for v := range now {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b version) int { return strings.Compare(a.image+"/"+a.file, b.image+"/"+b.file) })
	for i, v := range list {
		dir := storeDir + "/versions/" + v.image
		if i == 0 || list[i-1].image != v.image {
			e := &entry{path: dir, kind: dirKind, mode: 0o700, mtime: timeOf(m.began)}
			if err := m.emit(e, nil); err != nil {
				return err
			}
		}
		if err := m.emitBytes(dir+"/"+v.file, now[v]); err != nil {
			return err
		}
		m.noteVersion(now[v])
	}
	if err := m.emitBytes(storeDir+"/format", []byte("1\n")); err != nil {
		return err
	}
	for _, part := range []string{"trees", "blobs"} {
		t := tree{root: m.data, prefix: dataDir, emit: m.object, failed: m.problem}
		if err := t.walk("store/" + part); err != nil {
			return err
		}
	}
	return nil
}

// noteVersion adds a version to the description.
func (m *maker) noteVersion(b []byte) {
	var v struct {
		Image   string `json:"image"`
		Version int    `json:"version"`
	}
	if json.Unmarshal(b, &v) == nil {
		m.info.Versions = append(m.info.Versions, fmt.Sprintf("%s@%d", v.Image, v.Version))
	}
}

// object emits an object of the store. Its digest must be its name.
func (m *maker) object(e *entry, c content) error {
	err := m.emit(e, c)
	name := e.path[strings.LastIndexByte(e.path, '/')+1:]
	if want, perr := image.ParseDigest(name); err == nil && perr == nil && e.kind == fileKind &&
		e.size <= wholeMax && e.digest != want {
		m.problem(e.path, errors.New("it is damaged: its content has another digest; dim image verify lists all"))
	}
	return err
}
