package unpack

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"dim/internal/confine"
	"dim/internal/image"
)

// Run reads a source with a child of the program and stores what is in it. Progress is called by the goroutine of the
// caller with names and bytes so far; it may be nil.
func Run(
	ctx context.Context, p confine.Program, src Source, batch Store, progress func(files, bytes uint64),
) (r Result, err error) {
	q := request{}
	for _, l := range src.Layers {
		q.DiffIDs = append(q.DiffIDs, l.DiffID)
	}
	for _, p := range src.Exclude {
		q.Exclude = append(q.Exclude, p.String())
	}
	var files []*os.File
	if src.File != nil {
		files = append(files, src.File)
	}
	child, err := p.Start(ctx, limits(), TaskName, q, files...)
	if err != nil {
		return r, err
	}
	in := &intake{ctx: ctx, frames: child, batch: batch, progress: progress}
	pump := &pump{child: child, layers: src.Layers}
	in.layer = pump.send
	r, err = in.all()
	if failed, ok := errors.AsType[*confine.Failure](err); ok {
		err = at(child.Note(), failed)
	}
	err = pump.end(errors.Join(err, child.Close()))
	return r, err
}

// at adds to a failure of the child what it was reading.
func at(note string, failed *confine.Failure) error {
	if note == "" {
		return fmt.Errorf("before the first member: %w", failed)
	}
	return fmt.Errorf("at or behind the member %q: %w", note, failed)
}

// pump sends layers to the child.
type pump struct {
	child  *confine.Process
	layers []Layer
	last   chan error // the result of the layer that was sent last; nil: none
}

// send begins to send a layer. The one before must have been sent.
func (p *pump) send(n uint32) error {
	if err := p.end(nil); err != nil {
		return err
	}
	if uint64(n) >= uint64(len(p.layers)) {
		return errAsked
	}
	done := make(chan error, 1)
	p.last = done
	go func() { done <- p.layer(n) }()
	return nil
}

// layer sends a layer. If the child does not take all of it, the rest is read nevertheless: a layer whose digest is
// wrong was damaged, whatever else seems to be wrong with it.
func (p *pump) layer(n uint32) error {
	r, err := p.layers[n].Open()
	if err != nil {
		return fmt.Errorf("layer %d of %d: %w", n+1, len(p.layers), err)
	}
	defer r.Close()
	sent := p.child.SendFrom(r, kindLayerData, kindLayerEnd)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("layer %d of %d: %w", n+1, len(p.layers), err)
	}
	if sent != nil {
		return errNotTaken
	}
	return nil
}

// errNotTaken is the error of a layer of which the child did not take all: why that is the child says.
var errNotTaken = errors.New("it was not read to its end")

// end waits for the layer that is being sent. Its error is the cause of err, if it has one of its own.
func (p *pump) end(err error) error {
	if p.last == nil {
		return err
	}
	sent := <-p.last
	p.last = nil
	if sent == nil || errors.Is(sent, errNotTaken) && err != nil {
		return err
	}
	return sent
}

// Errors of a child that was broken by what it read.
var (
	errAsked = errors.New("the process that reads it asks for what there is not")
	errForm  = errors.New("the process that reads it sends what it should not")
)

// frames are those of a child: a *confine.Process.
type frames interface {
	Receive() (confine.Kind, []byte, error)
}

// intake stores what a child sends. It believes nothing of it.
type intake struct {
	ctx      context.Context
	frames   frames
	batch    Store
	progress func(files, bytes uint64)
	layer    func(uint32) error

	objects []object
	extents map[int][]image.Extent // of the objects that have holes
	tree    []byte                 // what has come of a tree
	summary *summary
}

// object is a content or a tree that was stored.
type object struct {
	digest image.Digest
	size   uint64 // of a content; isTree: it is a tree
}

const isTree = math.MaxUint64

func (in *intake) all() (Result, error) {
	in.extents = map[int][]image.Extent{}
	for {
		kind, payload, err := in.frames.Receive()
		if errors.Is(err, io.EOF) {
			return in.result()
		}
		if err != nil {
			return Result{}, err
		}
		if err := in.frame(kind, payload); err != nil {
			return Result{}, err
		}
	}
}

func (in *intake) frame(kind confine.Kind, payload []byte) (err error) {
	if len(in.objects) >= maxObjects {
		return errForm
	}
	switch kind {
	case kindProgress:
		return in.tell(payload)
	case kindSmall:
		digest, err := in.batch.PutBytes(payload)
		in.objects = append(in.objects, object{digest, uint64(len(payload))})
		return err
	case kindBegin:
		return in.content(len(payload) == 1 && payload[0] == 1)
	case kindTreePart, kindTree:
		if len(in.tree)+len(payload) > maxTree {
			return errForm
		}
		if in.tree = append(in.tree, payload...); kind == kindTree {
			return in.putTree()
		}
		return nil
	case kindLayer:
		if len(payload) != 4 {
			return errForm
		}
		return in.layer(binary.BigEndian.Uint32(payload))
	case kindSummary:
		in.summary = &summary{}
		if json.Unmarshal(payload, in.summary) != nil {
			return errForm
		}
		return nil
	}
	return errForm
}

func (in *intake) tell(payload []byte) error {
	if len(payload) != 16 {
		return errForm
	}
	if in.progress != nil {
		in.progress(binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:]))
	}
	return nil
}

// content stores a content that comes in parts.
func (in *intake) content(sparse bool) error {
	put := in.batch.PutBlob
	if sparse {
		put = in.batch.PutSparse
	}
	c, err := put(in.ctx, &parts{in: in})
	if err != nil {
		return err
	}
	if c.Data != nil {
		in.extents[len(in.objects)] = c.Data
	}
	in.objects = append(in.objects, object{c.Digest, c.Size})
	return nil
}

// parts reads a content that comes in parts.
type parts struct {
	in    *intake
	data  []byte
	zeros uint64 // that come before what is received next
	size  uint64 // so far, with these
	ended bool
}

// SkipZeros skips zeros that come next, as many whole units of bytes as there are, and returns their number.
func (p *parts) SkipZeros(unit int64) (n int64, err error) {
	if err := p.fill(); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	skipped := p.zeros - p.zeros%uint64(unit)
	p.zeros -= skipped
	return int64(skipped), nil
}

// fill waits until there is something to read.
func (p *parts) fill() error {
	for len(p.data) == 0 && p.zeros == 0 && !p.ended {
		if err := p.next(); err != nil {
			return err
		}
	}
	if len(p.data) == 0 && p.zeros == 0 {
		return io.EOF
	}
	return nil
}

func (p *parts) Read(b []byte) (n int, err error) {
	if err := p.fill(); err != nil {
		return 0, err
	}
	if p.zeros > 0 {
		n = int(min(uint64(len(b)), p.zeros))
		clear(b[:n])
		p.zeros -= uint64(n)
		return n, nil
	}
	n = copy(b, p.data)
	p.data = p.data[n:]
	return n, nil
}

func (p *parts) next() error {
	kind, payload, err := p.in.frames.Receive()
	switch {
	case errors.Is(err, io.EOF): // the end of the child, not of the content
		return errForm
	case err != nil:
		return err
	case kind == kindProgress:
		return p.in.tell(payload)
	case kind == kindData:
		p.data = payload
		return p.count(uint64(len(payload)))
	case kind == kindZeros && len(payload) == 8:
		p.zeros = binary.BigEndian.Uint64(payload)
		return p.count(p.zeros)
	case kind == kindContent:
		p.ended = true
		return nil
	}
	return errForm
}

// count adds n bytes to the size of the content.
func (p *parts) count(n uint64) error {
	if n > image.MaxFile-p.size {
		return errForm
	}
	p.size += n
	return nil
}

func (in *intake) putTree() error {
	t, err := image.ParseTree(in.tree, nil)
	in.tree = in.tree[:0]
	if err != nil {
		return fmt.Errorf("%w: %w", errForm, err)
	}
	for i := range t {
		if err := in.resolve(&t[i]); err != nil {
			return err
		}
	}
	digest, err := in.batch.PutTree(t)
	in.objects = append(in.objects, object{digest, isTree})
	return err
}

// resolve puts the digest of what was stored in the place of the number in an entry.
func (in *intake) resolve(e *image.Entry) error {
	switch e.Type {
	case image.Regular:
		if e.Size == 0 && e.Digest == image.Sum(nil) { // of a file without content nothing needs to be sent
			_, err := in.batch.PutBytes(nil)
			return err
		}
	case image.Directory:
	default:
		return nil
	}
	n, ok := number(e.Digest)
	if !ok || n >= uint64(len(in.objects)) {
		return errForm
	}
	o := in.objects[n]
	if (e.Type == image.Directory) != (o.size == isTree) || e.Type == image.Regular && o.size != e.Size {
		return errForm
	}
	e.Digest, e.Data = o.digest, in.extents[int(n)]
	return nil
}

func (in *intake) result() (r Result, err error) {
	s := in.summary
	if s == nil || len(s.Odd) > maxTold || len(s.Replaced) > maxTold {
		return r, errForm
	}
	r = Result{Files: s.Files, Bytes: s.Bytes, FilesRead: s.FilesRead, BytesRead: s.BytesRead}
	r.Odd, r.Replaced = s.Odd, s.Replaced
	if r.Root, err = image.ParseRoot(s.Root); err != nil {
		return r, fmt.Errorf("%w: %w", errForm, err)
	}
	return r, in.resolve(&r.Root)
}
