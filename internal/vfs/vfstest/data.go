package vfstest

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"dim/internal/vfs"
)

func dataCases() []testCase { return slices.Concat(readWriteCases(), extentCases()) }

func readWriteCases() []testCase {
	seed := []Entry{
		file("f", 0o644, owner{aliceID, aliceID}, "0123456789"),
		file("empty", 0o644, owner{aliceID, aliceID}, ""),
	}
	return []testCase{
		{"reads report the end of the file", seed, func(t *tree) {
			for _, c := range []struct {
				n    int
				off  uint64
				want string
				eof  []bool // the allowed values
			}{
				{4, 0, "0123", []bool{false}}, {10, 0, "0123456789", []bool{false, true}},
				{20, 0, "0123456789", []bool{true}},
				{4, 8, "89", []bool{true}}, {4, 10, "", []bool{true}}, {4, 11, "", []bool{true}},
				{4, math.MaxInt64, "", []bool{true}},
				{4, math.MaxUint64, "", []bool{true}}, {4, 1 << 40, "", []bool{true}},
			} {
				p := make([]byte, c.n)
				n, eof, err := t.Read(alice(), t.h("f"), p, c.off)
				t.ok(err, "read")
				t.same("data", string(p[:n]), c.want)
				if eof != c.eof[0] && eof != c.eof[len(c.eof)-1] {
					t.Errorf("read %d at %d: eof %v", c.n, c.off, eof)
				}
			}
			n, eof, err := t.Read(alice(), t.h("empty"), make([]byte, 8), 0)
			if n != 0 || !eof || err != nil {
				t.Errorf("read of an empty file: %d, %v, %v", n, eof, err)
			}
		}},
		{"a write inside changes those bytes only", seed, func(t *tree) {
			t.write(alice(), "f", "abc", 3)
			t.hasContent("f", "012abc6789")
		}},
		{"a write across the end extends the file", seed, func(t *tree) {
			ch, err := t.Write(alice(), t.h("f"), []byte("xyz"), 9, vfs.FileSync)
			t.ok(err, "write")
			t.hasContent("f", "012345678xyz")
			t.same("size", ch.After.Size, uint64(12))
		}},
		{"a write beyond the end leaves zeros in between", seed, func(t *tree) {
			t.write(alice(), "f", "end", 5000)
			t.hasContent("f", "0123456789"+strings.Repeat("\x00", 4990)+"end")
		}},
		{"an empty write changes nothing", seed, func(t *tree) {
			was := t.attr("f")
			_, err := t.Write(alice(), t.h("f"), nil, 100, vfs.Unstable)
			t.ok(err, "write")
			t.same("attributes", t.attr("f"), was)
		}},
		{"writes of all stabilities may be followed by a commit", seed, func(t *tree) {
			for i, s := range []vfs.Stability{vfs.Unstable, vfs.DataSync, vfs.FileSync} {
				_, err := t.Write(alice(), t.h("f"), []byte{byte('a' + i)}, uint64(i), s)
				t.ok(err, "write %d", s)
			}
			ch, err := t.Commit(alice(), t.h("f"))
			t.ok(err, "commit")
			t.same("size", ch.After.Size, uint64(10))
			t.hasContent("f", "abc3456789")
		}},
	}
}

func extentCases() []testCase {
	seed := []Entry{
		file("f", 0o644, owner{aliceID, aliceID}, "0123456789"),
		file("empty", 0o644, owner{aliceID, aliceID}, ""),
	}
	return []testCase{
		{"the verifier does not change while the server runs", seed, func(t *tree) {
			v := t.Verifier()
			t.write(alice(), "f", "x", 0)
			t.same("verifier", t.Verifier(), v)
		}},
		{"offsets beyond 4 GiB work and leave a hole", seed, func(t *tree) {
			const off = 5<<30 + 123
			t.write(alice(), "f", "far", off)
			a := t.attr("f")
			t.same("size", a.Size, uint64(off+3))
			if a.Used > 1<<30 {
				t.Errorf("%d bytes used", a.Used)
			}
			p := make([]byte, 10)
			n, eof, err := t.Read(alice(), t.h("f"), p, off-2)
			t.ok(err, "read")
			t.same("data", string(p[:n]), "\x00\x00far")
			t.same("eof", eof, true)
			n, _, err = t.Read(alice(), t.h("f"), p, 1<<32-5)
			t.ok(err, "read in the hole")
			t.same("hole", p[:n], make([]byte, 10))
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 10})
			t.hasContent("f", "0123456789")
		}},
		{"a large size takes no room on the disk", seed, func(t *tree) {
			t.set(alice(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 1 << 40})
			a := t.attr("f")
			t.same("size", a.Size, uint64(1<<40))
			if a.Used > 1<<30 {
				t.Errorf("%d bytes used", a.Used)
			}
		}},
		{"offsets beyond 63 bits are refused", seed, func(t *tree) {
			for _, off := range []uint64{math.MaxInt64, 1 << 63, math.MaxUint64} {
				_, err := t.Write(alice(), t.h("f"), []byte("no"), off, vfs.Unstable)
				t.fails(err, vfs.EFBIG, vfs.EINVAL)
			}
			t.hasContent("f", "0123456789")
		}},
		{
			"bytes that were cut off are zeros when the file is extended",
			[]Entry{file("f", 0o644, owner{}, strings.Repeat("secret", 3000))},
			func(t *tree) {
				t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 5})
				t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 9000})
				t.hasContent("f", "secre"+strings.Repeat("\x00", 8995))
				t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: 2})
				t.write(root(), "f", "x", 6)
				t.hasContent("f", "se\x00\x00\x00\x00x")
			},
		},
		{"only regular files are written and committed", kinds(), func(t *tree) {
			for p, want := range map[string]vfs.Errno{
				"dir": vfs.EISDIR, "link": vfs.EINVAL, "fifo": vfs.EINVAL, "null": vfs.EINVAL,
			} {
				_, err := t.Write(root(), t.h(p), []byte("x"), 0, vfs.Unstable)
				t.fails(err, want, vfs.EINVAL)
			}
		}},
		{"a large file has the bytes that were written in large pieces", nil, largeFile},
		{
			"random writes, truncations and reads agree with a buffer in memory",
			[]Entry{file("f", 0o644, owner{}, strings.Repeat("initial content ", 1000))},
			randomIO,
		},
	}
}

func largeFile(t *tree) {
	const piece, pieces = 1 << 20, 9
	h := t.create(root(), "big", 0o644).Handle
	rng := rand.NewChaCha8([32]byte{1})
	want := make([]byte, piece*pieces)
	rng.Read(want)
	for i := pieces - 1; i >= 0; i-- {
		_, err := t.Write(root(), h, want[i*piece:(i+1)*piece], uint64(i*piece), vfs.Unstable)
		t.ok(err, "write")
	}
	_, err := t.Commit(root(), h)
	t.ok(err, "commit")
	got := make([]byte, len(want))
	n, _, err := t.Read(root(), h, got, 0)
	t.ok(err, "read")
	if n != len(got) || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of %d, or wrong bytes", n, len(want))
	}
}

func randomIO(t *tree) {
	const limit = 64 << 10
	h := t.h("f")
	model := []byte(t.content(h))
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 8<<10)
	for i := range 400 {
		off, n := rng.IntN(limit-len(p)), 1+rng.IntN(len(p)-1)
		switch rng.IntN(5) {
		case 0:
			size := rng.IntN(limit)
			t.set(root(), "f", vfs.SetAttr{Valid: vfs.SetSize, Size: uint64(size)})
			model = resize(model, size)
		case 1, 2:
			for j := range n {
				p[j] = byte(i + j)
			}
			_, err := t.Write(root(), h, p[:n], uint64(off), vfs.Stability(rng.IntN(2)))
			t.ok(err, "write")
			model = resize(model, max(len(model), off+n))
			copy(model[off:], p[:n])
		default:
			got, eof, err := t.Read(root(), h, p[:n], uint64(off))
			t.ok(err, "read")
			want := model[min(off, len(model)):min(off+n, len(model))]
			if !bytes.Equal(p[:got], want) || eof != (off+n >= len(model)) && off+n != len(model) {
				t.Fatalf("step %d: read %d at %d differs (size %d, got %d bytes, eof %v)",
					i, n, off, len(model), got, eof)
			}
		}
	}
	if t.content(h) != string(model) {
		t.Error("the whole file differs in the end")
	}
}

// resize truncates b, or extends it with zeros.
func resize(b []byte, size int) []byte {
	if size <= len(b) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-len(b))...)
}
