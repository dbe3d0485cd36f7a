package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// attempts bounds the attempts of a change. One fails only if another change has succeeded.
const attempts = 32

// Reservation is a number that was given to a server for a version that it is about to put.
type Reservation struct {
	Server string    `json:"server"`
	Time   time.Time `json:"time"`
}

// ReserveVersion returns a number for the next version of an image, higher than all numbers that the image ever had,
// and reserves it for server until PutVersion. It drops earlier reservations of the image by the same server: a
// server makes one capture of an image at a time, and puts its version before the next capture, so these were not
// used.
func (c *Coord) ReserveVersion(ctx context.Context, name, server string) (int, error) {
	if !image.ValidName(name) {
		return 0, fmt.Errorf("reserve version: %q is not an image name", name)
	}
	for range attempts {
		number, done, err := c.reserve(ctx, name, server)
		if err != nil {
			return 0, fmt.Errorf("reserve version of %s: %w", name, err)
		}
		if done {
			return number, nil
		}
	}
	return 0, fmt.Errorf("reserve version of %s: %w", name, ErrConflict)
}

func (c *Coord) reserve(ctx context.Context, name, server string) (number int, done bool, err error) {
	lastKey, reserved := c.imageKey(name, "last"), c.imageKey(name, "reserved/")
	r, err := c.txn(ctx, nil, []clientv3.Op{clientv3.OpGet(lastKey), clientv3.OpGet(reserved, clientv3.WithPrefix())})
	if err != nil {
		return 0, false, err
	}
	last, revision, err := numberOf(r, 0)
	if err != nil {
		return 0, false, err
	}
	number = last + 1
	value, err := json.Marshal(Reservation{Server: server, Time: time.Now().UTC()})
	if err != nil {
		return 0, false, err
	}
	ops := []clientv3.Op{
		clientv3.OpPut(lastKey, strconv.Itoa(number)),
		clientv3.OpPut(c.imageKey(name, reservedName(number)), string(value)),
	}
	for _, kv := range r.Responses[1].GetResponseRange().Kvs {
		var old Reservation
		if err := json.Unmarshal(kv.Value, &old); err != nil {
			return 0, false, fmt.Errorf("key %s: %w", kv.Key, err)
		}
		if old.Server == server {
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
		}
	}
	put, err := c.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(lastKey), "=", revision)}, ops)
	return number, err == nil && put.Succeeded, err
}

// PutVersion adds a version whose number is reserved, and removes the reservation. A number above every number of the
// image needs no reservation, so that versions can be put into a new state after the old one was lost, in ascending
// order. It is not an error if the version is there already. For any other number, and for another version with the
// same number, the error is ErrConflict.
//
// The first version of an image becomes its current version, so that nodes can boot. If an image has versions and no
// current one, the last version before this one becomes the current one.
func (c *Coord) PutVersion(ctx context.Context, v image.Version) error {
	if !image.ValidName(v.Image) || v.Number <= 0 {
		return fmt.Errorf("put version %d of image %q: not a valid name", v.Number, v.Image)
	}
	for range attempts {
		done, err := c.putVersion(ctx, v)
		if err != nil {
			return fmt.Errorf("put version %s: %w", v.Ref(), err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("put version %s: %w", v.Ref(), ErrConflict)
}

// putVersion makes one attempt. It returns false if the state has changed between the read and the write.
func (c *Coord) putVersion(ctx context.Context, v image.Version) (done bool, err error) {
	key := func(rest string) string { return c.imageKey(v.Image, rest) }
	lastKey, currentKey := key("last"), key("current")
	reservedKey, versionKey := key(reservedName(v.Number)), key(versionName(v.Number))
	r, err := c.txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(lastKey), clientv3.OpGet(currentKey), clientv3.OpGet(reservedKey), clientv3.OpGet(versionKey),
		clientv3.OpGet(key(versionName(0)), clientv3.WithRange(versionKey), clientv3.WithKeysOnly(),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1)),
	})
	if err != nil {
		return false, err
	}
	last, lastRevision, err := numberOf(r, 0)
	if err != nil {
		return false, err
	}
	_, currentRevision, err := numberOf(r, 1)
	if err != nil {
		return false, err
	}
	reserved := len(r.Responses[2].GetResponseRange().Kvs) > 0
	if there := r.Responses[3].GetResponseRange().Kvs; len(there) > 0 {
		return true, same(there[0].Value, v)
	}
	if !reserved && v.Number <= last {
		return false, fmt.Errorf("%w: the number is not reserved, and the last one given is %d", ErrConflict, last)
	}
	value, err := json.Marshal(stored(v))
	if err != nil {
		return false, err
	}
	when := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(currentKey), "=", currentRevision),
		clientv3.Compare(clientv3.CreateRevision(versionKey), "=", 0),
	}
	ops := []clientv3.Op{clientv3.OpPut(versionKey, string(value))}
	if reserved {
		when = append(when, clientv3.Compare(clientv3.CreateRevision(reservedKey), ">", 0))
		ops = append(ops, clientv3.OpDelete(reservedKey))
	} else {
		when = append(when, clientv3.Compare(clientv3.ModRevision(lastKey), "=", lastRevision))
		ops = append(ops, clientv3.OpPut(lastKey, strconv.Itoa(v.Number)))
	}
	if currentRevision == 0 {
		current := strconv.Itoa(v.Number)
		if before := r.Responses[4].GetResponseRange().Kvs; len(before) > 0 {
			number, err := strconv.Atoi(path.Base(string(before[0].Key)))
			if err != nil {
				return false, err
			}
			current = strconv.Itoa(number)
		}
		ops = append(ops, clientv3.OpPut(currentKey, current))
	}
	put, err := c.txn(ctx, when, ops)
	return err == nil && put.Succeeded, err
}

// same returns ErrConflict unless value is the version v.
func same(value []byte, v image.Version) error {
	var there version
	if err := json.Unmarshal(value, &there); err != nil {
		return err
	}
	if there.Digest != v.Digest {
		return fmt.Errorf("%w: another version has this number", ErrConflict)
	}
	return nil
}

// numberOf returns the number that the n-th get of a transaction found and the revision of its last change, or zeros if
// it found none.
func numberOf(r *clientv3.TxnResponse, n int) (number int, revision int64, err error) {
	kvs := r.Responses[n].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return 0, 0, nil
	}
	if number, err = strconv.Atoi(string(kvs[0].Value)); err != nil {
		return 0, 0, fmt.Errorf("key %s: %w", kvs[0].Key, err)
	}
	return number, kvs[0].ModRevision, nil
}

// versionName returns the end of a version's key.
func versionName(number int) string { return fmt.Sprintf("versions/%08d", number) }

// reservedName returns the end of a reservation's key.
func reservedName(number int) string { return fmt.Sprintf("reserved/%08d", number) }
