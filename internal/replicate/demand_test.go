package replicate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// arriving is a server that gets a version which is to be served while it arrives. Its source holds back requests but
// those for one blob.
type arriving struct {
	t       *testing.T
	to      *store.Store
	puller  *Puller
	v       image.Version
	content files
	source  Source
	listed  chan struct{}
	done    chan error

	release chan struct{} // closed: nothing is held back any more

	mu  sync.Mutex
	cut chan struct{} // closed: no request for blobs is answered
}

func newArriving(t *testing.T) *arriving {
	from := newStore(t)
	e := &arriving{t: t, to: newStore(t), done: make(chan error, 1), release: make(chan struct{})}
	e.listed, e.cut = make(chan struct{}), make(chan struct{})
	e.content = distribution().with(files{"usr/bin/large": noise(1, 3<<20), "usr/lib/huge": noise(2, 5<<20)})
	e.v = addVersion(t, from, 1, e.content)
	e.source, _ = server(t, from, e.hold)
	e.puller = New(Options{
		Store: e.to, Log: slog.New(slog.DiscardHandler), Early: func(image.Version) bool { return true },
		Listed: func(context.Context) { close(e.listed) },
	})
	return e
}

func (e *arriving) hold(honest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		asked, _ := parseRequest(body, maxBlobs)
		e.mu.Lock()
		cut := e.cut
		e.mu.Unlock()
		hold := e.release
		if r.URL.Path == treesPath || len(asked.list) == 1 && r.URL.Path == blobsPath {
			hold = make(chan struct{})
			close(hold)
		}
		if r.URL.Path == treesPath {
			cut = nil
		}
		select {
		case <-hold:
		case <-cut:
			http.Error(w, "the link is cut", http.StatusInternalServerError)
			return
		case <-r.Context().Done():
			return
		}
		honest.ServeHTTP(w, r)
	})
}

// begin pulls until the version can be served.
func (e *arriving) begin() {
	go func() { e.done <- e.puller.Pull(e.t.Context(), e.v, []Source{e.source}) }()
	select {
	case <-e.listed:
	case err := <-e.done:
		e.t.Fatalf("the pull ended before the version could be served: %v", err)
	}
}

func (e *arriving) open(path string, wait time.Duration) error {
	f, err := e.puller.Content(wait).OpenBlob(image.Sum(e.content[path]))
	if err != nil {
		return err
	}
	defer f.Close()
	if got := testkit.Value(io.ReadAll(f))(e.t); !bytes.Equal(got, e.content[path]) {
		e.t.Errorf("%s has %d bytes, and they are not those of the version", path, len(got))
	}
	return nil
}

func TestAVersionIsServedWhileItArrives(t *testing.T) {
	e := newArriving(t)
	e.begin()
	if !e.puller.Partial(e.v) {
		t.Error("the version cannot be served")
	}
	if _, err := e.to.Resolve(e.v.Ref()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a version that is not whole is in the store: %v", err)
	}
	root := testkit.Value(e.to.Root(e.v.Digest))(t)
	testkit.Value(e.to.Tree(root.Digest))(t)
	for _, path := range []string{"etc/motd", "etc/conf.d/file-007", "usr/lib/package-05/file-5"} {
		testkit.Must(t, e.open(path, time.Minute))
	}
	if err := e.open("usr/bin/large", time.Millisecond); !errors.Is(err, vfs.ELATER) {
		t.Errorf("a file that has not arrived: %v", err)
	}
	other := image.Sum([]byte("of another version"))
	if _, err := e.puller.Content(time.Minute).OpenBlob(other); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a blob that belongs to no version: %v", err)
	}
	close(e.release)
	testkit.Must(t, <-e.done)
	wantWhole(t, e.to, e.v)
	testkit.Must(t, e.open("usr/bin/large", 0))
	if e.puller.Partial(e.v) {
		t.Error("the version is not whole")
	}
}

// TestAReaderWaitsAcrossACut breaks the connection before a blob has arrived. The next pull brings it.
func TestAReaderWaitsAcrossACut(t *testing.T) {
	e := newArriving(t)
	e.begin()
	close(e.cut)
	if err := <-e.done; err == nil {
		t.Fatal("the pull succeeded")
	}
	if err := e.open("etc/motd", 10*time.Millisecond); !errors.Is(err, vfs.ELATER) {
		t.Errorf("between two pulls: %v", err)
	}
	opened := make(chan error, 1)
	go func() { opened <- e.open("etc/motd", time.Minute) }()
	e.mu.Lock()
	e.listed, e.cut = make(chan struct{}), make(chan struct{})
	e.mu.Unlock()
	e.begin()
	testkit.Must(t, <-opened)
	close(e.release)
	testkit.Must(t, <-e.done)
	wantWhole(t, e.to, e.v)
}

// TestFewReadersWait has more readers than may wait. Those beyond are told at once to come back.
func TestFewReadersWait(t *testing.T) {
	e := newArriving(t)
	e.begin()
	for range maxWaiting {
		e.puller.waiting <- struct{}{}
	}
	if err := e.open("usr/bin/large", time.Hour); !errors.Is(err, vfs.ELATER) {
		t.Errorf("a reader beyond the bound: %v", err)
	}
	close(e.release)
	testkit.Must(t, <-e.done)
}
