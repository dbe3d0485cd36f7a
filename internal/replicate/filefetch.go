package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"dim/internal/image"
	"dim/internal/store"
)

// largeJob asks a source for one file, and other sources for what is left of it if the first one fails.
func (p *pull) largeJob(ctx context.Context, s *peer, j *job) (rest *job, err error) {
	n := j.needs[0]
	f := &fileReader{pull: p, ctx: ctx, need: n, job: j, from: s, asked: map[*peer]bool{s: true}}
	defer f.close()
	if base, err := p.o.store.OpenBlob(n.before); err == nil && !j.plain {
		defer base.Close()
		f.base = base
		if f.baseSize, err = size(base); err != nil {
			return j, &localError{err}
		}
	}
	err = p.put(ctx, j, func(b *store.Batch) error {
		err := f.storeIn(b)
		if err == nil {
			p.noteArrived(n, b)
		}
		return err
	})
	if err == nil {
		f.whole.relay(filePath, request{of: n.digest})
		p.got(1, 0)
		p.wakeWaiting()
		return nil, nil
	}
	p.got(0, -int64(f.off))
	rest, err = f.failed(err)
	if f.from == s {
		return rest, err
	}
	p.judge(ctx, f.from, err)
	return rest, nil
}

// storeIn stores the file. It goes on with what an earlier try has left of it, unless one source has to deliver all.
func (f *fileReader) storeIn(b *store.Batch) error {
	want := store.Content{Digest: f.need.digest, Size: f.need.size, Data: extents(f.need.sparse)}
	if f.job.alone {
		return b.PutExpected(f.ctx, want, f)
	}
	return b.PutPart(f.ctx, want, func(from uint64) io.Reader {
		f.off, f.resumed = from, from
		f.got(0, int64(from))
		return f
	})
}

// extents is not nil for a file with holes: where they are, PutExpected finds out.
func extents(sparse bool) []image.Extent {
	if sparse {
		return []image.Extent{}
	}
	return nil
}

// fileReader is the content of a file that arrives.
type fileReader struct {
	*pull
	ctx      context.Context
	need     *need
	job      *job
	base     *os.File // nil: none
	baseSize int64

	from  *peer
	asked map[*peer]bool // all sources that were

	usedBase bool
	a        *answer // nil: none yet
	whole    *answer // that had the whole file; nil: none
	based    bool    // the answer is a difference to base
	err      error   // of the last source
	off      uint64
	resumed  uint64 // bytes that an earlier try has left
	op       op     // what is left of the operation that is being read
}

// Read implements io.Reader. The whole file is followed by io.EOF.
func (f *fileReader) Read(b []byte) (int, error) {
	for {
		if f.off == f.need.size {
			return 0, f.ended()
		}
		n, err := f.read(b)
		f.off += uint64(n)
		f.got(0, int64(n))
		if n > 0 || err == nil {
			return n, nil
		}
		if err = f.next(err); err != nil {
			return 0, err
		}
	}
}

// ended returns io.EOF if the answer ends with the file, or has ended before.
func (f *fileReader) ended() error {
	if f.a == nil {
		return io.EOF
	}
	err := f.a.finish()
	if len(f.asked) == 1 && f.base == nil {
		f.whole = f.a
	}
	f.close()
	if errors.Is(err, errRefused) {
		f.err = err
		return err
	}
	return io.EOF // a connection that breaks here has delivered all
}

func (f *fileReader) close() {
	if f.a != nil {
		f.a.close()
		f.a = nil
	}
}

// read reads bytes of the answer. It returns either some, or an error.
func (f *fileReader) read(b []byte) (int, error) {
	if f.a == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.op.n == 0 {
		if err := f.nextOp(); err != nil {
			return 0, f.a.cause(err)
		}
	}
	b = b[:min(int64(len(b)), f.op.n)]
	var n int
	var err error
	switch f.op.kind {
	case kindZeros:
		n = len(b)
		clear(b)
	case kindCopy:
		if n, err = f.base.ReadAt(b, f.op.off); n == 0 && err != nil {
			return 0, &localError{err}
		}
	default:
		if n, err = f.a.b.Read(b); n == 0 && err != nil {
			return 0, f.a.cause(early(err))
		}
	}
	f.usedBase = f.usedBase || f.op.kind == kindCopy
	f.op.off += int64(n)
	f.op.n -= int64(n)
	return n, nil
}

// open asks the source for the file from the offset on.
func (f *fileReader) open() error {
	r := request{of: f.need.digest, from: f.off}
	if f.base != nil {
		r.list = []image.Digest{f.need.before}
	}
	a, err := f.ask(f.ctx, f.from, filePath, r)
	if err != nil {
		return err
	}
	f.a, f.op = a, op{}
	a.expects(f.need.size - f.off)
	base, err := a.base()
	if err != nil {
		return a.cause(err)
	}
	f.based = !base.IsZero()
	if f.based && (f.base == nil || base != f.need.before) {
		return refusef("a difference to %s, which was not named", base.Short())
	}
	return nil
}

// nextOp reads what comes next.
func (f *fileReader) nextOp() error {
	k, err := f.a.kind()
	if err != nil {
		return err
	}
	o := op{kind: k}
	switch k {
	case kindLiteral, kindZeros:
	case kindCopy:
		if !f.based {
			return refusef("a copy without a base")
		}
		off, err := f.a.number(uint64(f.baseSize))
		if err != nil {
			return err
		}
		o.off = int64(off)
	default:
		return refusef("a record of kind %q in a file", k)
	}
	n, err := f.a.number(f.need.size - f.off)
	switch {
	case err != nil:
		return err
	case n == 0:
		return refusef("an empty record in a file")
	case k == kindCopy && int64(n) > f.baseSize-o.off:
		return refusef("a copy that ends after the %d bytes of its base", f.baseSize)
	}
	o.n = int64(n)
	f.op = o
	return nil
}

// next chooses the source for the rest of the file after err. It returns err if there is none, or if another one may
// not go on.
func (f *fileReader) next(err error) error {
	f.close()
	f.err = err
	if errors.Is(err, errAbsent) {
		f.job.not = with(f.job.not, f.from)
	}
	if isLocal(err) || f.ctx.Err() != nil || errors.Is(err, errRefused) && f.off > 0 || f.job.alone {
		return err
	}
	other := f.another()
	if other == nil {
		return err
	}
	f.judge(f.ctx, f.from, err)
	f.from, f.asked[other], f.err = other, true, nil
	return nil
}

// another returns a source that was not asked for the file yet; nil if there is none.
func (f *fileReader) another() *peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.peers {
		if !s.out && !s.partial && !f.asked[s] && !f.job.not[s] {
			return s
		}
	}
	return nil
}

// failed returns the job that is left after an error of storeIn, and what the last source is to be judged by. If it
// cannot be told which source was wrong, the next one has to deliver all.
func (f *fileReader) failed(err error) (*job, error) {
	switch {
	case f.err != nil:
		return f.job, f.err
	case !errors.Is(err, store.ErrMismatch):
		return f.job, &localError{err}
	case f.resumed > 0: // the part came from servers that are not known any more, or was damaged
		f.job.alone = true
		return f.job, fmt.Errorf("a file of which a part was here did not fit: %v", err)
	case f.usedBase:
		f.job.plain = true // the base may be damaged on this server's disk
		return f.job, fmt.Errorf("a difference did not fit: %v", err)
	case len(f.asked) > 1:
		f.job.alone = true
		return f.job, fmt.Errorf("several servers delivered parts: %v", err)
	}
	return f.job, err
}
