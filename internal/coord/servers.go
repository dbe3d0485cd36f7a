package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Server is a server that belongs to the cluster: it has a certificate.
type Server struct {
	ID     string    `json:"id"`    // of its identity
	Roles  []string  `json:"roles"` // that it may have, if the description gives them to it
	Joined time.Time `json:"joined"`
}

// Revocation is the end of an identity.
type Revocation struct {
	Server string    `json:"server"` // its name
	Time   time.Time `json:"time"`
}

// PutServer puts a server, in place of one of that name. The identity of that one is revoked if it is another one.
func (c *Coord) PutServer(ctx context.Context, name string, s Server) error {
	for range attempts {
		done, err := c.putServer(ctx, name, s)
		if err != nil {
			return fmt.Errorf("put server %s: %w", name, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("put server %s: %w", name, ErrConflict)
}

func (c *Coord) putServer(ctx context.Context, name string, s Server) (done bool, err error) {
	key := c.serverKey(name)
	r, err := c.read(ctx, key)
	if err != nil {
		return false, err
	}
	value, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	revision := int64(0)
	ops := []clientv3.Op{clientv3.OpPut(key, string(value))}
	for _, kv := range r.Kvs {
		var old Server
		if err := json.Unmarshal(kv.Value, &old); err != nil {
			return false, err
		}
		revision = kv.ModRevision
		if old.ID != s.ID {
			ops = append(ops, c.revoke(old.ID, name))
		}
	}
	put, err := c.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}, ops)
	return err == nil && put.Succeeded, err
}

// BeginRestore notes that a state that was lost is being put back: it is not whole until EndRestore, also after a
// crash. See State.Restoring.
func (c *Coord) BeginRestore(ctx context.Context) error {
	return c.noteRestore(ctx, clientv3.OpPut(c.prefix+restoringKey, ""))
}

// EndRestore notes that the state is whole.
func (c *Coord) EndRestore(ctx context.Context) error {
	return c.noteRestore(ctx, clientv3.OpDelete(c.prefix+restoringKey))
}

const restoringKey = "restoring"

func (c *Coord) noteRestore(ctx context.Context, op clientv3.Op) error {
	if _, err := c.txn(ctx, nil, []clientv3.Op{op}); err != nil {
		return fmt.Errorf("note that a lost state is put back: %w", err)
	}
	return nil
}

// PutMembers puts the servers and the revocations of a state that was lost. Those that the present state has stay as
// they are.
func (c *Coord) PutMembers(ctx context.Context, lost State) error {
	put := func(key string, v any) error {
		value, err := json.Marshal(v)
		if err != nil {
			return err
		}
		absent := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
		_, err = c.txn(ctx, absent, []clientv3.Op{clientv3.OpPut(key, string(value))})
		return err
	}
	for id, r := range lost.Revoked { // first: what has ended must not count again
		if err := put(c.prefix+"revoked/"+id, r); err != nil {
			return fmt.Errorf("put revocation of %s: %w", r.Server, err)
		}
	}
	for name, s := range lost.Servers {
		if err := put(c.serverKey(name), s); err != nil {
			return fmt.Errorf("put server %s: %w", name, err)
		}
	}
	return nil
}

// revoke is the operation that ends an identity.
func (c *Coord) revoke(id, server string) clientv3.Op {
	value, _ := json.Marshal(Revocation{Server: server, Time: time.Now().UTC()}) // of texts and a time
	return clientv3.OpPut(c.prefix+"revoked/"+id, string(value))
}

func (c *Coord) serverKey(name string) string { return c.prefix + "servers/" + name }
