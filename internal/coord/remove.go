package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// mostRemoved is how many versions one call removes: an etcd transaction takes 128 operations.
const mostRemoved = 100

// RemoveVersions removes the versions that choose picks, all at once, and returns them; of more than a hundred the first hundred. When anything that tells
// which versions are in use was changed by another meanwhile, choose is asked again about the state as it is then: so it has to be a pure
// function. Its errors are returned as they are, and nothing is removed. A version with a tag must not be picked: the tag would name nothing.
//
// The numbers of what is removed are never given again.
func (c *Coord) RemoveVersions(ctx context.Context, choose func(State) ([]image.Ref, error)) ([]image.Ref, error) {
	for range attempts {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, fmt.Errorf("remove versions: %w", err)
		}
		refs, err := choose(s)
		if err != nil || len(refs) == 0 {
			return nil, err
		}
		refs = refs[:min(len(refs), mostRemoved)]
		var ops []clientv3.Op
		for _, ref := range refs {
			ops = append(ops, clientv3.OpDelete(c.imageKey(ref.Image, versionName(ref.Number))))
		}
		// Who decides just now asks what was put since, and of a key that is gone nothing tells.
		desired, err := json.Marshal(s.Desired)
		if err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(c.prefix+"desired", string(desired)))
		r, err := c.txn(ctx, c.untouched(s.Revision), ops)
		if err != nil {
			return nil, fmt.Errorf("remove versions: %w", err)
		}
		if r.Succeeded {
			return refs, nil
		}
	}
	return nil, fmt.Errorf("remove versions: %w", ErrConflict)
}

// RemoveTag removes a tag that names the version with the given number. Of one that is not there, or names another version, the error is
// ErrNotFound.
func (c *Coord) RemoveTag(ctx context.Context, name, tag string, number int) error {
	key := c.imageKey(name, "tags/"+tag)
	same := clientv3.Compare(clientv3.Value(key), "=", strconv.Itoa(number))
	r, err := c.txn(ctx, []clientv3.Cmp{same}, []clientv3.Op{clientv3.OpDelete(key)})
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("%w: tag %s@%s", ErrNotFound, name, tag)
	}
	if err != nil {
		return fmt.Errorf("remove tag %s@%s: %w", name, tag, err)
	}
	return nil
}
