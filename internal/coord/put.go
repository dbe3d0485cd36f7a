package coord

import (
	"context"
	"encoding/json"
	"fmt"
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

// PutVersion adds a version. Its number must be higher than every number that its image ever had; otherwise the error is ErrConflict. The first
// version of an image is its current one from then on, so that nodes boot; of an image whose current version nobody has told, that is the
// one before.
func (c *Coord) PutVersion(ctx context.Context, v image.Version) error {
	if !image.ValidName(v.Image) || v.Number <= 0 {
		return fmt.Errorf("put version %s@%d: not a version's name", v.Image, v.Number)
	}
	value, err := json.Marshal(stored(v))
	if err == nil {
		err = c.putVersion(ctx, v, string(value))
	}
	if err != nil {
		return fmt.Errorf("put version %s@%d: %w", v.Image, v.Number, err)
	}
	return nil
}

func (c *Coord) putVersion(ctx context.Context, v image.Version, value string) error {
	lastKey, currentKey := c.imageKey(v.Image, "last"), c.imageKey(v.Image, "current")
	number, seen, err := c.get(ctx, lastKey)
	if err != nil {
		return err
	}
	last := 0
	if number != nil {
		if last, err = strconv.Atoi(string(number)); err != nil {
			return err
		}
	}
	if v.Number <= last {
		return fmt.Errorf("%w: %s@%d is there already", ErrConflict, v.Image, last)
	}
	current, told, err := c.get(ctx, currentKey)
	if err != nil {
		return err
	}
	ops := []clientv3.Op{
		clientv3.OpPut(lastKey, strconv.Itoa(v.Number)),
		clientv3.OpPut(c.imageKey(v.Image, versionName(v.Number)), value),
	}
	if current == nil {
		before := v.Number
		if last > 0 {
			before = last
		}
		ops = append(ops, clientv3.OpPut(currentKey, strconv.Itoa(before)))
	}
	return c.putIf(ctx, map[string]int64{lastKey: seen, currentKey: told}, ops...)
}

// versionName is the rest of a version's key.
func versionName(number int) string { return fmt.Sprintf("versions/%08d", number) }

// PutTag makes tag name a version that exists (otherwise ErrNotFound), and no longer the one it named before.
func (c *Coord) PutTag(ctx context.Context, name, tag string, number int) error {
	if !image.ValidName(name) || !image.ValidName(tag) {
		return fmt.Errorf("put tag %s@%s: not a tag's name", name, tag)
	}
	there := clientv3.Compare(clientv3.CreateRevision(c.imageKey(name, versionName(number))), ">", 0)
	r, err := c.txn(ctx, []clientv3.Cmp{there}, []clientv3.Op{clientv3.OpPut(c.imageKey(name, "tags/"+tag), strconv.Itoa(number))})
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("%w: %s@%d", ErrNotFound, name, number)
	}
	if err != nil {
		return fmt.Errorf("put tag %s@%s: %w", name, tag, err)
	}
	return nil
}

// putIf runs ops when the last changes of keys were at these revisions; otherwise it is ErrConflict.
func (c *Coord) putIf(ctx context.Context, keys map[string]int64, ops ...clientv3.Op) error {
	var when []clientv3.Cmp
	for key, revision := range keys {
		when = append(when, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	}
	r, err := c.txn(ctx, when, ops)
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
