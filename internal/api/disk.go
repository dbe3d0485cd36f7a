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

// StoreProblems is a problems.Source: versions and a journal that are damaged, and a file system that the kernel has
// made read-only. A damaged version is a problem of the store if an image follows it, or it is the newest one. Else it
// is one of its image alone.
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
	if text := api.Set.Damage(); text != "" { // replicas that are not served because of it are problems of their nodes
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindReplicas), Text: text, Since: api.Started,
			Hint: "check this server's disk and memory; the problem is shown until the next restart",
		})
	}
	for _, text := range api.Set.LostDirs() {
		add(text, "nodes get an input/output error there; move the damaged file out of the store, capture the master "+
			"again, which puts it back if the master has not changed there, and restart the server")
	}
	damaged, err := api.Store.Damaged()
	if err != nil {
		add(err.Error(), "check the disk and its mount")
	}
	for _, v := range damaged {
		p := problems.Problem{
			About: problems.Image(v.Ref.Image), Text: v.Err.Error(),
			Hint: "dim image verify " + v.Ref.String() + " tells the extent; if nothing needs it, dim image rm " +
				v.Ref.String(),
		}
		im := api.Follow.Now().State.Images[v.Ref.Image]
		if current, ok := im.Followed(); ok && current.Number == v.Ref.Number || im != nil && im.Last == v.Ref.Number {
			p.About = problems.Of(problems.KindStore)
		}
		list = append(list, p)
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
