package api

import (
	"context"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/problems"
)

// Disks returns the disk of the data directory.
func (api *API) Disks() []control.Disk {
	var fs unix.Statfs_t
	if unix.Statfs(api.Data, &fs) != nil {
		return nil
	}
	size := uint64(fs.Bsize)
	return []control.Disk{{
		Path: api.Data, Bytes: fs.Blocks * size, BytesFree: fs.Bavail * size, Files: fs.Files, FilesFree: fs.Ffree,
	}}
}

// StoreProblems is a problems.Source: images of which no version can be read, and a file system that the kernel has
// made read-only.
func (api *API) StoreProblems(context.Context) []problems.Problem {
	var list []problems.Problem
	add := func(text, hint string) {
		list = append(list, problems.Problem{About: problems.Of(problems.KindStore), Text: text, Hint: hint})
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(api.Data, &fs); err != nil {
		add("stat "+api.Data+": "+err.Error(), "check the disk and its mount")
		return list
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		add("the file system of "+api.Data+" is read-only: nodes cannot write",
			"the kernel has stopped it after an error: see its log, check the file system, and restart the server")
	}
	images, err := api.Store.Images()
	if err != nil {
		add(err.Error(), "check the disk and its mount")
	}
	for _, name := range images {
		v, err := api.Store.Resolve(image.Ref{Image: name})
		if err == nil {
			_, err = api.Store.Tree(v.Root.Digest)
		}
		if err != nil {
			add(err.Error(), "dim image verify "+name+" tells the extent")
		}
	}
	return list
}
