package replicate

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

// files are the regular files of a version, by path.
type files map[string][]byte

// with returns a copy with some files replaced or, if nil, removed.
func (f files) with(changes files) files {
	out := maps.Clone(f)
	for p, content := range changes {
		if out[p] = content; content == nil {
			delete(out, p)
		}
	}
	return out
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func newStore(t testing.TB) *store.Store {
	s := testkit.Value(store.Open(t.TempDir(), store.Options{}))(t)
	t.Cleanup(func() { s.Close() })
	return s
}

// addVersion makes a version of files. Files whose names end in ".sparse" have holes.
func addVersion(t testing.TB, s *store.Store, number int, f files) image.Version {
	t.Helper()
	b := testkit.Value(s.Begin())(t)
	top := putDir(t, b, f)
	root := image.Entry{Type: image.Directory, Mode: 0o755, Digest: top}
	d := testkit.Value(b.PutRoot(root))(t)
	testkit.Must(t, b.Commit(t.Context()))
	v := image.Version{Image: "compute", Number: number, Digest: d, Files: uint64(len(f))}
	return testkit.Value(s.AddVersion(v))(t)
}

func putDir(t testing.TB, b *store.Batch, f files) image.Digest {
	below := map[string]files{}
	var tree image.Tree
	for p, content := range f {
		if dir, rest, ok := strings.Cut(p, "/"); ok {
			if below[dir] == nil {
				below[dir] = files{}
			}
			below[dir][rest] = content
			continue
		}
		put := b.PutBlob
		if path.Ext(p) == ".sparse" {
			put = b.PutSparse
		}
		c := testkit.Value(put(t.Context(), bytes.NewReader(content)))(t)
		tree = append(tree, image.Entry{
			Name: p, Type: image.Regular, Mode: 0o644, Digest: c.Digest, Size: c.Size, Data: c.Data,
		})
	}
	for dir, f := range below {
		tree = append(tree, image.Entry{Name: dir, Type: image.Directory, Mode: 0o755, Digest: putDir(t, b, f)})
	}
	slices.SortFunc(tree, func(a, b image.Entry) int { return strings.Compare(a.Name, b.Name) })
	return testkit.Value(b.PutTree(tree))(t)
}

// distribution is a tree as they are: many small files in wide directories.
func distribution() files {
	f := files{"etc/motd": []byte("welcome\n"), "empty": {}}
	for i := range 300 {
		f[fmt.Sprintf("etc/conf.d/file-%03d", i)] = noise(byte(i), 200)
		f[fmt.Sprintf("usr/lib/package-%02d/file-%d", i%30, i)] = fmt.Appendf(nil, "content %d\n", i)
	}
	return f
}

// server serves a store as a source. Around, if not nil, is around its handler.
func server(t testing.TB, s *store.Store, around func(http.Handler) http.Handler) (src Source, sent *atomic.Int64) {
	t.Helper()
	mux := http.NewServeMux()
	NewHandler(HandlerOptions{Store: s, Log: slog.New(slog.DiscardHandler)}).Register(mux.Handle)
	h := http.Handler(mux)
	if around != nil {
		h = around(mux)
	}
	return serve(t, h)
}

func serve(t testing.TB, h http.Handler) (src Source, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&counted{w, sent}, r)
	}))
	t.Cleanup(ts.Close)
	return Source{Name: ts.Listener.Addr().String(), URL: ts.URL, HTTP: ts.Client()}, sent
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func newPuller(s *store.Store) *Puller {
	return New(Options{Store: s, Log: slog.New(slog.DiscardHandler)})
}

// wantWhole checks that a store has all of a version, byte for byte.
func wantWhole(t testing.TB, s *store.Store, v image.Version) {
	t.Helper()
	got := testkit.Value(s.Resolve(v.Ref()))(t)
	if got.Digest != v.Digest {
		t.Errorf("the version has digest %s, want %s", got.Digest, v.Digest)
	}
	testkit.Must(t, s.CheckVersion(t.Context(), v, store.CheckObserver{
		Problem: func(p store.Problem) { t.Error(p) },
	}))
}
