package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"dim/internal/capture/archive"
	"dim/internal/capture/draft"
	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/store"
)

// Task is what the child does.
func Task(ctx context.Context, c *confine.Child) error {
	t := &task{child: c, need: map[string]bool{}, note: c.SetNote}
	return t.run(ctx)
}

func (t *task) run(ctx context.Context) error {
	if err := t.child.Request(&t.request); err != nil {
		return err
	}
	for _, text := range t.request.Exclude {
		p, err := pathmatch.Parse(text)
		if err != nil {
			return err
		}
		t.exclude = append(t.exclude, p)
	}
	for {
		again, err := t.pass(ctx)
		if err != nil || !again {
			return err
		}
	}
}

type task struct {
	child   *confine.Child
	request request
	exclude pathmatch.List
	need    map[string]bool   // excluded paths whose content is needed
	note    func(path string) // called with each member before it is added

	objects      int // that were sent
	files, bytes uint64
	told         time.Time // when progress was sent last
}

// pass reads the archives and sends what is in them. A hard link may refer to an excluded file whose content was
// skipped. That is known only at the end; then everything is read once more.
func (t *task) pass(ctx context.Context) (again bool, err error) {
	var odd oddities
	tree := draft.New(draft.Options{Exclude: t.exclude, Follow: t.layered(), Need: t.need})
	t.files, t.bytes = 0, 0
	u := &archive.Unpacker{
		Batch: t, Tree: tree, Layer: t.layered(), Progress: t.progress, Note: t.note, Warn: odd.add,
	}
	if err := t.read(ctx, u); err != nil {
		return false, err
	}
	if missing := tree.Missing(); len(missing) > 0 {
		known := len(t.need)
		for _, path := range missing {
			t.need[path] = true
		}
		if len(t.need) == known {
			return false, fmt.Errorf("/%s: its content is missing", missing[0])
		}
		return true, nil
	}
	sum, err := tree.Store(ctx, t)
	if err != nil {
		return false, err
	}
	root, err := sum.Root.EncodeRoot()
	if err != nil {
		return false, err
	}
	text, err := json.Marshal(summary{
		Root: root, Files: sum.Files, Bytes: sum.Bytes, FilesRead: u.Files, BytesRead: u.Bytes, Odd: odd.list,
		Replaced: some(tree.ReplacedLinks()),
	})
	if err != nil {
		return false, err
	}
	return false, errors.Join(t.tell(), t.child.Send(kindSummary, text))
}

func (t *task) layered() bool { return len(t.request.DiffIDs) > 0 }

func (t *task) read(ctx context.Context, u *archive.Unpacker) error {
	if !t.layered() {
		return t.readFile(ctx, u)
	}
	for n := range t.request.DiffIDs {
		if n > 0 {
			u.Tree.NextLayer()
		}
		if err := t.readLayer(ctx, n, u); err != nil {
			return fmt.Errorf("layer %d of %d: %w", n+1, len(t.request.DiffIDs), err)
		}
	}
	return nil
}

func (t *task) readFile(ctx context.Context, u *archive.Unpacker) error {
	f := t.child.File(0)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := archive.Open(f)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := u.Unpack(ctx, r); err != nil {
		return err
	}
	return checkRoot(u.Tree)
}

func (t *task) readLayer(ctx context.Context, n int, u *archive.Unpacker) error {
	if err := t.child.Send(kindLayer, binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		return err
	}
	packed := &layer{child: t.child}
	r, err := archive.Decompress(packed)
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	defer r.Close()
	sum := sha256.New()
	if err := u.Unpack(ctx, io.TeeReader(r, sum)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != t.request.DiffIDs[n] {
		return fmt.Errorf("what is in it has the digest sha256:%s, not sha256:%s", got, t.request.DiffIDs[n])
	}
	return nil
}

// layer is a layer as the parent sends it.
type layer struct {
	child *confine.Child
	rest  []byte
	ended bool
}

func (l *layer) Read(p []byte) (int, error) {
	for len(l.rest) == 0 {
		if l.ended {
			return 0, io.EOF
		}
		kind, payload, err := l.child.Receive()
		if err != nil {
			return 0, err
		}
		l.rest, l.ended = payload, kind == kindLayerEnd
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// checkRoot returns an error if a tree is no root but what people have handed over instead.
func checkRoot(tree *draft.Tree) error {
	top := tree.Top()
	has := func(name string) bool { return slices.Contains(top, name) }
	switch {
	case has("oci-layout") && has("index.json"):
		return errors.New("it is an archive of an OCI layout, not of a root: unpack it into a directory " +
			"(tar -C DIR -xf FILE), and let the master be oci:DIR")
	case has("manifest.json") && !has("usr") && !has("etc"):
		return errors.New("it is an archive of a container image as docker save makes it, not of a root: " +
			"skopeo copy docker-archive:FILE oci:DIR, and let the master be oci:DIR")
	case len(top) == 1 && tree.Has(top[0]+"/usr") && tree.Has(top[0]+"/etc"):
		return fmt.Errorf("the root is in the directory %s of the archive: make it with \"tar -C %[1]s .\"", top[0])
	}
	return nil
}

// progressInterval is how often progress is sent.
const progressInterval = 100 * time.Millisecond

func (t *task) progress(files, bytes uint64) {
	t.files, t.bytes = t.files+files, t.bytes+bytes
	if time.Since(t.told) > progressInterval {
		_ = errors.Join(t.tell(), t.child.Flush()) // a broken pipe shows at the next frame
	}
}

func (t *task) tell() error {
	t.told = time.Now()
	b := binary.BigEndian.AppendUint64(nil, t.files)
	return t.child.Send(kindProgress, binary.BigEndian.AppendUint64(b, t.bytes))
}

// sent returns the placeholder of the next object, which was sent.
func (t *task) sent(err error) (image.Digest, error) {
	if err == nil && t.objects >= maxObjects {
		err = fmt.Errorf("more than %d files and directories", maxObjects)
	}
	t.objects++
	return placeholder(t.objects - 1), err
}

// PutBytes implements archive.Batch.
func (t *task) PutBytes(content []byte) (image.Digest, error) {
	if len(content) == 0 {
		return image.Sum(nil), nil // the parent knows it
	}
	return t.sent(t.child.Send(kindSmall, content))
}

// PutBlob implements archive.Batch.
func (t *task) PutBlob(ctx context.Context, r io.Reader) (store.Content, error) {
	return t.put(ctx, r, 0)
}

// PutSparse implements archive.Batch.
func (t *task) PutSparse(ctx context.Context, r io.Reader) (store.Content, error) {
	return t.put(ctx, r, 1)
}

func (t *task) put(ctx context.Context, r io.Reader, sparse byte) (c store.Content, err error) {
	if err := t.child.Send(kindBegin, []byte{sparse}); err != nil {
		return c, err
	}
	buf := make([]byte, 256<<10)
	zeros, run := make([]byte, len(buf)), uint64(0)
	for ended := false; !ended; {
		n, rerr := io.ReadFull(r, buf)
		ended = errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF)
		c.Size += uint64(n)
		if n > 0 && bytes.Equal(buf[:n], zeros[:n]) {
			run, n = run+uint64(n), 0
		}
		if run > 0 && (n > 0 || ended) {
			err = t.child.Send(kindZeros, binary.BigEndian.AppendUint64(nil, run))
			run = 0
		}
		if n > 0 {
			err = errors.Join(err, t.child.Send(kindData, buf[:n]))
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return c, err
		}
		if rerr != nil && !ended {
			return c, rerr
		}
	}
	c.Digest, err = t.sent(t.child.Send(kindContent))
	if c.Size == 0 {
		c.Digest = image.Sum(nil)
	}
	return c, err
}

// PutTree implements draft.Batch.
func (t *task) PutTree(tree image.Tree) (image.Digest, error) {
	b, err := tree.Encode()
	if err != nil {
		return image.Digest{}, err
	}
	for ; len(b) > confine.MaxPayload && err == nil; b = b[confine.MaxPayload:] {
		err = t.child.Send(kindTreePart, b[:confine.MaxPayload])
	}
	return t.sent(errors.Join(err, t.child.Send(kindTree, b)))
}

// oddities gathers what is odd, each text once.
type oddities struct{ list []Oddity }

func (o *oddities) add(path, text string) {
	at := slices.IndexFunc(o.list, func(k Oddity) bool { return k.Text == text })
	switch {
	case at >= 0:
		o.list[at].More++
	case len(o.list) < maxTold:
		o.list = append(o.list, Oddity{Path: path, Text: text})
	}
}

// some returns the first of the replaced links.
func some(links map[string]string) map[string]string {
	for n, path := range slices.Sorted(maps.Keys(links)) {
		if n >= maxTold {
			delete(links, path)
		}
	}
	return links
}
