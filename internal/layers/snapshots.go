package layers

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica"
)

// Snapshot is a copy of a layer at a time.
type Snapshot struct {
	Node  string
	Image string
	Stamp time.Time
	layer.SnapshotInfo
}

// ID returns the stamp as people and directories have it.
func (s *Snapshot) ID() string { return layer.StampName(s.Stamp) }

// Snapshots lists the snapshots of a node's layers over all images, the latest of each first. The replicas need
// not be attached.
func Snapshots(set *replica.Set, node string) ([]Snapshot, error) {
	if node == "" || node[0] == '.' || strings.ContainsAny(node, "/\x00") {
		return nil, fmt.Errorf("list snapshots: %q is not the name of a node", node)
	}
	root := set.Disk()
	images, err := root.List(node)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, im := range images {
		of, err := readSnapshots(root, node, im)
		if err != nil {
			return nil, fmt.Errorf("list snapshots of %s/%s: %w", node, im, err)
		}
		list = append(list, of...)
	}
	return list, nil
}

// snapshots lists the snapshots of the layer, the latest first.
func (l Layer) snapshots() ([]Snapshot, error) {
	node, image := l.r.Name()
	return readSnapshots(l.root, node, image)
}

func readSnapshots(root layer.Dir, node, image string) ([]Snapshot, error) {
	home := layer.Home(node + "/" + image)
	stamps, err := root.Stamps(home.Snapshots())
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, at := range stamps {
		fd, err := root.OpenDir(home.Snapshots(layer.StampName(at)))
		if err == unix.ENOENT {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		info := layer.At(fd, ".").SnapshotInfo()
		list = append(list, Snapshot{Node: node, Image: image, Stamp: at, SnapshotInfo: info})
		unix.Close(fd)
	}
	return list, nil
}

// ErrNoSnapshot tells that there is none of that version or time.
var ErrNoSnapshot = errors.New("there is no such snapshot")

// findSnapshot finds the snapshot that to names. It may be a stamp, or how one begins; a time, for the last one
// at it or before; a version that the layer was over, NAME@N or N, for the last one of it. The latest is the
// first in list.
func findSnapshot(list []Snapshot, to string) (*Snapshot, error) {
	at, timeErr := time.Parse(time.RFC3339, to)
	for i := range list {
		one := &list[i]
		byStamp := len(to) >= len("20060102T") && strings.HasPrefix(one.ID(), to)
		if byStamp || timeErr == nil && !one.Stamp.After(at) {
			return one, nil
		}
		for _, v := range one.Over {
			if to == v.Ref().String() || to == fmt.Sprint(v.Number) {
				return one, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoSnapshot, to)
}
