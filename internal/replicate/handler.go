package replicate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/singleflight"

	"dim/internal/image"
	"dim/internal/store"
)

// HandlerOptions are what a Handler needs.
type HandlerOptions struct {
	Store   *store.Store
	Puller  *Puller                     // what it brings is offered while it arrives; nil: nothing is
	Holders func(image.Digest) []string // servers that are known to have a version with that digest; nil: none
	// Getters returns the servers with which the one that makes a request is to exchange parts of a version: those
	// that are getting it too, as far as is known. Nil: none.
	Getters func(*http.Request, image.Digest) []string
	Log     *slog.Logger
}

// Handler answers other servers from the store of this one.
type Handler struct {
	store   *store.Store
	puller  *Puller // nil: none
	holders func(image.Digest) []string
	getters func(*http.Request, image.Digest) []string
	log     *slog.Logger
	gear    *gear
	busy    chan struct{} // an element for each answer that is being sent

	encoders sync.Pool // of *zstd.Encoder
	shared   *sharedAnswers

	computing singleflight.Group // of differences
	mu        sync.Mutex
	known     map[[2]image.Digest][]op // differences of files, by base and file
	recent    [][2]image.Digest        // the keys of known, the oldest first
	asked     map[image.Digest]time.Time
}

const (
	// maxAnswers bounds the answers that are sent at the same time.
	maxAnswers = 128
	// maxKnown bounds the differences that are kept: all servers ask for the same ones.
	maxKnown = 64
	// maxKept is the number of operations of the largest difference that is kept.
	maxKept = 1 << 18
	// fetching is for how long a server may be fetching a version after it has asked for its trees.
	fetching = 30 * time.Minute
	// stuck is for how long an asker may take nothing of an answer.
	stuck = time.Minute
)

// NewHandler returns a Handler.
func NewHandler(o HandlerOptions) *Handler {
	if o.Holders == nil {
		o.Holders = func(image.Digest) []string { return nil }
	}
	if o.Getters == nil {
		o.Getters = func(*http.Request, image.Digest) []string { return nil }
	}
	h := &Handler{
		store: o.Store, puller: o.Puller, holders: o.Holders, getters: o.Getters, log: o.Log, gear: newGear(),
		busy: make(chan struct{}, maxAnswers), shared: newSharedAnswers(),
		known: map[[2]image.Digest][]op{}, asked: map[image.Digest]time.Time{},
	}
	if o.Puller != nil {
		h.shared = o.Puller.packed
	}
	return h
}

// Asked returns the digests of the versions that other servers may be fetching from here.
func (h *Handler) Asked() []image.Digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.asked, func(_ image.Digest, at time.Time) bool { return time.Since(at) > fetching })
	return slices.Collect(maps.Keys(h.asked))
}

func (h *Handler) noteAsked(d image.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[d] = time.Now()
}

// Register calls handle with the pattern and the handler of each request.
func (h *Handler) Register(handle func(pattern string, h http.Handler)) {
	handle("POST "+treesPath, h.answers(procedure{maxList: maxBases, answer: h.trees, head: h.name}))
	handle("POST "+blobsPath, h.answers(procedure{maxList: maxBlobs, answer: h.blobs,
		names: func(r request) []image.Digest { return r.list }, shares: func(request) bool { return true }}))
	handle("POST "+filePath, h.answers(procedure{maxList: maxBases, answer: h.file,
		names: func(r request) []image.Digest { return []image.Digest{r.of} }, shares: h.sharesFile}))
}

// answerFunc writes the answer to a request. Nothing is written after its error, so that the asker sees an answer that
// is cut short.
type answerFunc func(ctx context.Context, r request, w *writer) error

// procedure is how requests of one kind are answered.
type procedure struct {
	maxList int // bounds the digests of a request
	answer  answerFunc
	// head writes header fields; nil: none.
	head   func(r *http.Request, of image.Digest, header http.Header)
	names  func(r request) []image.Digest // the blobs that a request is for; nil: none
	shares func(r request) bool           // whether the answer is small enough to be shared; nil: it never is
}

func (h *Handler) answers(p procedure) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			http.Error(w, "the request is too large or was cut short", http.StatusBadRequest)
			return
		}
		asked, err := parseRequest(body, p.maxList)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case h.busy <- struct{}{}:
			defer func() { <-h.busy }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "this server sends as much as it can already", http.StatusServiceUnavailable)
			return
		}
		if p.head != nil {
			p.head(r, asked.of, w.Header())
		}
		w.Header().Set("Content-Type", "application/zstd")
		to := &timed{w: w, c: http.NewResponseController(w)}
		if p.names != nil {
			err = h.await(r, p.names(asked), to)
		}
		if err != nil {
			return // the asker has gone
		}
		if p.shares != nil && p.shares(asked) {
			err = h.sendShared(r, body, to, func(ctx context.Context, w *writer) error {
				return p.answer(ctx, asked, w)
			})
		} else {
			_, err = h.packAll(to, func(w *writer) error { return p.answer(r.Context(), asked, w) })
		}
		if err != nil && r.Context().Err() == nil {
			h.log.Warn("an answer to another server was cut short", "error", err)
		}
	})
}

// packAll packs what fill writes, and the end of the answer. It reports whether something was absent.
func (h *Handler) packAll(to io.Writer, fill func(w *writer) error) (absent bool, err error) {
	return h.pack(to, func(w *writer) error {
		if err := fill(w); err != nil {
			return err
		}
		w.kind(kindEnd)
		return w.err
	})
}

// pack packs what fill writes as one frame. It reports whether something was absent.
func (h *Handler) pack(to io.Writer, fill func(w *writer) error) (absent bool, err error) {
	z, err := h.encoder(to)
	if err != nil {
		return false, err
	}
	defer h.encoders.Put(z)
	w := &writer{w: bufio.NewWriterSize(z, 64<<10)}
	if err := fill(w); err != nil {
		return false, err
	}
	return w.absent, errors.Join(w.err, w.w.Flush(), z.Close())
}

// sendShared sends the answer to a request with a body, which may be one that was made for another asker.
func (h *Handler) sendShared(
	r *http.Request, body []byte, to io.Writer, fill func(ctx context.Context, w *writer) error,
) error {
	b, err := h.shared.get(r.Context(), image.Sum(append([]byte(r.URL.Path), body...)),
		func(ctx context.Context, to *bytes.Buffer) (keep bool, err error) {
			absent, err := h.packAll(to, func(w *writer) error { return fill(ctx, w) })
			return !absent, err
		})
	if err == nil {
		_, err = to.Write(b)
	}
	return err
}

// sharesFile reports whether the answer about a file is small enough to be shared.
func (h *Handler) sharesFile(r request) bool {
	f, err := h.open(r.of)
	if err != nil {
		return false
	}
	defer f.Close()
	n, err := size(f)
	return err == nil && n <= sharedFile
}

func (h *Handler) encoder(w io.Writer) (*zstd.Encoder, error) {
	if z, ok := h.encoders.Get().(*zstd.Encoder); ok {
		z.Reset(w)
		return z, nil
	}
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true))
}

// timed gives up when the other end takes nothing for long.
type timed struct {
	w io.Writer
	c *http.ResponseController
}

func (t *timed) Write(p []byte) (int, error) {
	_ = t.c.SetWriteDeadline(time.Now().Add(stuck)) // fails where a test has no connection
	return t.w.Write(p)
}

// open opens a blob that this server has, or that has just arrived.
func (h *Handler) open(d image.Digest) (*os.File, error) {
	if h.puller == nil {
		return h.store.OpenBlob(d)
	}
	return h.puller.openBlob(d)
}

// name names servers that have the version that is asked for: a few of them, others to each asker. It also names those
// that are getting it.
func (h *Handler) name(r *http.Request, of image.Digest, header http.Header) {
	if getters := h.getters(r, of); len(getters) > 0 {
		header.Set(gettersHeader, strings.Join(getters[:min(len(getters), maxGetters)], ","))
	}
	list := h.holders(of)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if len(list) > 0 {
		header.Set(holdersHeader, strings.Join(list[:min(len(list), maxHolders)], ","))
	}
}

// trees sends the trees of a root that differ from those of the first base that this store has.
func (h *Handler) trees(ctx context.Context, r request, w *writer) error {
	root, err := h.store.Root(r.of)
	if errors.Is(err, store.ErrNotFound) {
		w.kind(kindAbsent)
		return nil
	}
	if err != nil {
		return err
	}
	h.noteAsked(r.of)
	t := treeSender{ctx: ctx, store: h.store, w: w, sent: map[image.Digest]bool{}}
	var base, from image.Digest
	for _, d := range r.list {
		if b, err := h.store.Root(d); err == nil {
			base, from = d, b.Digest
			break
		}
	}
	if len(r.list) == 1 && r.list[0] == base || len(r.list) == 0 {
		t.skip = r.from // the order is the same as before only if the base is
	}
	w.kind(kindBase)
	w.bytes(base[:])
	enc, err := root.EncodeRoot()
	if err != nil {
		return err
	}
	if err := t.send(func() error { w.whole(enc); return nil }); err != nil {
		return err
	}
	return t.tree(from, root.Digest)
}

// treeSender sends trees in the order of a walk.
type treeSender struct {
	ctx   context.Context
	store *store.Store
	w     *writer
	skip  uint64 // records that are not sent
	sent  map[image.Digest]bool
}

func (t *treeSender) send(write func() error) error {
	if t.skip > 0 {
		t.skip--
		return nil
	}
	return write()
}

// tree sends the tree of, and those below it that are not in the tree old. A zero old is none.
func (t *treeSender) tree(old, of image.Digest) error {
	if of == old || t.sent[of] {
		return nil
	}
	t.sent[of] = true
	if err := errors.Join(t.ctx.Err(), t.w.err); err != nil {
		return err
	}
	tree, err := t.store.Tree(of)
	if err != nil {
		return err
	}
	var before image.Tree
	if !old.IsZero() {
		if before, err = t.store.Tree(old); err != nil {
			return err
		}
	}
	if err := t.send(func() error { return t.write(old, before, tree) }); err != nil {
		return err
	}
	for i := range tree {
		if tree[i].Type != image.Directory {
			continue
		}
		was := image.Digest{}
		if e, ok := before.Lookup(tree[i].Name); ok && e.Type == image.Directory {
			was = e.Digest
		}
		if err := t.tree(was, tree[i].Digest); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeSender) write(old image.Digest, before, tree image.Tree) error {
	enc, err := tree.Encode()
	if err != nil {
		return err
	}
	if !old.IsZero() {
		delta, err := treeDelta(before, tree)
		if err != nil {
			return err
		}
		if len(delta)+len(old) < len(enc) {
			t.w.kind(kindDelta)
			t.w.bytes(old[:])
			t.w.number(uint64(len(enc)))
			t.w.bytes(delta)
			return nil
		}
	}
	t.w.whole(enc)
	return nil
}

// blobs sends blobs, each in one piece.
func (h *Handler) blobs(ctx context.Context, r request, w *writer) error {
	for _, d := range r.list {
		if err := errors.Join(ctx.Err(), w.err); err != nil {
			return err
		}
		if err := h.blob(d, w); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) blob(d image.Digest, w *writer) error {
	f, err := h.open(d)
	if errors.Is(err, store.ErrNotFound) {
		w.kind(kindAbsent)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := size(f)
	if err != nil {
		return err
	}
	if n > large {
		w.kind(kindAbsent) // no asker that knows its size wants it here
		return nil
	}
	w.kind(kindWhole, uint64(n))
	w.copyFrom(f, uint64(n))
	return w.err
}

// file sends a file from an offset on, as its difference to the first base that this store has.
func (h *Handler) file(ctx context.Context, r request, w *writer) error {
	of, err := h.open(r.of)
	if errors.Is(err, store.ErrNotFound) {
		w.kind(kindAbsent)
		return nil
	}
	if err != nil {
		return err
	}
	defer of.Close()
	var base *os.File
	var name image.Digest
	for _, d := range r.list {
		if f, err := h.store.OpenBlob(d); err == nil {
			defer f.Close()
			base, name = f, d
			break
		}
	}
	list, err := h.difference(ctx, [2]image.Digest{name, r.of}, base, of)
	if err != nil {
		return err
	}
	w.kind(kindBase)
	w.bytes(name[:])
	off := int64(0)
	for _, o := range list {
		if err := errors.Join(ctx.Err(), w.err); err != nil {
			return err
		}
		skip := min(max(int64(min(r.from, math.MaxInt64))-off, 0), o.n)
		off += o.n
		if o.off, o.n = o.off+skip, o.n-skip; o.n > 0 {
			sendOp(w, of, o, off-o.n)
		}
	}
	return w.err
}

// sendOp sends one operation of a difference. A literal is at off in the file.
func sendOp(w *writer, of *os.File, o op, off int64) {
	switch o.kind {
	case kindCopy:
		w.kind(kindCopy, uint64(o.off), uint64(o.n))
	case kindZeros:
		w.kind(kindZeros, uint64(o.n))
	default:
		w.kind(kindLiteral, uint64(o.n))
		w.copyFrom(io.NewSectionReader(of, off, o.n), uint64(o.n))
	}
}

// difference returns the difference of two files. Several askers wait for one that computes it.
func (h *Handler) difference(ctx context.Context, key [2]image.Digest, base, of *os.File) ([]op, error) {
	h.mu.Lock()
	list, ok := h.known[key]
	h.mu.Unlock()
	switch {
	case ok:
		return list, nil
	case base == nil:
		return difference(ctx, h.gear, nil, of)
	}
	got, err, _ := h.computing.Do(string(key[0][:])+string(key[1][:]), func() (any, error) {
		list, err := difference(context.WithoutCancel(ctx), h.gear, base, of)
		if err == nil && len(list) <= maxKept {
			h.keep(key, list)
		}
		return list, err
	})
	if err != nil {
		return nil, err
	}
	return got.([]op), nil
}

func (h *Handler) keep(key [2]image.Digest, list []op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.recent) == maxKnown {
		delete(h.known, h.recent[0])
		h.recent = h.recent[1:]
	}
	h.known[key] = list
	h.recent = append(h.recent, key)
}
