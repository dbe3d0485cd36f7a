package coord

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Keys of descriptions that were replaced, below historyKey: what is listed of them, and their files, by revision.
const (
	descriptionKey = "description"
	historyKey     = "history/"
	aboutKey       = historyKey + "about/"
	filesKey       = historyKey + "files/"
)

const (
	// keptDescriptions is how many replaced descriptions are kept.
	keptDescriptions = 100
	// maxKept is the size of the files of a replaced description that are kept, compressed, in bytes. Those of 10,000
	// nodes with an inventory have about 100 kB.
	maxKept = 1 << 20
	// maxUnpacked bounds the size of what kept files are decompressed to, in bytes.
	maxUnpacked = 2 * maxRequest
)

// PutDescription makes d the applied description and returns its revision. ifRevision is the revision of the
// description that it replaces: 0 for none, -1 for whichever there is. If there is another one, the error is
// ErrConflict.
func (c *Coord) PutDescription(ctx context.Context, d Description, ifRevision int64) (int64, error) {
	return c.Apply(ctx, d, ifRevision, func(State) (Change, error) { return Change{}, nil })
}

// Apply is PutDescription, together with a change that decide derives from the present state, as Decide: both are made,
// or neither. The description that is replaced goes into the history.
func (c *Coord) Apply(
	ctx context.Context, d Description, ifRevision int64, decide func(State) (Change, error),
) (int64, error) {
	value, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	for range attempts {
		s, _, err := c.present(ctx)
		if err != nil {
			return 0, fmt.Errorf("put description: %w", err)
		}
		revision, err := c.tryApply(ctx, &s, value, ifRevision, decide)
		if !errors.Is(err, errAgain) {
			return revision, err
		}
	}
	return 0, fmt.Errorf("put description: %w", ErrConflict)
}

// errAgain reports that the state has changed while a decision was made.
var errAgain = errors.New("the state has changed")

func (c *Coord) tryApply(
	ctx context.Context, s *State, value []byte, ifRevision int64, decide func(State) (Change, error),
) (int64, error) {
	replaced := int64(0)
	if s.Description != nil {
		replaced = s.Description.Revision
	}
	if ifRevision >= 0 && ifRevision != replaced {
		return 0, fmt.Errorf("put description: %w", ErrConflict)
	}
	change, err := decide(*s)
	if err != nil {
		return 0, err
	}
	ops, err := c.ops(s, &change)
	if err != nil {
		return 0, err
	}
	kept, err := c.keep(ctx, s.Description)
	if err != nil {
		return 0, fmt.Errorf("put description: %w", err)
	}
	key := c.prefix + descriptionKey
	ops = append(append(ops, kept...), clientv3.OpPut(key, string(value)))
	when := append(c.unchangedSince(s.Revision), clientv3.Compare(clientv3.ModRevision(key), "=", replaced))
	r, err := c.txn(ctx, when, ops)
	switch {
	case err != nil:
		return 0, fmt.Errorf("put description: %w", err)
	case !r.Succeeded:
		return 0, errAgain
	}
	return r.Header.Revision, nil
}

// keep returns the operations that put a description that is replaced into the history, and remove the oldest ones.
func (c *Coord) keep(ctx context.Context, d *Description) ([]clientv3.Op, error) {
	if d == nil {
		return nil, nil
	}
	about, err := json.Marshal(d.about())
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{clientv3.OpPut(c.prefix+aboutKey+revisionName(d.Revision), string(about))}
	files, err := packed(d.Files)
	if err != nil {
		return nil, err
	}
	if len(files) <= maxKept {
		ops = append(ops, clientv3.OpPut(c.prefix+filesKey+revisionName(d.Revision), string(files)))
	}
	last, err := c.read(ctx, c.prefix+aboutKey, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(keptDescriptions))
	if err != nil || len(last.Kvs) < keptDescriptions {
		return ops, err
	}
	first := strings.TrimPrefix(string(last.Kvs[keptDescriptions-2].Key), c.prefix+aboutKey)
	for _, key := range []string{aboutKey, filesKey} {
		ops = append(ops, clientv3.OpDelete(c.prefix+key, clientv3.WithRange(c.prefix+key+first)))
	}
	return ops, nil
}

// revisionName returns a revision in a form that sorts as a text.
func revisionName(revision int64) string { return fmt.Sprintf("%016d", revision) }

// about returns d without its files.
func (d *Description) about() Description {
	a := *d
	a.Files = nil
	return a
}

// packed returns files in the form of the history: JSON, compressed by gzip.
func packed(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(files); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// unpacked is the inverse of packed.
func unpacked(b []byte) (files []File, err error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err == nil && len(text) > maxUnpacked {
		err = fmt.Errorf("more than %d bytes", maxUnpacked)
	}
	if err == nil {
		err = json.Unmarshal(text, &files)
	}
	return files, err
}

// History returns the descriptions that were applied, without their files, the latest first: the applied one, and the
// last hundred that were replaced.
func (c *Coord) History(ctx context.Context) ([]Description, error) {
	r, err := c.txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(c.prefix + descriptionKey), clientv3.OpGet(c.prefix+aboutKey, clientv3.WithPrefix()),
	})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	var list []Description
	for _, kv := range r.Responses[1].GetResponseRange().Kvs {
		var d Description
		if err := json.Unmarshal(kv.Value, &d); err != nil {
			return nil, fmt.Errorf("read history: %s: %v", kv.Key, err)
		}
		name := strings.TrimPrefix(string(kv.Key), c.prefix+aboutKey)
		if d.Revision, err = strconv.ParseInt(name, 10, 64); err != nil {
			return nil, fmt.Errorf("read history: %s: %v", kv.Key, err)
		}
		list = append(list, d)
	}
	for _, kv := range r.Responses[0].GetResponseRange().Kvs {
		d := Description{Revision: kv.ModRevision}
		if err := json.Unmarshal(kv.Value, &d); err != nil {
			return nil, fmt.Errorf("read history: %s: %v", kv.Key, err)
		}
		list = append(list, d.about())
	}
	slices.Reverse(list)
	return list, nil
}

// DescriptionAt returns the description with a revision, which was applied and is kept in the history. The error is
// ErrNotFound if it is not kept, or was too large for it.
func (c *Coord) DescriptionAt(ctx context.Context, revision int64) (d Description, err error) {
	name := revisionName(revision)
	r, err := c.txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(c.prefix + aboutKey + name), clientv3.OpGet(c.prefix + filesKey + name),
	})
	if err != nil {
		return d, fmt.Errorf("read description %d: %w", revision, err)
	}
	about, files := r.Responses[0].GetResponseRange().Kvs, r.Responses[1].GetResponseRange().Kvs
	if len(about) == 0 || len(files) == 0 {
		return d, fmt.Errorf("read description %d: %w", revision, ErrNotFound)
	}
	if err = json.Unmarshal(about[0].Value, &d); err == nil {
		d.Files, err = unpacked(files[0].Value)
	}
	if d.Revision = revision; err != nil {
		return d, fmt.Errorf("read description %d: %v", revision, err)
	}
	return d, nil
}
