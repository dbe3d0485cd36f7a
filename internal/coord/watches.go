package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// Watch is the declaration that a server makes a version of an image whenever its master changes.
type Watch struct {
	Server   string        `json:"server"`            // where the master is
	Rollout  string        `json:"rollout,omitempty"` // when nodes follow: "now", "boot"; "": when they are told to
	Debounce time.Duration `json:"debounce"`          // how long the master must be quiet, in nanoseconds
	Declared time.Time     `json:"declared"`
}

// PutWatch declares that an image's master is watched; nil: no longer.
func (c *Coord) PutWatch(ctx context.Context, name string, w *Watch) error {
	if !image.ValidName(name) {
		return fmt.Errorf("put watch %s: not an image's name", name)
	}
	key := c.prefix + "watches/" + name
	op := clientv3.OpDelete(key)
	if w != nil {
		value, err := json.Marshal(w)
		if err != nil {
			return err
		}
		op = clientv3.OpPut(key, string(value))
	}
	if _, err := c.txn(ctx, nil, []clientv3.Op{op}); err != nil {
		return fmt.Errorf("put watch %s: %w", name, err)
	}
	return nil
}
