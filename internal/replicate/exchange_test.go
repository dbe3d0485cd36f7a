package replicate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/zstd"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

// getter is a server that gets versions and offers what it has of them.
type getter struct {
	Source
	store  *store.Store
	puller *Puller
	sent   *atomic.Int64
}

// group is a head and servers that get versions from it and from each other.
type group struct {
	t       testing.TB
	head    Source
	sent    *atomic.Int64 // by the head
	getters []*getter
}

// newGroup makes a group. Around, if not nil, is around the handler of a getter.
func newGroup(t testing.TB, head *store.Store, n int, around func(i int, h http.Handler) http.Handler) *group {
	g := &group{t: t}
	log := slog.New(slog.DiscardHandler)
	named := func(name string) (Source, bool) {
		i := slices.IndexFunc(g.getters, func(x *getter) bool { return x.Name == name })
		if i < 0 {
			return Source{}, false
		}
		return g.getters[i].Source, true
	}
	for i := range n {
		x := &getter{store: newStore(t)}
		name := fmt.Sprintf("is%d", i+1)
		x.puller = New(Options{
			Store: x.store, Log: log, Name: name,
			Named: func(other string) (s Source, ok bool) {
				if other == name {
					return s, false
				}
				return named(other)
			},
		})
		mux := http.NewServeMux()
		NewHandler(HandlerOptions{Store: x.store, Puller: x.puller, Log: log}).Register(mux.Handle)
		h := http.Handler(mux)
		if around != nil {
			h = around(i, mux)
		}
		x.Source, x.sent = serve(t, h)
		x.Name = name
		g.getters = append(g.getters, x)
	}
	mux := http.NewServeMux()
	NewHandler(HandlerOptions{
		Store: head, Log: log, Getters: func(*http.Request, image.Digest) (names []string) {
			for _, x := range g.getters {
				names = append(names, x.Name)
			}
			return names
		},
	}).Register(mux.Handle)
	g.head, g.sent = serve(t, mux)
	g.head.Name = "head"
	return g
}

// pull lets all get a version at the same time.
func (g *group) pull(v image.Version) {
	g.t.Helper()
	var all sync.WaitGroup
	for _, x := range g.getters {
		all.Go(func() {
			if err := x.puller.Pull(g.t.Context(), v, []Source{g.head}); err != nil {
				g.t.Errorf("%s: %v", x.Name, err)
			}
		})
	}
	all.Wait()
	for _, x := range g.getters {
		wantWhole(g.t, x.store, v)
	}
}

// firstImage is a tree of 16 MB in small and large files.
func firstImage() files {
	f := distribution()
	for i := range 40 {
		f[fmt.Sprintf("usr/lib/lib-%02d", i)] = noise(byte(i), 250<<10)
	}
	for i := range 5 {
		f[fmt.Sprintf("usr/share/archive-%d", i)] = noise(byte(100+i), large+100<<10)
	}
	return f
}

func TestTheHeadSendsOneCopyToAllServers(t *testing.T) {
	head := newStore(t)
	v := addVersion(t, head, 1, firstImage())
	g := newGroup(t, head, 1, nil)
	g.pull(v)
	alone := g.sent.Load()

	g = newGroup(t, head, 4, nil)
	g.pull(v)
	sent := g.sent.Load()
	t.Logf("to one server %d bytes, to four %d", alone, sent)
	if sent > alone*3/2 {
		t.Errorf("the head sent %.2f copies to four servers", float64(sent)/float64(alone))
	}
	for _, x := range g.getters {
		if c := x.puller.Counts(); c["head"].Bytes < uint64(alone)/20 || c["head"].Failed+c["head"].Slow > 0 {
			t.Errorf("%s got %+v from the head", x.Name, c["head"])
		}
		if x.sent.Load() < alone/4 {
			t.Errorf("%s sent %d bytes to the others", x.Name, x.sent.Load())
		}
	}
}

func TestOwnersAreBalanced(t *testing.T) {
	names := []string{"is1", "is2", "is3", "is4"}
	count := map[string]int{}
	for i := range 4000 {
		d := image.Sum(fmt.Append(nil, i))
		of := owner(names, d)
		if reversed := owner([]string{"is4", "is3", "is2", "is1"}, d); reversed != of {
			t.Fatalf("the order of names matters: %s and %s", of, reversed)
		}
		if fewer := owner(names[:3], d); of != "is4" && fewer != of {
			t.Fatalf("without is4 a blob of %s goes to %s", of, fewer)
		}
		count[of]++
	}
	for _, name := range names {
		if count[name] < 900 || count[name] > 1100 {
			t.Errorf("%s owns %d of 4000 blobs", name, count[name])
		}
	}
}

// TestAServerThatOffersPartsAndDoesNotDeliver has one of three servers misbehave towards the others, which get all the
// same.
func TestAServerThatOffersPartsAndDoesNotDeliver(t *testing.T) {
	head := newStore(t)
	v := addVersion(t, head, 1, firstImage())
	pending := func(w *writer, progress uint64) { w.kind(kindPending, progress) }
	for _, c := range []struct {
		name    string
		write   func(r request, w *writer)
		refused bool
	}{
		{"lies", func(r request, w *writer) {
			for range max(1, len(r.list)) {
				w.whole(noise(9, 250<<10))
			}
			w.kind(kindEnd)
		}, true},
		{"ends early", func(request, *writer) {}, false},
		{"has nothing", func(r request, w *writer) {
			for range max(1, len(r.list)) {
				w.kind(kindAbsent)
			}
			w.kind(kindEnd)
		}, false},
		{"stalls", nil, false},
		{"lets the others wait without an end", func(_ request, w *writer) {
			for i := uint64(1); w.err == nil; i++ {
				pending(w, i)
			}
		}, true},
		{"tells of progress before it begins", func(_ request, w *writer) { pending(w, 1<<63) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(t, head, 3, func(i int, honest http.Handler) http.Handler {
				if i > 0 {
					return honest
				}
				if c.write == nil {
					return stalls(honest)
				}
				return lies(filePath, c.write)(lies(blobsPath, c.write)(honest))
			})
			g.pull(v)
			for _, x := range g.getters[1:] {
				counts := x.puller.Counts()["is1"]
				if (counts.Refused > 0) != c.refused {
					t.Errorf("%s counts %+v", x.Name, counts)
				}
			}
		})
	}
}

// stalls answers requests for blobs and files with a record that lets the asker wait, and then with nothing.
func stalls(honest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == treesPath {
			honest.ServeHTTP(w, r)
			return
		}
		z, _ := zstd.NewWriter(w)
		_, _ = z.Write([]byte{kindPending, 1})
		_ = z.Close()
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body) // until then the end of the connection is not seen
		<-r.Context().Done()
	})
}

// TestAServerThatIsDownIsReplaced has a server that is said to get the version, and does not answer at all.
func TestAServerThatIsDownIsReplaced(t *testing.T) {
	head := newStore(t)
	v := addVersion(t, head, 1, firstImage())
	g := newGroup(t, head, 2, nil)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	g.getters[1].URL = closed.URL
	testkit.Must(t, g.getters[0].puller.Pull(t.Context(), v, []Source{g.head}))
	wantWhole(t, g.getters[0].store, v)
}

// A process is killed in the middle of a pull. What had arrived does not come again, although none of it was committed:
// the blobs, and of a large one what was synced.
func TestPullAfterAKillBringsLittleAgain(t *testing.T) {
	if dir := os.Getenv("DIM_TEST_PULL_INTO"); dir != "" {
		pullInto(dir, os.Getenv("DIM_TEST_PULL_FROM"), os.Getenv("DIM_TEST_PULL_VERSION"))
		return
	}
	small := files{}
	for i := range 80 {
		small[fmt.Sprintf("f%02d", i)] = noise(byte(i), 500<<10)
	}
	for _, c := range []struct {
		name   string
		files  files
		killAt int64
	}{
		{"many files", small, 24 << 20},
		{"a large file", files{"db": noise(1, 60<<20)}, 50 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := newStore(t)
			v := addVersion(t, from, 1, c.files)
			first, second := pullTwice(t, from, v, c.killAt)
			whole := int64(0)
			for _, content := range c.files {
				whole += int64(len(content))
			}
			if again := first + second - whole; again > whole/2 {
				t.Errorf("%d MB were sent before the kill and %d MB after it, of %d MB",
					first>>20, second>>20, whole>>20)
			}
		})
	}
}

// pullTwice lets a process pull a version, which is killed when about killAt bytes were sent, and then pulls it in this
// one. It returns how much was sent to each.
func pullTwice(t *testing.T, from *store.Store, v image.Version, killAt int64) (first, second int64) {
	t.Helper()
	var victim *exec.Cmd
	var once sync.Once
	var sent *atomic.Int64
	var src Source
	src, sent = server(t, from, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&killer{w, func() {
				if sent.Load() > killAt {
					once.Do(func() { _ = victim.Process.Kill() })
				}
			}}, r)
		})
	})
	to := t.TempDir()
	victim = exec.Command(os.Args[0], "-test.run", "^TestPullAfterAKillBringsLittleAgain$")
	victim.Env = append(os.Environ(), "DIM_TEST_PULL_INTO="+to, "DIM_TEST_PULL_FROM="+src.URL,
		"DIM_TEST_PULL_VERSION="+v.Digest.String())
	if err := victim.Run(); victim.ProcessState.Success() {
		t.Fatalf("the process was not killed: %v", err)
	}
	first = sent.Swap(0)
	s := testkit.Value(store.Open(to, store.Options{}))(t)
	defer s.Close()
	testkit.Must(t, newPuller(s).Pull(t.Context(), v, []Source{src}))
	wantWhole(t, s, v)
	return first, sent.Load()
}

// killer calls a function after each write.
type killer struct {
	http.ResponseWriter
	written func()
}

func (k *killer) Unwrap() http.ResponseWriter { return k.ResponseWriter }

func (k *killer) Write(p []byte) (int, error) {
	defer k.written()
	return k.ResponseWriter.Write(p)
}

// pullInto pulls a version, in the process that is killed.
func pullInto(dir, url, digest string) {
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		panic(err)
	}
	d, _ := image.ParseDigest(digest)
	err = newPuller(s).Pull(context.Background(), image.Version{Image: "compute", Number: 1, Digest: d},
		[]Source{{Name: "head", URL: url, HTTP: http.DefaultClient}})
	fmt.Fprintln(os.Stderr, "the pull ended:", err)
}
