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
	ID      string    `json:"id"`            // of its identity
	Roles   []string  `json:"roles"`         // that it may have, if the description gives them to it
	Key     string    `json:"key,omitempty"` // digest of its public key; "": a head that certified itself
	Joined  time.Time `json:"joined"`
	Drained time.Time `json:"drained,omitzero"` // since when it boots no nodes; zero: it does
	Mark    string    `json:"mark,omitempty"`   // the last one of its disk: package diskmark; "": any disk is right
}

// Revocation is the end of an identity.
type Revocation struct {
	Server string    `json:"server"` // its name
	Time   time.Time `json:"time"`
	// GoesOn is the head that has ended the identity to go on without it, and Proof proves that: package pki. "": the
	// heads have removed the server together.
	GoesOn string `json:"goes_on,omitempty"`
	Proof  string `json:"proof,omitempty"`
}

// Token lets one machine join. It is not part of a State. Who has the secret of it is in possession of the token; here
// is only the secret's digest, which names it.
type Token struct {
	Roles   []string  `json:"roles"`         // that the server may have
	For     string    `json:"for,omitempty"` // the server that may join; "": any
	Expires time.Time `json:"expires"`
}

const (
	// revokedFor is how long a revocation is kept. The certificate cannot be renewed any more then: see package pki.
	revokedFor = 365 * 24 * time.Hour
	// mostDropped bounds the outdated keys that one transaction removes.
	mostDropped = 100
)

// PutToken puts a token by the digest of its secret, and removes those that have expired.
func (c *Coord) PutToken(ctx context.Context, digest string, t Token) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	ops := []clientv3.Op{clientv3.OpPut(c.tokenKey(digest), string(value))}
	r, err := c.read(ctx, c.tokenKey(""), clientv3.WithPrefix())
	if err == nil {
		for _, kv := range r.Kvs[:min(len(r.Kvs), mostDropped)] {
			var old Token
			if json.Unmarshal(kv.Value, &old) == nil && old.Expires.Before(time.Now()) {
				ops = append(ops, clientv3.OpDelete(string(kv.Key)))
			}
		}
		_, err = c.txn(ctx, nil, ops)
	}
	if err != nil {
		return fmt.Errorf("put token: %w", err)
	}
	return nil
}

// UseToken uses up the token whose secret has the digest, and puts a server, in one transaction: of two that use a
// token at the same moment one gets ErrNotFound. admit gets the token, and the server of that name that has joined
// (nil: none), and returns the new one; it must be a pure function. Its errors are returned unwrapped, and the token
// stays.
func (c *Coord) UseToken(
	ctx context.Context, digest, name string, admit func(Token, *Server) (*Server, error),
) (*Server, error) {
	key := c.tokenKey(digest)
	for range attempts {
		r, err := c.read(ctx, key)
		if err == nil && len(r.Kvs) == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("use token: %w", err)
		}
		var t Token
		if err := json.Unmarshal(r.Kvs[0].Value, &t); err != nil {
			return nil, fmt.Errorf("use token: %w", err)
		}
		also := addition{
			when: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", r.Kvs[0].ModRevision)},
			ops:  []clientv3.Op{clientv3.OpDelete(key)},
		}
		s, done, err := c.tryServer(ctx, name, also, func(old *Server) (*Server, error) { return admit(t, old) })
		if done || err != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("use token: %w", ErrConflict)
}

// PutServer puts a server, in place of one of that name. The identity of that one is revoked if it is another one.
func (c *Coord) PutServer(ctx context.Context, name string, s Server) error {
	return c.changeServer(ctx, name, func(*Server) (*Server, error) { return &s, nil })
}

// AddServer puts a server if there is none of that name. The error is ErrConflict if there is one.
func (c *Coord) AddServer(ctx context.Context, name string, s Server) error {
	return c.changeServer(ctx, name, func(old *Server) (*Server, error) {
		if old != nil {
			return nil, fmt.Errorf("server %s: %w", name, ErrConflict)
		}
		return &s, nil
	})
}

// RemoveServer removes a server and revokes its identity. The error is ErrNotFound if it has not joined.
func (c *Coord) RemoveServer(ctx context.Context, name string) error {
	return c.changeServer(ctx, name, func(old *Server) (*Server, error) {
		if old == nil {
			return nil, fmt.Errorf("server %s: %w", name, ErrNotFound)
		}
		return nil, nil
	})
}

// DrainServer sets since when a server boots no nodes; the zero time lets it boot nodes. The error is ErrNotFound if it
// has not joined.
func (c *Coord) DrainServer(ctx context.Context, name string, since time.Time) error {
	return c.changeServer(ctx, name, func(old *Server) (*Server, error) {
		if old == nil {
			return nil, fmt.Errorf("server %s: %w", name, ErrNotFound)
		}
		changed := *old
		changed.Drained = since
		return &changed, nil
	})
}

// MarkServer puts the mark of a server's disk in the place of the one before. The error is ErrConflict if the server
// has another one, and ErrNotFound if it has not joined.
func (c *Coord) MarkServer(ctx context.Context, name, mark, before string) error {
	return c.changeServer(ctx, name, func(old *Server) (*Server, error) {
		switch {
		case old == nil:
			return nil, fmt.Errorf("server %s: %w", name, ErrNotFound)
		case old.Mark != before && old.Mark != mark:
			return nil, fmt.Errorf("mark the disk of server %s: %w", name, ErrConflict)
		}
		changed := *old
		changed.Mark = mark
		return &changed, nil
	})
}

// AcceptDisk lets any disk of a server be the right one. The error is ErrNotFound if the server has not joined.
func (c *Coord) AcceptDisk(ctx context.Context, name string) error {
	return c.changeServer(ctx, name, func(old *Server) (*Server, error) {
		if old == nil {
			return nil, fmt.Errorf("server %s: %w", name, ErrNotFound)
		}
		changed := *old
		changed.Mark = ""
		return &changed, nil
	})
}

// changeServer puts what change makes of the server of a name, nil for none.
func (c *Coord) changeServer(ctx context.Context, name string, change func(old *Server) (*Server, error)) error {
	for range attempts {
		if _, done, err := c.tryServer(ctx, name, addition{}, change); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("change server %s: %w", name, ErrConflict)
}

// addition is what a transaction has besides.
type addition struct {
	when []clientv3.Cmp
	ops  []clientv3.Op
}

// tryServer makes one attempt of changeServer. done is false if the state has changed between the read and the write.
func (c *Coord) tryServer(
	ctx context.Context, name string, also addition, change func(old *Server) (*Server, error),
) (s *Server, done bool, err error) {
	key := c.serverKey(name)
	r, err := c.read(ctx, key)
	if err != nil {
		return nil, false, fmt.Errorf("read server %s: %w", name, err)
	}
	var old *Server
	revision := int64(0)
	for _, kv := range r.Kvs {
		old, revision = &Server{}, kv.ModRevision
		if err := json.Unmarshal(kv.Value, old); err != nil {
			return nil, false, fmt.Errorf("read server %s: %w", name, err)
		}
	}
	if s, err = change(old); err != nil {
		return nil, false, err
	}
	ops := append(also.ops, clientv3.OpDelete(key))
	if s != nil {
		value, err := json.Marshal(s)
		if err != nil {
			return nil, false, err
		}
		ops[len(ops)-1] = clientv3.OpPut(key, string(value))
	}
	if old != nil && (s == nil || s.ID != old.ID) {
		revoked, err := c.revoke(ctx, old.ID, name)
		if err != nil {
			return nil, false, err
		}
		ops = append(ops, revoked...)
	}
	when := append(also.when, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	put, err := c.txn(ctx, when, ops)
	if err != nil {
		return nil, false, fmt.Errorf("change server %s: %w", name, err)
	}
	return s, put.Succeeded, nil
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

const supersededKey = "superseded"

// Supersede notes that another head goes on without the heads of this state: State.Superseded. What was noted first
// stays.
func (c *Coord) Supersede(ctx context.Context, by Revocation) error {
	value, err := json.Marshal(by)
	if err != nil {
		return err
	}
	key := c.prefix + supersededKey
	absent := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
	if _, err := c.txn(ctx, absent, []clientv3.Op{clientv3.OpPut(key, string(value))}); err != nil {
		return fmt.Errorf("note that head %s goes on without this one: %w", by.Server, err)
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
		if err := put(c.revokedKey(id), r); err != nil {
			return fmt.Errorf("put revocation of %s: %w", r.Server, err)
		}
	}
	for name, s := range lost.Servers {
		s.Mark = "" // the state that was lost may have had a later one
		if err := put(c.serverKey(name), s); err != nil {
			return fmt.Errorf("put server %s: %w", name, err)
		}
	}
	return nil
}

// revoke returns the operations that end an identity, and that remove revocations that nothing needs any more.
func (c *Coord) revoke(ctx context.Context, id, server string) ([]clientv3.Op, error) {
	r, err := c.read(ctx, c.revokedKey(""), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read revocations: %w", err)
	}
	var ops []clientv3.Op
	for _, kv := range r.Kvs {
		var old Revocation
		if json.Unmarshal(kv.Value, &old) == nil && time.Since(old.Time) > revokedFor && len(ops) < mostDropped {
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
		}
	}
	return append(ops, c.putRevocation(id, Revocation{Server: server, Time: time.Now().UTC()})), nil
}

func (c *Coord) putRevocation(id string, r Revocation) clientv3.Op {
	value, _ := json.Marshal(r) // of texts and a time
	return clientv3.OpPut(c.revokedKey(id), string(value))
}

func (c *Coord) serverKey(name string) string  { return c.prefix + "servers/" + name }
func (c *Coord) revokedKey(id string) string   { return c.prefix + "revoked/" + id }
func (c *Coord) tokenKey(digest string) string { return c.prefix + "tokens/" + digest }
