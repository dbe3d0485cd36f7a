package loadtest

import (
	"context"
	"os"
	"path"
	"time"

	"dim/internal/bootload"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/procstat"
)

// usage reads what this process and its machine have used so far.
func (h *Host) usage() (u control.StormUsage, err error) {
	m, err := procstat.ReadMachine()
	if err != nil {
		return u, control.Errorf(control.Unavailable, "storm: read what %s uses: %v", h.Server, err)
	}
	disk, ok := procstat.ReadDisk(path.Dir(h.Dir))
	return control.StormUsage{
		At: time.Since(h.started).Seconds(), CPU: procstat.CPUTime(os.Getpid()), Machine: m.CPU,
		Sent: m.Sent, Received: m.Received,
		DiskRead: disk.Read, DiskWritten: disk.Written, DiskBusy: disk.Busy, NoDisk: !ok,
		Memory: procstat.Memory(),
	}, nil
}

// files returns the files that a boot of v reads.
func (h *Host) files(ctx context.Context, v image.Version, seed uint64) ([]control.StormFile, error) {
	var all []bootload.File
	if err := h.walk(ctx, "", v.Root.Digest, &all); err != nil {
		return nil, control.Errorf(control.Unavailable, "storm: list the files of %s: %v", v.Ref(), err)
	}
	bootload.Shuffle(all, seed)
	var files []control.StormFile
	for _, f := range bootload.Sample(all) {
		files = append(files, control.StormFile{Path: f.Path, Size: f.Size, Digest: image.Digest(f.Digest).String()})
	}
	if len(files) == 0 {
		return nil, control.Errorf(control.Conflict, "storm: %s has no files that a boot could read", v.Ref())
	}
	return files, nil
}

// walk adds the regular files below a tree, in order of name.
func (h *Host) walk(ctx context.Context, dir string, d image.Digest, all *[]bootload.File) error {
	tree, err := h.Store.Tree(d)
	if err == nil {
		err = ctx.Err()
	}
	for i := range tree {
		e := &tree[i]
		switch at := path.Join(dir, e.Name); {
		case err != nil:
			return err
		case e.Type == image.Directory:
			err = h.walk(ctx, at, e.Digest, all)
		case e.Type == image.Regular:
			*all = append(*all, bootload.File{Path: at, Size: int64(e.Size), Digest: e.Digest})
		}
	}
	return err
}
