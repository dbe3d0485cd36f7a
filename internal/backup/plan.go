package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
)

// Part is what a backup would have of one part of a data directory.
type Part struct {
	Name  string `json:"part"`  // "layers", "state", "store"
	Files uint64 `json:"files"` // regular files
	Bytes uint64 `json:"bytes"` // of their content, without holes
	New   uint64 `json:"new"`   // of these, what the latest backup does not have
}

// Plan returns what a backup to dir would have now; dir "" is a stream. It reads names and sizes only.
func Plan(ctx context.Context, dir string, o Options) ([]Part, error) {
	var f *former
	if dir != "" {
		f = loadFormer(dir)
		defer f.close()
	}
	return o.plan(ctx, f)
}

func (o *Options) plan(ctx context.Context, f *former) ([]Part, error) {
	parts := []Part{{Name: partLayers}, {Name: "state"}, {Name: partStore}}
	now := time.Now()
	err := filepath.WalkDir(o.Data, func(path string, d fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has vanished since
		}
		rel, rerr := filepath.Rel(o.Data, path)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		part, skip := o.partOf(rel)
		if skip && d.IsDir() {
			return fs.SkipDir
		}
		if skip || !d.Type().IsRegular() {
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			return nil
		}
		p := &parts[part]
		n := min(uint64(st.Size), uint64(st.Blocks)*512)
		p.Files, p.Bytes = p.Files+1, p.Bytes+n
		if !f.has(dataDir+"/"+rel, &st, now) {
			p.New += n
		}
		return nil
	})
	return parts, err
}

// partOf returns the index of the part that a path of the data directory belongs to.
func (o *Options) partOf(rel string) (part int, skip bool) {
	names := strings.Split(rel, "/")
	switch {
	case names[0] == "replicas":
		skip = o.NoLayers || len(names) > 1 && strings.HasPrefix(names[1], ".") ||
			len(names) > 3 && notKept(strings.Join(names[3:], "/"))
		return 0, skip
	case names[0] == "store":
		return 2, o.NoStore || len(names) > 1 && (names[1] == "staging" || names[1] == "locks")
	}
	return 1, rel != "." && notDeclared(names[0])
}

// has reports whether the former backup has a file of the data directory.
func (f *former) has(path string, st *unix.Stat_t, now time.Time) bool {
	if f == nil {
		return false
	}
	if f.objects[path] != nil {
		return true
	}
	o, ok := (&layer.CopyEntry{Stat: *st}).Origin(now)
	return ok && f.origins[o] != nil
}

// Prune removes from a directory all but the latest backups, of which keep are complete. It returns the names of those
// that it has removed.
func Prune(dir string, keep int) (removed []string, err error) {
	names, err := List(dir)
	if err != nil || keep < 1 {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for _, name := range names {
		if keep > 0 {
			if s, err := OpenStored(filepath.Join(dir, name)); err == nil {
				if s.Info.Complete {
					keep--
				}
				s.Close()
			}
			continue
		}
		// Under this name it is no backup any more, if it is removed in part only.
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, incomplete+name)); err != nil {
			return removed, err
		}
		if err := removeTree(dir, incomplete+name); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}
