package replicate

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"dim/internal/image"
	"dim/internal/testkit"
)

func FuzzRequest(f *testing.F) {
	f.Add((&request{of: image.Sum(nil), from: 7, list: []image.Digest{image.Sum([]byte("a"))}}).encode())
	f.Add((&request{}).encode())
	f.Add(append(make([]byte, 33), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b, maxBlobs)
		if err != nil {
			return
		}
		again, err := parseRequest(r.encode(), maxBlobs)
		if err != nil || again.of != r.of || again.from != r.from || !slices.Equal(again.list, r.list) {
			t.Errorf("%x is read as %v, and that as %v, %v", b, r, again, err)
		}
	})
}

// FuzzPacked reads what pretends to be a packed answer.
func FuzzPacked(f *testing.F) {
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x00, 0x09, 0x00, 0x00, 'e'})
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := testkit.Value(newReader(bytes.NewReader(b)))(t)
		defer d.close()
		n, _ := io.Copy(io.Discard, io.LimitReader(d.b, 64<<20))
		if uint64(n) > d.out {
			t.Errorf("%d bytes of %d", n, d.out)
		}
	})
}

// unpacked is an answer whose records are b.
func unpacked(p *pull, b []byte) *answer {
	z, _ := zstd.NewReader(nil)
	a := &answer{
		reader: &reader{b: bufio.NewReader(bytes.NewReader(b)), z: z}, pull: p, from: p.peers[0],
		body: io.NopCloser(bytes.NewReader(nil)), ctx: context.Background(), cancel: func(error) {},
	}
	a.reader.waits = a
	return a
}

func FuzzAnswers(f *testing.F) {
	from, to := newStore(f), newStore(f)
	before := files{"etc/motd": []byte("welcome\n"), "var/db": noise(1, 4000)}
	base := addVersion(f, from, 1, before)
	addVersion(f, to, 1, before)
	content := noise(2, 4000)
	v := addVersion(f, from, 2, before.with(files{"etc/motd": []byte("welcome back\n"), "var/db": content}))
	h := NewHandler(HandlerOptions{Store: from, Log: slog.New(slog.DiscardHandler)})
	seed := func(kind byte, answer answerFunc, r request) {
		b := &bytes.Buffer{}
		w := &writer{w: bufio.NewWriter(b)}
		testkit.Must(f, answer(f.Context(), r, w))
		w.kind(kindEnd)
		testkit.Must(f, w.w.Flush())
		f.Add(kind, b.Bytes())
	}
	old, now := image.Sum(before["var/db"]), image.Sum(content)
	seed(0, h.trees, request{of: v.Digest})
	seed(0, h.trees, request{of: v.Digest, list: []image.Digest{base.Digest}})
	seed(1, h.blobs, request{list: []image.Digest{now, image.Sum([]byte("gone"))}})
	seed(2, h.file, request{of: now})
	seed(2, h.file, request{of: now, list: []image.Digest{old}})
	late := func(then answerFunc) answerFunc { // by a server that is getting the version itself
		return func(ctx context.Context, r request, w *writer) error {
			w.kind(kindPending, 5)
			w.kind(kindPending, 1<<20)
			return then(ctx, r, w)
		}
	}
	seed(1, late(h.blobs), request{list: []image.Digest{now}})
	seed(2, late(h.file), request{of: now})
	baseFile := testkit.Value(from.OpenBlob(old))(f)
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		p := &pull{
			o: newPuller(to), goal: goal{v: v}, peers: []*peer{{}}, trees: map[image.Digest]image.Tree{},
			bases: []image.Digest{base.Digest},
		}
		n := &need{digest: now, size: uint64(len(content)), before: old}
		switch kind % 3 {
		case 0:
			x := treeFetch{pull: p, wanted: map[image.Digest]bool{v.Digest: true}, bases: p.bases}
			_ = x.read(unpacked(p, b))
			for d := range p.trees {
				if _, err := from.Tree(d); err != nil {
					t.Errorf("a tree was accepted that the version does not have: %v", err)
				}
			}
		case 1:
			got, err := readBlob(unpacked(p, b).reader, n, nil)
			if err == nil && uint64(len(got)) != n.size {
				t.Errorf("%d bytes", len(got))
			}
		case 2:
			r := &fileReader{
				pull: p, ctx: t.Context(), need: n, job: &job{alone: true}, base: baseFile, baseSize: 4000,
				from: p.peers[0], a: unpacked(p, b), based: true,
			}
			if _, err := r.a.base(); err != nil {
				return
			}
			if got, _ := io.ReadAll(r); uint64(len(got)) > n.size {
				t.Errorf("%d bytes", len(got))
			}
		}
	})
}

func writeFile(t testing.TB, name string, content []byte) *os.File {
	path := filepath.Join(t.TempDir(), name)
	testkit.Must(t, os.WriteFile(path, content, 0o600))
	f := testkit.Value(os.Open(path))(t)
	t.Cleanup(func() { f.Close() })
	return f
}

// wantRebuilt checks that the difference of two files makes the second of the first.
func wantRebuilt(t *testing.T, base, of []byte) (literal int64) {
	t.Helper()
	list := testkit.Value(difference(t.Context(), newGear(), writeFile(t, "base", base), writeFile(t, "of", of)))(t)
	var got []byte
	for _, o := range list {
		switch at := int64(len(got)); o.kind {
		case kindCopy:
			got = append(got, base[o.off:o.off+o.n]...)
		case kindZeros:
			got = append(got, make([]byte, o.n)...)
		case kindLiteral:
			got = append(got, of[at:at+o.n]...)
			literal += o.n
		}
	}
	if !bytes.Equal(got, of) {
		t.Errorf("%d operations do not make the file of %d bytes, but one of %d", len(list), len(of), len(got))
	}
	return literal
}

func FuzzDifference(f *testing.F) {
	f.Add(uint64(1), uint32(100<<10), uint16(3))
	f.Add(uint64(2), uint32(0), uint16(1))
	f.Add(uint64(3), uint32(700<<10), uint16(9))
	f.Fuzz(func(t *testing.T, seed uint64, size uint32, edits uint16) {
		r := rand.New(rand.NewPCG(seed, 1))
		base := noise(byte(seed), int(size%(2<<20)))
		of := bytes.Clone(base)
		for range edits % 16 {
			at := r.IntN(len(of) + 1)
			end := min(len(of), at+r.IntN(100<<10))
			of = slices.Concat(of[:at], noise(byte(at), r.IntN(100<<10)), of[end:])
		}
		wantRebuilt(t, base, of)
	})
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", maxChunk+1)))
	f.Add(noise(1, 100<<10))
	g := newGear()
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []byte
		testkit.Must(t, g.chunks(bytes.NewReader(b), func(off int64, chunk []byte) error {
			last := int(off)+len(chunk) == len(b)
			if off != int64(len(got)) || len(chunk) > maxChunk || len(chunk) < minChunk && !last {
				t.Errorf("a chunk of %d bytes at %d of %d", len(chunk), off, len(b))
			}
			got = append(got, chunk...)
			return nil
		}))
		if !bytes.Equal(got, b) {
			t.Error("the chunks do not make the file")
		}
	})
}

func TestChunksAreCutAsEver(t *testing.T) {
	var got []int
	testkit.Must(t, newGear().chunks(bytes.NewReader(noise(1, 200<<10)), func(_ int64, chunk []byte) error {
		got = append(got, len(chunk))
		return nil
	}))
	want := []int{
		12072, 9426, 6696, 17387, 13011, 4306, 6076, 7596, 12055, 8153, 9563, 11464, 5410, 14338, 4257, 27426, 8478,
		6859, 4668, 15559,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDifferencesAreSmall(t *testing.T) {
	base := noise(1, 8<<20)
	changed := bytes.Clone(base)
	for i := range 20 {
		copy(changed[i*300_000:], noise(byte(i), 1000))
	}
	for _, c := range []struct {
		name string
		of   []byte
		most int64
	}{
		{"the same", base, 0},
		{"a byte at the beginning", slices.Concat([]byte{1}, base), maxChunk},
		{"a part that is gone", slices.Concat(base[:1<<20], base[3<<20:]), maxChunk},
		{"two parts that changed places", slices.Concat(base[4<<20:], base[:4<<20]), 2 * maxChunk},
		{"twenty changed places", changed, 20 * 2 * grain},
		{"an appended part", slices.Concat(base, noise(2, 1000)), 1000},
		{"a file that became shorter", base[:5<<20], 0},
		{"nothing in common", noise(3, 1<<20), 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			if literal := wantRebuilt(t, base, c.of); literal > c.most {
				t.Errorf("%d bytes are new, at most %d are", literal, c.most)
			}
		})
	}
}

func TestTreeDeltasAreSmall(t *testing.T) {
	tree := func(names ...string) (out image.Tree) {
		for _, n := range names {
			e := image.Entry{Name: n, Type: image.Regular, Nlink: 1, Size: 1, Digest: image.Sum([]byte(n))}
			out = append(out, e)
		}
		return out
	}
	var wide []string
	for i := range 300 {
		wide = append(wide, string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	for _, c := range []struct {
		name     string
		old, new image.Tree
		most     int
	}{
		{"nothing before", nil, tree("a", "b"), 1000},
		{"nothing after", tree("a", "b"), nil, 10},
		{"the same", tree(wide...), tree(wide...), 16},
		{"one more", tree(slices.Concat(wide[:100], wide[101:])...), tree(wide...), 100},
		{"one less", tree(wide...), tree(slices.Concat(wide[:100], wide[101:])...), 32},
		{"another one", tree(wide...), append(tree(wide[:299]...), image.Entry{Name: "zz", Type: image.FIFO}), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, want := testkit.Value(c.old.Encode())(t), testkit.Value(c.new.Encode())(t)
			delta := testkit.Value(treeDelta(c.old, c.new))(t)
			if len(delta) > c.most {
				t.Errorf("%d bytes, want at most %d", len(delta), c.most)
			}
			d := &reader{b: bufio.NewReader(bytes.NewReader(delta))}
			got := testkit.Value(d.delta(old, uint64(len(want))))(t)
			if !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
