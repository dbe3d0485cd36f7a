package coord

import (
	"context"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// PutTag makes tag a name of a version, and no longer of the version that it named before. The error is ErrNotFound if
// there is no such version.
func (c *Coord) PutTag(ctx context.Context, name, tag string, number int) error {
	if !image.ValidName(name) || !image.ValidName(tag) {
		return fmt.Errorf("put tag %s@%s: not a tag's name", name, tag)
	}
	there := clientv3.Compare(clientv3.CreateRevision(c.imageKey(name, versionName(number))), ">", 0)
	put := clientv3.OpPut(c.imageKey(name, "tags/"+tag), strconv.Itoa(number))
	r, err := c.txn(ctx, []clientv3.Cmp{there}, []clientv3.Op{put})
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("%s: %w", image.Ref{Image: name, Number: number}, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("put tag %s@%s: %w", name, tag, err)
	}
	return nil
}

func (c *Coord) imageKey(name, rest string) string { return c.prefix + "images/" + name + "/" + rest }
