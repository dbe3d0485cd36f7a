package replicate

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

func TestPullBringsAWholeVersion(t *testing.T) {
	from, to := newStore(t), newStore(t)
	v := addVersion(t, from, 7, distribution().with(files{"var/db": noise(1, 3<<20), "var/log": noise(2, large+1)}))
	src, _ := server(t, from, nil)
	testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src}))
	wantWhole(t, to, v)
}

func TestPullMovesOnlyWhatDiffers(t *testing.T) {
	database := noise(1, 20<<20)
	pages := bytes.Clone(database)
	for _, at := range []int{40960, 7 << 20, 7<<20 + 8192, 19 << 20} {
		copy(pages[at:], noise(byte(at>>12), 4096))
	}
	moved := slices.Concat(noise(3, 1000), database[:9<<20], noise(4, 5000), database[9<<20:])
	before := distribution().with(files{"var/db": database})
	for _, c := range []struct {
		name    string
		changes files
		most    int64 // bytes sent
	}{
		{"a line", files{"etc/motd": []byte("welcome back\n")}, 1000},
		{"a file that is gone", files{"etc/conf.d/file-007": nil}, 1000},
		{"four pages of a large file", files{"var/db": pages}, 4*4096 + 2000},
		{"bytes put into a large file", files{"var/db": moved}, 6000 + 4*maxChunk},
		{"a file that moved", files{"var/db": nil, "srv/db": database}, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := newStore(t), newStore(t)
			addVersion(t, from, 1, before)
			addVersion(t, to, 1, before)
			v := addVersion(t, from, 2, before.with(c.changes))
			src, sent := server(t, from, nil)
			testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src}))
			wantWhole(t, to, v)
			if sent.Load() > c.most {
				t.Errorf("%d bytes sent, want at most %d", sent.Load(), c.most)
			}
		})
	}
}

func TestPullFromASourceWithoutTheVersionBefore(t *testing.T) {
	from, to := newStore(t), newStore(t)
	before := distribution().with(files{"var/db": noise(1, 2<<20)})
	addVersion(t, to, 1, before)
	v := addVersion(t, from, 2, before.with(files{"etc/motd": []byte("x"), "var/db": noise(2, 2<<20)}))
	src, _ := server(t, from, nil)
	testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src}))
	wantWhole(t, to, v)
}

func TestHolesStayHoles(t *testing.T) {
	from, to := newStore(t), newStore(t)
	content := make([]byte, 64<<20)
	copy(content[5<<20:], noise(1, 100<<10))
	content[len(content)-1] = 1
	v := addVersion(t, from, 1, files{"var/log/lastlog.sparse": content})
	src, sent := server(t, from, nil)
	testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src}))
	wantWhole(t, to, v)
	f := testkit.Value(to.OpenBlob(image.Sum(content)))(t)
	defer f.Close()
	if on := blocks(t, f); on > 1<<20 {
		t.Errorf("the file takes %d bytes on the disk", on)
	}
	if sent.Load() > 120<<10 {
		t.Errorf("%d bytes sent", sent.Load())
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	return testkit.Value(f.Stat())(t).Sys().(*syscall.Stat_t).Blocks * 512
}

// cutter breaks a connection after so many bytes of all answers together, and counts what it lets through.
type cutter struct {
	mu   sync.Mutex
	left int64
	sent int64
	cut  bool
}

func (c *cutter) around(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&cutWriter{w, c}, r) })
}

// pass returns how many of n bytes are let through.
func (c *cutter) pass(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut && int64(n) > c.left {
		n, c.cut = int(c.left), true
	}
	c.left -= int64(n)
	c.sent += int64(n)
	return n
}

func (c *cutter) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

type cutWriter struct {
	http.ResponseWriter
	c *cutter
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *cutWriter) Write(p []byte) (int, error) {
	n := w.c.pass(len(p))
	if n == len(p) {
		return w.ResponseWriter.Write(p)
	}
	_, _ = w.ResponseWriter.Write(p[:n])
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func TestPullGoesOnAfterACutAtAnyByte(t *testing.T) {
	from := newStore(t)
	before := files{"etc/motd": []byte("welcome\n"), "etc/passwd": noise(3, 4000), "usr/bin/old": noise(4, 9000)}
	addVersion(t, from, 1, before)
	v := addVersion(t, from, 2, before.with(files{
		"etc/motd": []byte("welcome back\n"), "var/db": noise(1, large+300<<10), "usr/bin/new": noise(2, 5000),
	}))
	pull := func(left int64) int64 {
		to := newStore(t)
		addVersion(t, to, 1, before)
		c := &cutter{left: left}
		src, _ := server(t, from, c.around)
		testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src, {Name: "twin", URL: src.URL, HTTP: src.HTTP}}))
		wantWhole(t, to, v)
		return c.sent
	}
	whole := pull(1 << 40)
	step := int64(1)
	for left := int64(0); left < whole; left += step {
		// Zstd blocks have 128 KiB at most: what is left of one at the cut cannot be unpacked.
		if sent := pull(left); sent > whole+300<<10 {
			t.Fatalf("cut after %d bytes: %d bytes sent, without a cut %d", left, sent, whole)
		}
		step = max(1+left/20, left/3) // records are short at the beginning
	}
}

func TestPullGoesOnAfterItFailed(t *testing.T) {
	from, to := newStore(t), newStore(t)
	f := files{}
	for i := range 40 {
		f[string(rune('a'+i))] = noise(byte(i), 900<<10)
	}
	v := addVersion(t, from, 1, f)
	c := &cutter{left: 20 << 20}
	src, _ := server(t, from, func(h http.Handler) http.Handler {
		h = c.around(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.isCut() {
				http.Error(w, "gone", http.StatusInternalServerError)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	if err := newPuller(to).Pull(t.Context(), v, []Source{src}); err == nil {
		t.Fatal("a pull succeeded from a server that is gone")
	}
	if _, err := to.Resolve(v.Ref()); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a version that is not whole is in the store: %v", err)
	}
	src, sent := server(t, from, nil)
	testkit.Must(t, newPuller(to).Pull(t.Context(), v, []Source{src}))
	wantWhole(t, to, v)
	if sent.Load() > 24<<20 {
		t.Errorf("%d MB of 36 sent after 20 had arrived", sent.Load()>>20)
	}
}

// TestAnswersAreSharedByAllAskers asks for a blob that arrives between two requests, and twice for one that is there.
func TestAnswersAreSharedByAllAskers(t *testing.T) {
	s := newStore(t)
	h := NewHandler(HandlerOptions{Store: s, Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	h.Register(mux.Handle)
	content := noise(1, 5000)
	ask := func() []byte {
		body := (&request{list: []image.Digest{image.Sum(content)}}).encode()
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, blobsPath, bytes.NewReader(body)))
		d := testkit.Value(newReader(w.Body))(t)
		defer d.close()
		got, err := readBlob(d, &need{size: 5000}, nil)
		if errors.Is(err, errAbsent) {
			return nil
		}
		testkit.Must(t, err, d.end())
		return got
	}
	if got := ask(); got != nil {
		t.Errorf("a store without blobs answers with %d bytes", len(got))
	}
	addVersion(t, s, 1, files{"f": content})
	for range 2 {
		if !bytes.Equal(ask(), content) {
			t.Error("the answer is not the blob")
		}
	}
	if len(h.shared.kept) != 1 {
		t.Errorf("%d answers are kept", len(h.shared.kept))
	}
	hex := image.Sum(content).String()
	testkit.Must(t, os.Remove(filepath.Join(s.Dir(), "blobs", hex[:2], hex)))
	if !bytes.Equal(ask(), content) {
		t.Error("the answer is not shared")
	}
	if h.shared.forgetAll(); ask() != nil {
		t.Error("the answer is not forgotten")
	}
}
