package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// Any is a revision for changes that do not depend on an earlier read.
const Any int64 = -1

// PutDescription makes d the applied description and returns its revision. ifRevision is the revision of the
// description that it replaces: 0 for none, Any for whichever there is. If there is another one, the error is
// ErrConflict.
func (c *Coord) PutDescription(ctx context.Context, d Description, ifRevision int64) (int64, error) {
	value, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	key := c.prefix + "description"
	var when []clientv3.Cmp
	if ifRevision != Any {
		when = append(when, clientv3.Compare(clientv3.ModRevision(key), "=", ifRevision))
	}
	r, err := c.txn(ctx, when, []clientv3.Op{clientv3.OpPut(key, string(value))})
	if err == nil && !r.Succeeded {
		err = ErrConflict
	}
	if err != nil {
		return 0, fmt.Errorf("put description: %w", err)
	}
	return r.Header.Revision, nil
}

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
