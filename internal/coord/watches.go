package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// Watch declares that a server captures an image whenever its master changes.
type Watch struct {
	Server   string        `json:"server"`            // the server with the master
	Rollout  string        `json:"rollout,omitempty"` // when nodes change to the version: "now", "boot"; "": not at all
	Debounce time.Duration `json:"debounce"`          // time without a change before a capture, in nanoseconds
	Declared time.Time     `json:"declared"`
}

// PutWatch declares that the master of an image is watched, or with nil that it is not.
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
