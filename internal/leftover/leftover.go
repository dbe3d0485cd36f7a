// Package leftover lists what nodes have left on a server that were removed from the cluster's description.
//
// It must not know the description: it is told which nodes there are.
package leftover

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// Layer is all that one node has over one image: the layer, what was set aside, the snapshots.
type Layer struct {
	Node    string
	Image   string
	Entries int    // on the disk
	Bytes   uint64 // that they take on the disk; blocks that files share count for each
}

// List lists the layers of nodes for which has returns false. With names, only these nodes are listed. It reads the
// directories of these nodes.
func List(set *replica.Set, has func(node string) bool, names []string) ([]Layer, error) {
	nodes, err := set.Disk().List(".")
	if err != nil {
		return nil, err
	}
	var list []Layer
	for _, node := range nodes {
		if strings.HasPrefix(node, "#") || has(node) || names != nil && !slices.Contains(names, node) {
			continue
		}
		images, err := set.Disk().List(node)
		if errors.Is(err, unix.ENOTDIR) {
			continue // a file of the set
		}
		for _, im := range images {
			if err == nil {
				var l Layer
				l, err = Of(set, node, im)
				list = append(list, l)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Of returns what a node has over an image.
func Of(set *replica.Set, node, image string) (Layer, error) {
	c := counter{Layer: Layer{Node: node, Image: image}, seen: map[layer.Inode]bool{}}
	fd, err := set.Disk().OpenDir(node + "/" + image)
	if err == nil {
		err = c.count(fd)
	}
	if err != nil {
		err = fmt.Errorf("read what %s has over %s: %w", node, image, err)
	}
	return c.Layer, err
}

// counter counts entries. Files with several names count once.
type counter struct {
	Layer
	seen map[layer.Inode]bool
}

// count adds what is in the open directory fd, which it closes.
func (c *counter) count(fd int) error {
	defer unix.Close(fd)
	names, err := layer.Dir(fd).Names()
	for _, name := range names {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			err = nil // a call of the node was done with it
			continue
		}
		ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
		if err != nil || c.seen[ino] {
			continue
		}
		c.seen[ino] = true
		c.Entries, c.Bytes = c.Entries+1, c.Bytes+uint64(st.Blocks)*512
		if vfs.TypeOf(st.Mode) == vfs.Directory {
			var below int
			if below, err = layer.Dir(fd).Enter(name); err == nil {
				err = c.count(below)
			}
		}
	}
	return err
}
