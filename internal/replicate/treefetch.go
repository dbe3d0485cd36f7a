package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dim/internal/image"
	"dim/internal/store"
)

// fetchTrees asks for the trees of the version, one source after the other until one has sent all of them. Wanted are
// those that are known to be missing.
func (p *pull) fetchTrees(ctx context.Context, wanted []image.Digest) error {
	x := treeFetch{pull: p, wanted: map[image.Digest]bool{}, bases: p.bases}
	for _, d := range wanted {
		x.wanted[d] = true
	}
	err := errAbsent
	for range patience {
		for _, s := range p.sources() {
			if p.isOut(s) || s.partial {
				continue
			}
			if err = x.from(ctx, s); err == nil {
				return nil
			}
			if p.judge(ctx, s, err); ctx.Err() != nil || p.failure() != nil {
				return err
			}
		}
	}
	return fmt.Errorf("list its files: %w", err)
}

// sources returns the sources as they are now: an answer may name more.
func (p *pull) sources() []*peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.peers)
}

func (p *pull) isOut(s *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.out
}

func (p *pull) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// treeFetch is a listing that several sources may contribute to.
type treeFetch struct {
	*pull
	wanted map[image.Digest]bool // trees that are named, and not here; the root among them
	bases  []image.Digest
	got    uint64 // records of an answer with these bases
}

// maxSurplus bounds the records with trees that are here already.
const maxSurplus = 1 << 20

func (x *treeFetch) from(ctx context.Context, s *peer) error {
	a, err := x.ask(ctx, s, treesPath, request{of: x.v.Digest, from: x.got, list: x.bases})
	if err != nil {
		return err
	}
	defer a.close()
	return a.cause(x.read(a))
}

func (x *treeFetch) read(a *answer) error {
	base, err := a.base()
	if err != nil {
		return err
	}
	if !base.IsZero() && !slices.Contains(x.bases, base) {
		return refusef("a difference to %s, which was not named", base.Short())
	}
	x.continueWith(base)
	surplus := 0
	for {
		k, err := a.kind()
		if err != nil {
			return err
		}
		if k == kindEnd {
			a.drain()
			break
		}
		b, err := x.tree(a, k)
		if err != nil {
			return err
		}
		isNew, err := x.accept(b)
		if err != nil {
			return err
		}
		x.got++
		if !isNew {
			if surplus++; surplus > maxSurplus {
				return refusef("%d trees that are here already", surplus)
			}
		}
	}
	if d, left := x.incomplete(); left {
		return refusef("a complete answer without tree %s", d.Short())
	}
	return nil
}

// continueWith notes which base an answer has. Records can be counted for the next answer if that has the same.
func (x *treeFetch) continueWith(base image.Digest) {
	was := image.Digest{}
	if len(x.bases) == 1 {
		was = x.bases[0]
	}
	if len(x.bases) > 1 || was != base {
		x.got = 0
	}
	if x.bases = nil; !base.IsZero() {
		x.bases = []image.Digest{base}
	}
}

// incomplete returns a tree that is still missing.
func (x *treeFetch) incomplete() (image.Digest, bool) {
	for d := range x.wanted {
		if _, err := x.o.store.Tree(d); err != nil {
			return d, true
		}
	}
	return image.Digest{}, false
}

// tree reads the bytes of a tree.
func (x *treeFetch) tree(a *answer, kind byte) ([]byte, error) {
	switch kind {
	case kindWhole:
		n, err := a.number(maxTree)
		if err != nil {
			return nil, err
		}
		return a.appendBytes(nil, n)
	case kindDelta:
		d, err := a.digest()
		if err != nil {
			return nil, err
		}
		n, err := a.number(maxTree)
		if err != nil {
			return nil, err
		}
		old, err := x.o.store.Tree(d)
		if errors.Is(err, store.ErrNotFound) {
			return nil, refusef("a difference to the tree %s, which no base has", d.Short())
		}
		if err != nil {
			return nil, &localError{err}
		}
		base, err := old.Encode()
		if err != nil {
			return nil, &localError{err}
		}
		return a.delta(base, n)
	}
	return nil, refusef("a record of kind %q where a tree belongs", kind)
}

// accept takes a tree or the root. It returns false if it is here already.
func (x *treeFetch) accept(b []byte) (isNew bool, err error) {
	d := image.Sum(b)
	if d == x.v.Digest {
		root, err := image.ParseRoot(b)
		if err != nil {
			return false, refusef("%v", err)
		}
		isNew = x.root == nil
		if x.root = &root; isNew {
			delete(x.wanted, d)
			x.name(root.Digest)
		}
		return isNew, nil
	}
	if _, ok := x.trees[d]; ok {
		return false, nil
	}
	if !x.wanted[d] {
		if _, err := x.o.store.Tree(d); err == nil {
			return false, nil
		}
		return false, refusef("tree %s, which belongs to no directory of the version", d.Short())
	}
	t, err := image.ParseTree(b, nil)
	if err != nil {
		return false, refusef("%v", err)
	}
	x.trees[d] = t
	delete(x.wanted, d)
	for i := range t {
		if t[i].Type == image.Directory {
			x.name(t[i].Digest)
		}
	}
	return true, nil
}

// name notes that a directory has a tree.
func (x *treeFetch) name(d image.Digest) {
	if _, ok := x.trees[d]; !ok {
		x.wanted[d] = true
	}
}
