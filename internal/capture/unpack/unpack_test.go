package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

// The readers of these tests. Some break at the member "bad", as a parser would for which it was made.
const (
	readerName = "dim-reader"
	crashName  = "dim-reader-crash"
	loopName   = "dim-reader-loop"
	gorgeName  = "dim-reader-gorge"
)

func TestMain(m *testing.M) {
	breaks := map[string]func(){
		readerName: func() {},
		crashName:  func() { panic("index out of range") },
		loopName: func() {
			for {
				time.Sleep(time.Hour)
			}
		},
		gorgeName: func() {
			for b := []byte("x"); ; b = append(b, b...) {
			}
		},
	}
	if bad, ok := breaks[os.Args[0]]; ok {
		task := func(ctx context.Context, c *confine.Child) error {
			t := &task{child: c, need: map[string]bool{}, note: func(path string) {
				c.SetNote(path)
				if path == "bad" {
					bad()
				}
			}}
			return t.run(ctx)
		}
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, map[string]confine.Task{TaskName: task}))
	}
	os.Exit(m.Run())
}

type lab struct {
	t     *testing.T
	store *store.Store
}

func newLab(t *testing.T) *lab {
	t.Helper()
	s := testkit.Value(store.Open(filepath.Join(t.TempDir(), "store"), store.Options{}))(t)
	t.Cleanup(func() { s.Close() })
	return &lab{t, s}
}

func (l *lab) run(reader string, src Source) (Result, error) {
	l.t.Helper()
	batch := testkit.Value(l.store.Begin())(l.t)
	defer batch.Abort()
	r, err := Run(l.t.Context(), confine.Program{Argv: []string{reader}}, src, batch, nil)
	if err != nil {
		return r, err
	}
	return r, batch.Commit(l.t.Context())
}

// archiveOf returns an archive of files, in pairs of name and content.
func archiveOf(t *testing.T, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1])), Format: tar.FormatPAX}
		testkit.Must(t, w.WriteHeader(h))
		testkit.Value(io.WriteString(w, pairs[i+1]))(t)
	}
	testkit.Must(t, w.Close())
	return b.Bytes()
}

func fileOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	f := testkit.Value(os.CreateTemp(t.TempDir(), "*.tar"))(t)
	t.Cleanup(func() { f.Close() })
	testkit.Value(f.Write(content))(t)
	return f
}

func TestContentOfAllSizesIsStored(t *testing.T) {
	l := newLab(t)
	large := strings.Repeat("0123456789abcdef", 100_000)
	zeros := string(make([]byte, 3<<20)) + "x"
	r, err := l.run(readerName, Source{File: fileOf(t, archiveOf(t, "a/empty", "", "a/small", "s", "b/large", large,
		"b/zeros", zeros))})
	testkit.Must(t, err)
	if r.Files != 6 || r.FilesRead != 4 {
		t.Errorf("%+v", r)
	}
	root := testkit.Value(l.store.Tree(r.Root.Digest))(t)
	for _, want := range [][3]string{
		{"a", "empty", ""}, {"a", "small", "s"}, {"b", "large", large}, {"b", "zeros", zeros},
	} {
		dir, _ := root.Lookup(want[0])
		e, _ := testkit.Value(l.store.Tree(dir.Digest))(t).Lookup(want[1])
		if e.Digest != image.Sum([]byte(want[2])) {
			t.Errorf("%s has the digest %s", want[1], e.Digest)
		}
		testkit.Value(l.store.OpenBlob(e.Digest))(t).Close()
	}
}

func TestWhatBreaksTheReaderIsAnErrorOfTheCaptureWithTheMember(t *testing.T) {
	l := newLab(t)
	content := archiveOf(t, "good", "x", "bad", "y", "more", "z")
	for reader, want := range map[string]string{
		crashName: "crashed: panic: index out of range",
		gorgeName: "takes more than 2048 MiB of memory",
	} {
		_, err := l.run(reader, Source{File: fileOf(t, content)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `the member "bad"`) {
			t.Errorf("%s: %v", reader, err)
		}
	}
	if _, err := l.run(readerName, Source{File: fileOf(t, content)}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAHangingReaderIsEnded(t *testing.T) {
	l := newLab(t)
	batch := testkit.Value(l.store.Begin())(t)
	defer batch.Abort()
	limits := confine.Limits{Memory: 1 << 30, Silence: time.Second}
	file := fileOf(t, archiveOf(t, "bad", "y"))
	reader := confine.Program{Argv: []string{loopName}}
	c := testkit.Value(reader.Start(t.Context(), limits, TaskName, request{}, file))(t)
	defer c.Close()
	in := &intake{ctx: t.Context(), frames: c, batch: batch}
	_, err := in.all()
	if _, ok := errors.AsType[*confine.Failure](err); !ok || !strings.Contains(err.Error(), "did nothing for 1s") {
		t.Errorf("error %v", err)
	}
	if got := c.Note(); got != "bad" {
		t.Errorf("note %q", got)
	}
}

// layerOf returns a layer whose archive is compressed.
func layerOf(t *testing.T, content []byte) Layer {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	testkit.Value(w.Write(content))(t)
	testkit.Must(t, w.Close())
	return Layer{
		DiffID: image.Sum(content).String(),
		Open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	}
}

func TestLayersAreSentToTheReader(t *testing.T) {
	l := newLab(t)
	lower, upper := layerOf(t, archiveOf(t, "a", "1", "b", "2")), layerOf(t, archiveOf(t, ".wh.a", "", "c", "3"))
	r, err := l.run(readerName, Source{Layers: []Layer{lower, upper}})
	testkit.Must(t, err)
	var names []string
	for _, e := range testkit.Value(l.store.Tree(r.Root.Digest))(t) {
		names = append(names, e.Name)
	}
	if strings.Join(names, " ") != "b c" {
		t.Errorf("names %q", names)
	}
	upper.DiffID = lower.DiffID
	if _, err := l.run(readerName, Source{Layers: []Layer{lower, upper}}); err == nil ||
		!strings.Contains(err.Error(), "layer 2 of 2: what is in it has the digest") {
		t.Errorf("wrong digest: %v", err)
	}
}

// script has the frames of a broken child.
type script struct{ b []byte }

func (s *script) Receive() (confine.Kind, []byte, error) {
	if len(s.b) < 2 {
		return 0, nil, io.EOF
	}
	kind, n := confine.Kind(s.b[0]), min(int(s.b[1]), len(s.b)-2)
	payload := s.b[2 : 2+n]
	s.b = s.b[2+n:]
	return kind, payload, nil
}

func frame(kind confine.Kind, payload ...byte) []byte {
	return append([]byte{byte(kind), byte(len(payload))}, payload...)
}

func FuzzIntake(f *testing.F) {
	tree := image.Tree{{Name: "f", Type: image.Regular, Mode: 0o644, Nlink: 1, Size: 1, Digest: placeholder(0)}}
	encoded, err := tree.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Join([][]byte{frame(kindSmall, 'x'), frame(kindTree, encoded...)}, nil))
	f.Add(bytes.Join([][]byte{
		frame(kindBegin, 1), frame(kindData, 'x'), frame(kindZeros, 0, 0, 0, 0, 0, 0, 0, 9), frame(kindContent),
	}, nil))
	f.Add(frame(kindLayer, 0, 0, 0, 9))
	s, err := store.Open(f.TempDir(), store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		batch := testkit.Value(s.Begin())(t)
		defer batch.Abort()
		in := &intake{ctx: t.Context(), frames: &script{b}, batch: batch, layer: func(uint32) error { return errAsked }}
		_, _ = in.all()
	})
}

func TestWhatABrokenReaderSendsIsRefused(t *testing.T) {
	entry := func(number int, size uint64) []byte {
		tree := image.Tree{{
			Name: "f", Type: image.Regular, Mode: 0o644, Nlink: 1, Size: size, Digest: placeholder(number),
		}}
		return frame(kindTree, testkit.Value(tree.Encode())(t)...)
	}
	many := frame(kindZeros, binary.BigEndian.AppendUint64(nil, image.MaxFile)...)
	for name, frames := range map[string][][]byte{
		"a number that was not sent":  {frame(kindSmall, 'x'), entry(1, 1)},
		"another size":                {frame(kindSmall, 'x'), entry(0, 2)},
		"a tree as a content":         {frame(kindTree, 1, 0), entry(0, 1)},
		"no tree":                     {frame(kindTree, 'x')},
		"nothing":                     {},
		"a content that does not end": {frame(kindBegin, 0), frame(kindData, 'x')},
		"a content in another":        {frame(kindBegin, 0), frame(kindBegin, 0)},
		"a summary that is none":      {frame(kindSummary, 'x')},
		"progress that is none":       {frame(kindProgress, 'x')},
		"a kind that there is not":    {frame(99)},
		"zeros without a number":      {frame(kindBegin, 0), frame(kindZeros, 1)},
		"zeros without an end":        {frame(kindBegin, 1), many, many},
	} {
		l := newLab(t)
		batch := testkit.Value(l.store.Begin())(t)
		in := &intake{ctx: t.Context(), frames: &script{bytes.Join(frames, nil)}, batch: batch}
		if _, err := in.all(); !errors.Is(err, errForm) {
			t.Errorf("%s: %v", name, err)
		}
		testkit.Must(t, batch.Abort())
	}
}

func TestABombDoesNotGrowTheServer(t *testing.T) {
	l := newLab(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	const size = 256 << 20
	testkit.Must(t, w.WriteHeader(&tar.Header{Name: "bomb", Mode: 0o644, Size: size}))
	part := make([]byte, 1<<20)
	for range size / len(part) {
		testkit.Value(w.Write(part))(t)
	}
	testkit.Must(t, errors.Join(w.Close(), z.Close()))
	f := fileOf(t, packed.Bytes())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := l.run(readerName, Source{File: f})
	testkit.Must(t, err)
	runtime.ReadMemStats(&after)
	if r.BytesRead != size {
		t.Errorf("%d bytes read", r.BytesRead)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d bytes were allocated for an archive of %d that becomes %d", grown, packed.Len(), size)
	}
}
