package api

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/layer"
)

// BackupState implements control.Backend. It brings the state that is kept on disk up to date.
func (api *API) BackupState(ctx context.Context) (control.BackupState, error) {
	out := control.BackupState{Server: string(api.Server), Heads: []string{}}
	out.Cluster = api.Follow.Cluster().Name
	if api.Follow.IsHead() { // what an image server has is a copy
		c, err := api.Follow.Reachable(ctx)
		if err == nil {
			err = api.Follow.Refresh(ctx, c)
		}
		if err == nil {
			err = api.Follow.Keep()
		}
		if err != nil {
			out.Missing = err.Error()
		}
		for _, name := range api.Follow.Now().OtherHeads(api.Server) {
			out.Heads = append(out.Heads, string(name))
		}
	}
	var err error
	if out.Replicas, err = api.Set.Homes(); err != nil {
		return out, err
	}
	out.Journal, err = api.Set.ExportJournal()
	return out, err
}

// origin is a state of a file, as control.StageRequest has it.
type origin = [16]byte

// Stage implements control.Backend.
func (api *API) Stage(ctx context.Context, r control.StageRequest, staged func(control.Staged)) error {
	const size = len(origin{})
	known := make(map[origin]bool, len(r.Known)/size)
	for b := r.Known; len(b) >= size; b = b[size:] {
		known[origin(b[:size])] = true
	}
	path, held, err := api.Set.Stage(r.Replica, func(o origin) bool { return known[o] })
	if err != nil {
		return err
	}
	out, err := api.staged(path)
	if err == nil {
		out.Held = held.Seconds()
		staged(out)
		<-ctx.Done()
	}
	return errors.Join(err, api.Set.Unstage(path))
}

// staged describes a staged copy.
func (api *API) staged(path string) (out control.Staged, err error) {
	root := api.Set.Disk()
	dir, err := root.OpenDir(path)
	if err != nil {
		return out, err
	}
	defer unix.Close(dir)
	out.Path = path + "/copy"
	if out.Time, err = layer.ParseStamp(filepath.Base(path)); err != nil {
		return out, err
	}
	for _, v := range layer.At(dir, ".").SnapshotInfo().Over {
		out.Image, out.Version, out.Digest = v.Image, v.Number, v.Digest.String()
	}
	fd, err := root.Open(path+"/journal", unix.O_RDONLY)
	if err != nil {
		return out, err
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	out.Journal, err = io.ReadAll(f)
	return out, err
}
