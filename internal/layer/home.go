package layer

import "dim/internal/image"

// Home is the directory of one replica, NODE/IMAGE, relative to the directory of all replicas. "" stands for the
// directory itself: paths are relative to it then.
type Home string

// The directories of a replica.
const (
	upper     = "upper"
	work      = "work"
	saved     = "saved"
	snapshots = "snapshots"
)

// Join returns path, which is relative to the replica's directory, relative to the directory of all.
func (h Home) Join(path string) string { return image.JoinPath(string(h), path) }

// Upper returns where the layer has path; "" is its top.
func (h Home) Upper(path string) string { return h.in(upper, path) }

// Work returns the directory for what is being made or removed.
func (h Home) Work() string { return h.Join(work) }

// Saved returns the saved area, or with names what is at these in it: a stamp, a path of the layer.
func (h Home) Saved(names ...string) string { return h.in(saved, names...) }

// Snapshots returns the directory of the snapshots, or with names what is at these in it.
func (h Home) Snapshots(names ...string) string { return h.in(snapshots, names...) }

func (h Home) in(area string, names ...string) string {
	path := h.Join(area)
	for _, n := range names {
		if n != "" {
			path += "/" + n
		}
	}
	return path
}
