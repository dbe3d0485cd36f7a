package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// Any as a revision says that the change rests on nothing read before.
const Any int64 = -1

// PutDescription makes d the applied description and returns its revision. When the applied one's revision is not
// ifRevision (0: there is none yet; Any: whatever it is), nothing changes and the error is ErrConflict.
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

// PutVersion adds a version. Its number must be higher than every number that its image ever had; otherwise the error is ErrConflict.
func (c *Coord) PutVersion(ctx context.Context, v image.Version) error {
	if !image.ValidName(v.Image) || v.Number <= 0 {
		return fmt.Errorf("put version %s@%d: not a version's name", v.Image, v.Number)
	}
	value, err := json.Marshal(stored(v))
	if err != nil {
		return err
	}
	lastKey := c.imageKey(v.Image, "last")
	number, seen, err := c.get(ctx, lastKey)
	if err == nil && number != nil {
		var last int
		if last, err = strconv.Atoi(string(number)); err == nil && v.Number <= last {
			err = fmt.Errorf("%w: %s@%d is there already", ErrConflict, v.Image, last)
		}
	}
	if err == nil {
		err = c.putIf(ctx, lastKey, seen,
			clientv3.OpPut(lastKey, strconv.Itoa(v.Number)),
			clientv3.OpPut(c.imageKey(v.Image, fmt.Sprintf("versions/%08d", v.Number)), string(value)))
	}
	if err != nil {
		return fmt.Errorf("put version %s@%d: %w", v.Image, v.Number, err)
	}
	return nil
}

// PutTag makes tag name a version that exists (otherwise ErrNotFound), and no longer the one it named before.
func (c *Coord) PutTag(ctx context.Context, name, tag string, number int) error {
	if !image.ValidName(name) || !image.ValidName(tag) {
		return fmt.Errorf("put tag %s@%s: not a tag's name", name, tag)
	}
	there := clientv3.Compare(clientv3.CreateRevision(c.imageKey(name, fmt.Sprintf("versions/%08d", number))), ">", 0)
	r, err := c.txn(ctx, []clientv3.Cmp{there}, []clientv3.Op{clientv3.OpPut(c.imageKey(name, "tags/"+tag), strconv.Itoa(number))})
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("%w: %s@%d", ErrNotFound, name, number)
	}
	if err != nil {
		return fmt.Errorf("put tag %s@%s: %w", name, tag, err)
	}
	return nil
}

// SetDesired sets what each of the given replicas should follow: node → reference. An empty reference means the newest
// version of the node's image. All change at once; nodes that are not given keep what they have.
func (c *Coord) SetDesired(ctx context.Context, change map[string]string) error {
	const attempts = 16 // each is lost only to one that succeeded
	err := ErrConflict
	for range attempts {
		if err = c.setDesired(ctx, change); !errors.Is(err, ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("set desired versions: %w", err)
	}
	return nil
}

// setDesired writes all of it as one value: an etcd transaction takes 128 operations, and a rollout may have thousands of nodes.
func (c *Coord) setDesired(ctx context.Context, change map[string]string) error {
	key := c.prefix + "desired"
	value, seen, err := c.get(ctx, key)
	if err != nil {
		return err
	}
	desired := map[string]string{}
	if value != nil {
		if err := json.Unmarshal(value, &desired); err != nil {
			return err
		}
	}
	maps.Copy(desired, change)
	maps.DeleteFunc(desired, func(_, ref string) bool { return ref == "" })
	if value, err = json.Marshal(desired); err != nil {
		return err
	}
	return c.putIf(ctx, key, seen, clientv3.OpPut(key, string(value)))
}

// putIf runs ops when key's last change was at revision; otherwise it is ErrConflict.
func (c *Coord) putIf(ctx context.Context, key string, revision int64, ops ...clientv3.Op) error {
	r, err := c.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}, ops)
	if err == nil && !r.Succeeded {
		return ErrConflict
	}
	return err
}

// get reads one key; value is nil and revision 0 when it is not there.
func (c *Coord) get(ctx context.Context, key string) (value []byte, revision int64, err error) {
	r, err := c.read(ctx, key)
	if err != nil || len(r.Kvs) == 0 {
		return nil, 0, err
	}
	return r.Kvs[0].Value, r.Kvs[0].ModRevision, nil
}

func (c *Coord) imageKey(name, rest string) string { return c.prefix + "images/" + name + "/" + rest }
