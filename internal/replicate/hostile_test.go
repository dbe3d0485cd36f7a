package replicate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

// lies answers requests of a path with what write writes, and all others honestly.
func lies(at string, write func(r request, w *writer)) func(http.Handler) http.Handler {
	return func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != at {
				honest.ServeHTTP(w, r)
				return
			}
			body := make([]byte, r.ContentLength)
			_, _ = r.Body.Read(body)
			asked, _ := parseRequest(body, maxBlobs)
			z, _ := zstd.NewWriter(w, zstd.WithWindowSize(window))
			out := &writer{w: bufio.NewWriter(z)}
			write(asked, out)
			_ = out.w.Flush()
			_ = z.Close()
		})
	}
}

// endless writes records until the asker goes away.
func endless(w *writer, record func()) {
	for w.err == nil {
		record()
		if w.err == nil {
			w.err = w.w.Flush()
		}
	}
}

// lie is an answer that no honest source gives.
type lie struct {
	name  string
	at    string
	write func(r request, w *writer)
	want  string // in the log
}

// liar has what lies are made of: version 2, which is to be brought, and version 1, which both sides have.
type liar struct {
	before  files
	base, v image.Version
	db      []byte // var/db of version 2
	tree    []byte // that belongs to no version
	root    []byte // of version 2
}

func newLiar(t *testing.T, from *store.Store) *liar {
	l := &liar{before: files{"etc/motd": []byte("welcome\n"), "var/db": noise(1, 2<<20)}, db: noise(2, 2<<20)}
	l.base = addVersion(t, from, 1, l.before)
	l.v = addVersion(t, from, 2, l.before.with(files{"etc/motd": []byte("welcome back\n"), "var/db": l.db}))
	l.tree = testkit.Value(image.Tree{{Name: "x", Type: image.FIFO, Nlink: 1}}.Encode())(t)
	l.root = testkit.Value(l.v.Root.EncodeRoot())(t)
	return l
}

func noBase(w *writer)              { w.kind(kindBase); w.bytes(make([]byte, 32)) }
func (l *liar) withBase(w *writer)  { w.kind(kindBase); w.bytes(l.base.Digest[:]) }
func fileBase(r request, w *writer) { w.kind(kindBase); w.bytes(r.list[0][:]) }

func (l *liar) aboutTrees() []lie {
	return []lie{
		{"a tree of another version", treesPath,
			func(_ request, w *writer) { noBase(w); w.whole(l.tree) }, "belongs to no dir"},
		{"a tree that is none", treesPath,
			func(_ request, w *writer) { noBase(w); w.whole([]byte("tree")) }, "belongs to no"},
		{"a tree of 2^60 bytes", treesPath,
			func(_ request, w *writer) { noBase(w); w.kind(kindWhole, 1<<60) }, "number"},
		{"a tree that never ends", treesPath, func(_ request, w *writer) {
			noBase(w)
			w.kind(kindWhole, maxTree)
			endless(w, func() { w.bytes(noise(1, 1<<16)) })
		}, "belongs to no"},
		{"the same tree again and again", treesPath, func(_ request, w *writer) {
			noBase(w)
			endless(w, func() { w.whole(l.root) })
		}, "here already"},
		{"a difference to a base that was not named", treesPath,
			func(_ request, w *writer) { w.kind(kindBase); w.bytes(l.v.Digest[:]) }, "not named"},
		{"a difference to a tree that nobody has", treesPath, func(_ request, w *writer) {
			l.withBase(w)
			w.kind(kindDelta)
			w.bytes(l.v.Digest[1:])
			w.bytes([]byte{1})
			w.number(1)
		}, "which no base has"},
		{"a difference with a copy that does not fit", treesPath, func(_ request, w *writer) {
			l.withBase(w)
			w.kind(kindDelta)
			w.bytes(l.base.Root.Digest[:])
			w.number(1000)
			w.kind(kindCopy, 1, 900)
		}, "copy that ends after"},
		{"a difference of empty records", treesPath, func(_ request, w *writer) {
			l.withBase(w)
			w.kind(kindDelta)
			w.bytes(l.base.Root.Digest[:])
			w.number(1000)
			endless(w, func() { w.kind(kindLiteral, 0) })
		}, "empty record"},
		{"a listing that is not complete", treesPath,
			func(_ request, w *writer) { noBase(w); w.whole(l.root); w.kind(kindEnd) }, "complete answer without"},
		{"an unknown record", treesPath, func(_ request, w *writer) { noBase(w); w.kind('?') }, "record of kind"},
		{"a number without an end", treesPath, func(_ request, w *writer) {
			noBase(w)
			w.kind(kindWhole)
			w.bytes(bytes.Repeat([]byte{0xff}, 20))
		}, "more than 64 bits"},
	}
}

func (l *liar) aboutBlobs() []lie {
	return []lie{
		{"another blob of the same size", blobsPath,
			func(_ request, w *writer) { w.whole([]byte("welcome BACK\n")); w.kind(kindEnd) }, "wrong content"},
		{"a blob of another size", blobsPath,
			func(_ request, w *writer) { w.whole([]byte("welcome\n")) }, "which has 13"},
		{"a blob of 2^60 bytes", blobsPath, func(_ request, w *writer) { w.kind(kindWhole, 1<<60) }, "number"},
		{"more blobs than were asked for", blobsPath, func(_ request, w *writer) {
			endless(w, func() { w.whole([]byte("welcome back\n")) })
		}, "where the end belongs"},
	}
}

func (l *liar) aboutFiles() []lie {
	return []lie{
		{"another file", filePath, func(_ request, w *writer) {
			noBase(w)
			w.kind(kindLiteral, 2<<20)
			w.bytes(noise(9, 2<<20))
			w.kind(kindEnd)
		}, "wrong content"},
		{"a file that is too long", filePath,
			func(_ request, w *writer) { noBase(w); w.kind(kindLiteral, 2<<20+1) }, "number"},
		{"a file with more after it", filePath, func(_ request, w *writer) {
			noBase(w)
			w.kind(kindLiteral, 2<<20)
			w.bytes(l.db)
			w.kind(kindLiteral, 1)
		}, "where the end belongs"},
		{"a copy without a base", filePath,
			func(_ request, w *writer) { noBase(w); w.kind(kindCopy, 0, 10) }, "without a base"},
		{"a copy that does not fit", filePath,
			func(r request, w *writer) { fileBase(r, w); w.kind(kindCopy, 2<<20-5, 10) }, "copy that ends after"},
		{"a copy from far away", filePath,
			func(r request, w *writer) { fileBase(r, w); w.kind(kindCopy, math.MaxUint64, 10) }, "number"},
		{"a file of empty records", filePath, func(_ request, w *writer) {
			noBase(w)
			endless(w, func() { w.kind(kindZeros, 0) })
		}, "empty record"},
		{"a file that is another one's difference", filePath,
			func(_ request, w *writer) { w.kind(kindBase); w.bytes(l.v.Digest[:]) }, "not named"},
	}
}

func TestAHostileSourceIsRefused(t *testing.T) {
	from := newStore(t)
	l := newLiar(t, from)
	for _, c := range slices.Concat(l.aboutTrees(), l.aboutBlobs(), l.aboutFiles()) {
		t.Run(c.name, func(t *testing.T) { l.wantRefused(t, from, c) })
	}
}

func (l *liar) wantRefused(t *testing.T, from *store.Store, c lie) {
	to := newStore(t)
	addVersion(t, to, 1, l.before)
	objects := count(t, to)
	bad, _ := server(t, from, lies(c.at, c.write))
	log := &bytes.Buffer{}
	p := New(Options{Store: to, Log: slog.New(slog.NewTextHandler(log, nil))})
	err := p.Pull(t.Context(), l.v, []Source{bad})
	if delivers := strings.HasPrefix(c.name, "more "); (err == nil) != delivers {
		t.Fatalf("pull: %v", err)
	}
	text := log.String()
	if strings.Count(text, "what no honest server sends") != 1 || !strings.Contains(text, c.want) {
		t.Errorf("the log does not tell once of %q:\n%s", c.want, text)
	}
	if n := p.Counts()[bad.Name].Refused; n != 1 {
		t.Errorf("%d refused answers are counted", n)
	}
	err2 := p.Pull(t.Context(), l.v, []Source{bad})
	if err2 == nil || !strings.Contains(err2.Error(), "no server to ask") {
		t.Errorf("asked again: %v", err2)
	}
	if now := count(t, to) - objects; err != nil && now > 6 { // what was delivered honestly
		t.Errorf("%d objects were stored", now)
	}
	wantNoLie(t, to)

	good, _ := server(t, from, nil)
	testkit.Must(t, p.Pull(t.Context(), l.v, []Source{bad, good}))
	wantWhole(t, to, l.v)
}

// count returns the number of objects of a store.
func count(t *testing.T, s *store.Store) int {
	t.Helper()
	blobs := testkit.Value(filepath.Glob(s.Dir() + "/blobs/*/*"))(t)
	return len(blobs) + len(testkit.Value(filepath.Glob(s.Dir()+"/trees/*/*"))(t))
}

func wantNoLie(t *testing.T, s *store.Store) {
	t.Helper()
	testkit.Must(t, s.Check(t.Context(), store.CheckObserver{Problem: func(p store.Problem) { t.Error(p) }}))
	for _, lie := range [][]byte{[]byte("welcome BACK\n"), noise(9, 2<<20)} {
		if s.HasBlob(image.Sum(lie)) {
			t.Error("a lie is in the store")
		}
	}
}

// TestABombIsRefused sends bytes that unpack to nothing, or to far more than a record may have.
func TestABombIsRefused(t *testing.T) {
	v := addVersion(t, newStore(t), 1, files{"a": []byte("b")})
	skippable := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 1<<16)
	skippable = append(skippable, make([]byte, 1<<16)...)
	var bomb bytes.Buffer
	z := testkit.Value(zstd.NewWriter(&bomb, zstd.WithWindowSize(window)))(t)
	for range 1 << 10 {
		testkit.Value(z.Write(make([]byte, 1<<20)))(t)
	}
	testkit.Must(t, z.Close())
	wide := &bytes.Buffer{}
	z = testkit.Value(zstd.NewWriter(wide, zstd.WithWindowSize(64<<20)))(t)
	testkit.Value(z.Write(noise(1, 1<<20)))(t)
	for name, send := range map[string]func(w http.ResponseWriter){
		"frames without content": func(w http.ResponseWriter) {
			for {
				if _, err := w.Write(skippable); err != nil {
					return
				}
			}
		},
		"a gigabyte of zeros":      func(w http.ResponseWriter) { _, _ = w.Write(bomb.Bytes()) },
		"a window of 64 MiB":       func(w http.ResponseWriter) { _, _ = w.Write(wide.Bytes()) },
		"bytes that are no frames": func(w http.ResponseWriter) { _, _ = w.Write(noise(1, 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			src, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { send(w) }))
			p := newPuller(newStore(t))
			if err := p.Pull(t.Context(), v, []Source{src}); !errors.Is(err, errRefused) {
				t.Errorf("got %v", err)
			}
			if c := p.Counts()[src.Name]; c.Refused != 1 || c.Bytes > 2*packing {
				t.Errorf("counts %+v", c)
			}
		})
	}
}

// TestASourceThatStallsIsLeft has a source that begins an answer and then sends nothing.
func TestASourceThatStallsIsLeft(t *testing.T) {
	from, to := newStore(t), newStore(t)
	v := addVersion(t, from, 1, files{"a": noise(1, 2<<20), "b": noise(2, 2<<20), "c": []byte("c")})
	stop := make(chan struct{})
	slow, _ := server(t, from, func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == treesPath {
				honest.ServeHTTP(w, r)
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		})
	})
	t.Cleanup(func() { close(stop) })
	good, _ := server(t, from, nil)
	p := newPuller(to)
	testkit.Must(t, p.Pull(t.Context(), v, []Source{slow, good}))
	wantWhole(t, to, v)
	if c := p.Counts(); c[slow.Name].Slow == 0 || c[good.Name].Slow != 0 || c[good.Name].Bytes < 4<<20 {
		t.Errorf("counts: the slow one %+v, the other %+v", c[slow.Name], c[good.Name])
	}
}

// TestTheLoadIsSpread has two sources of which each waits, with its first answer, for the other one to be asked.
func TestTheLoadIsSpread(t *testing.T) {
	from, to := newStore(t), newStore(t)
	f := files{}
	for i := range 12 {
		f[string(rune('a'+i))] = noise(byte(i), large+1)
	}
	v := addVersion(t, from, 1, f)
	var asked [2]chan struct{}
	var sources []Source
	for i := range asked {
		asked[i] = make(chan struct{}, 100)
	}
	for i := range asked {
		src, _ := server(t, from, func(honest http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == filePath {
					asked[i] <- struct{}{}
					select {
					case b := <-asked[1-i]:
						asked[1-i] <- b
					case <-r.Context().Done():
						return
					}
				}
				honest.ServeHTTP(w, r)
			})
		})
		sources = append(sources, src)
	}
	p := newPuller(to)
	testkit.Must(t, p.Pull(t.Context(), v, sources))
	wantWhole(t, to, v)
	for _, s := range sources {
		if c := p.Counts()[s.Name]; c.Bytes < large || c.Failed+c.Slow+c.Refused > 0 {
			t.Errorf("%s: %+v", s.Name, c)
		}
	}
}

// TestADamagedBaseIsNoSourcesFault pulls a file whose version before is damaged on this server's disk.
func TestADamagedBaseIsNoSourcesFault(t *testing.T) {
	from, to := newStore(t), newStore(t)
	db := noise(1, 4<<20)
	before := files{"var/db": db}
	addVersion(t, from, 1, before)
	addVersion(t, to, 1, before)
	changed := bytes.Clone(db)
	copy(changed[1<<20:], "changed")
	v := addVersion(t, from, 2, files{"var/db": changed})
	hex := image.Sum(db).String()
	path := filepath.Join(to.Dir(), "blobs", hex[:2], hex)
	testkit.Must(t, os.Chmod(path, 0o600), os.WriteFile(path, noise(2, 4<<20), 0o600))
	src, _ := server(t, from, nil)
	p := newPuller(to)
	testkit.Must(t, p.Pull(t.Context(), v, []Source{src}))
	wantWhole(t, to, v)
	if n := p.Counts()[src.Name].Refused; n > 0 {
		t.Errorf("the source is refused")
	}
}

func TestTheRateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{rate: func() uint64 { return 1 << 20 }}
		began := time.Now()
		for range 64 {
			testkit.Must(t, l.wait(t.Context(), 16<<10))
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("a second's bytes took %v", took)
		}
	})
}

// A server that is said to get a version tells of a little progress every second, and never delivers.
func TestAServerThatPretendsToMakeProgressIsLeft(t *testing.T) {
	to := newStore(t)
	for _, c := range []struct {
		name     string
		whole    peer
		size     uint64
		from, to time.Duration
	}{
		{"a fast source has the whole version", peer{bytes: 100 << 20, took: 10 * time.Second}, 4 << 20,
			30 * time.Second, 34 * time.Second},
		{"a slow one has it", peer{bytes: 1 << 20, took: 10 * time.Second}, 4 << 20,
			190 * time.Second, 194 * time.Second},
		{"nothing has come from the other source", peer{}, 4 << 20, 120 * time.Second, 124 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			owner := &peer{Source: Source{Name: "is2"}, partial: true}
			p := &pull{o: newPuller(to), peers: []*peer{&c.whole, owner}}
			p.changed = sync.NewCond(&p.mu)
			ctx, cancel := context.WithCancelCause(t.Context())
			a := &answer{pull: p, from: owner, ctx: ctx, cancel: cancel, started: time.Now(), last: time.Now()}
			p.enter(a)
			a.expects(c.size)
			began := time.Now()
			for i := uint64(1); ctx.Err() == nil; i++ {
				time.Sleep(time.Second)
				testkit.Must(t, a.noteProgress(i))
				p.arrived(a, 2)
				p.watch()
			}
			if took := time.Since(began); took < c.from || took > c.to {
				t.Errorf("%s: it was left after %v", c.name, took)
			}
			p.judge(t.Context(), owner, a.cause(ctx.Err()))
			if counts := p.o.Counts()["is2"]; !owner.out || counts.Slow != 1 || counts.Refused != 0 {
				t.Errorf("%s: out %v, %+v", c.name, owner.out, counts)
			}
		})
	}
}
