package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// mostRemoved bounds the versions that one call removes: a transaction of etcd is limited to 128 operations.
const mostRemoved = 100

// RemoveVersions removes the versions that choose returns in one transaction, and returns them. If there are more
// than a hundred, it removes the first hundred. If rollouts, references or images change in the meantime, it calls
// choose again with the new state, so choose must be a pure function. Errors of choose are returned unwrapped, and
// nothing is removed. choose must not return a version that has a tag. A node that is to run a removed version, such as
// one that the description no longer has, follows its image again.
//
// The numbers of removed versions are never given again.
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
		// A concurrent Decide only notices keys that were put, not keys that were deleted. So put some that it checks.
		for key, follow := range map[string]Refs{"desired": s.Desired, "next": s.Next} {
			follow = maps.Clone(follow)
			maps.DeleteFunc(follow, func(_ string, ref image.Ref) bool { return slices.Contains(refs, ref) })
			text, err := json.Marshal(follow)
			if err != nil {
				return nil, err
			}
			ops = append(ops, clientv3.OpPut(c.prefix+key, string(text)))
		}
		r, err := c.txn(ctx, c.unchangedSince(s.Revision), ops)
		if err != nil {
			return nil, fmt.Errorf("remove versions: %w", err)
		}
		if r.Succeeded {
			return refs, nil
		}
	}
	return nil, fmt.Errorf("remove versions: %w", ErrConflict)
}

// RemoveTag removes a tag of the version with the given number. The error is ErrNotFound if that version has no such
// tag.
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
