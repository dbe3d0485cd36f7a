package replicate

import (
	"context"
	"errors"

	"dim/internal/store"
)

// smallJob asks a source for small blobs. It returns those that are left, with the error if they are for that.
func (p *pull) smallJob(ctx context.Context, s *peer, j *job) (rest *job, err error) {
	rest = j
	err = p.put(ctx, j, func(b *store.Batch) (err error) {
		rest, err = p.smallBlobs(ctx, s, j, b)
		return err
	})
	p.wakeWaiting()
	return rest, err
}

func (p *pull) smallBlobs(ctx context.Context, s *peer, j *job, b *store.Batch) (rest *job, err error) {
	r, bytes := request{}, uint64(0)
	for _, n := range j.needs {
		r.list, bytes = append(r.list, n.digest), bytes+n.size
	}
	a, err := p.ask(ctx, s, blobsPath, r)
	if err != nil {
		return j, err
	}
	defer a.close()
	a.expects(bytes)
	var absent []*need
	var buf []byte
	for i, n := range j.needs {
		if buf, err = readBlob(a.reader, n, buf[:0]); errors.Is(err, errAbsent) {
			absent = append(absent, n)
			continue
		}
		if err == nil {
			err = p.putSmall(ctx, b, n, buf)
		}
		if err != nil {
			return &job{needs: append(absent, j.needs[i:]...), not: j.not}, a.cause(err)
		}
		if p.noteArrived(n, b) {
			p.got(1, int64(n.size))
		}
	}
	err = a.cause(a.finish())
	if len(absent) == 0 {
		a.relay(blobsPath, r)
		return nil, err
	}
	return &job{needs: absent, not: with(j.not, s)}, err
}

// with returns not with s.
func with(not map[*peer]bool, s *peer) map[*peer]bool {
	out := map[*peer]bool{s: true}
	for other := range not {
		out[other] = true
	}
	return out
}

// readBlob reads the record of a small blob into buf.
func readBlob(d *reader, n *need, buf []byte) ([]byte, error) {
	k, err := d.kind()
	switch {
	case err != nil:
		return buf, err
	case k == kindAbsent:
		return buf, errAbsent
	case k != kindWhole:
		return buf, refusef("a record of kind %q where a blob belongs", k)
	}
	size, err := d.number(large)
	if err != nil {
		return buf, err
	}
	if size != n.size {
		return buf, refusef("%d bytes of blob %s, which has %d", size, n.digest.Short(), n.size)
	}
	out, err := d.appendBytes(buf, size)
	if err != nil {
		return buf, err
	}
	return out, nil
}

func (p *pull) putSmall(ctx context.Context, b *store.Batch, n *need, content []byte) error {
	err := b.PutNamed(n.digest, content)
	if err != nil && !errors.Is(err, store.ErrMismatch) {
		return &localError{err}
	}
	return err
}
