package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everything is a tree with an entry of every type and every optional part.
func everything() Tree {
	blob := Sum([]byte("x"))
	return Tree{
		{Name: "\xff\n", Type: FIFO, Mode: 0o600, Nlink: 1, Mtime: Time{Sec: -5, Nsec: 999999999}},
	}.with(
		Entry{Name: "a", Type: Regular, Mode: 0o4755, UID: 1, GID: 1 << 31, Size: 1, Digest: blob, Nlink: 1},
		Entry{Name: "b", Type: Regular, Size: 1, Digest: blob, Link: "a/b", Nlink: 2},
		Entry{Name: "c", Type: Regular, Size: 1 << 40, Digest: blob, Nlink: 1, Data: []Extent{{4096, 1}, {8192, 4096}}},
		Entry{Name: "d", Type: Directory, Mode: 0o1777, Digest: Sum([]byte{1, 0}), Nlink: 1},
		Entry{Name: "e", Type: Symlink, Mode: 0o777, Target: "../x", Nlink: 1},
		Entry{Name: "f", Type: CharDevice, Major: 1, Minor: 1 << 19, Nlink: 1},
		Entry{Name: "g", Type: BlockDevice, Nlink: 3, Link: "g",
			Xattrs: []Xattr{{"security.capability", []byte{1, 0}}, {"user.a", []byte{}}}},
		Entry{Name: "h", Type: Regular, Size: 9, Digest: blob, Data: []Extent{}, Nlink: 1},
		Entry{Name: "i", Type: Regular, Digest: Sum(nil), Nlink: 1},
	)
}

func (t Tree) with(more ...Entry) Tree { return append(more, t...) }

func TestAnEncodedTreeIsParsedUnchanged(t *testing.T) {
	for _, want := range []Tree{{}, everything()} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseTree(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("the parsed tree differs (-want +got):\n%s", d)
		}
	}
}

func TestTheEncodingOfATreeNeverChanges(t *testing.T) {
	b, err := everything().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = "5957014b2f6d6eb8cf0911043f8ad1f20536bdcfda7d05052e01b96af1da8c98"
	if got := Sum(b).String(); got != want {
		t.Errorf("the format changed: digest %s, want %s", got, want)
	}
}

func TestAnEncodedRootIsParsedUnchanged(t *testing.T) {
	want := Entry{Type: Directory, Mode: 0o755, Digest: Sum([]byte{1, 0}), Nlink: 1}
	b, err := want.EncodeRoot()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRoot(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := ParseTree(b, nil); err == nil {
		t.Error("ParseTree takes a root's entry without a name")
	}
}

func TestEncodeRefusesInvalidTrees(t *testing.T) {
	blob := Sum([]byte("x"))
	tests := []struct {
		name string
		tree Tree
	}{
		{"names out of order", Tree{{Name: "b", Type: FIFO}, {Name: "a", Type: FIFO}}},
		{"a name twice", Tree{{Name: "a", Type: FIFO}, {Name: "a", Type: FIFO}}},
		{"no name", Tree{{Type: FIFO}}},
		{"dot", Tree{{Name: ".", Type: FIFO}}},
		{"dot dot", Tree{{Name: "..", Type: FIFO}}},
		{"slash", Tree{{Name: "a/b", Type: FIFO}}},
		{"NUL", Tree{{Name: "a\x00", Type: FIFO}}},
		{"a name of 256 bytes", Tree{{Name: strings.Repeat("x", 256), Type: FIFO}}},
		{"no type", Tree{{Name: "a"}}},
		{"type 7", Tree{{Name: "a", Type: 7}}},
		{"mode", Tree{{Name: "a", Type: FIFO, Mode: 0o10000}}},
		{"nanoseconds", Tree{{Name: "a", Type: FIFO, Mtime: Time{Nsec: 1e9}}}},
		{"a FIFO with a size", Tree{{Name: "a", Type: FIFO, Size: 1}}},
		{"a FIFO with a digest", Tree{{Name: "a", Type: FIFO, Digest: blob}}},
		{"a FIFO with a target", Tree{{Name: "a", Type: FIFO, Target: "x"}}},
		{"a symlink without a target", Tree{{Name: "a", Type: Symlink}}},
		{"a group of one", Tree{{Name: "a", Type: FIFO, Link: "a", Nlink: 1}}},
		{"two names without a group", Tree{{Name: "a", Type: FIFO, Nlink: 2}}},
		{"a group whose path is absolute", Tree{{Name: "a", Type: FIFO, Link: "/a", Nlink: 2}}},
		{"a directory in a group", Tree{{Name: "a", Type: Directory, Link: "a", Nlink: 2}}},
		{"an empty file with a digest", Tree{{Name: "a", Type: Regular, Digest: blob}}},
		{"extents that touch", Tree{{Name: "a", Type: Regular, Size: 9, Digest: blob, Data: []Extent{{1, 1}, {2, 1}}}}},
		{"an extent beyond the end", Tree{{Name: "a", Type: Regular, Size: 9, Digest: blob, Data: []Extent{{8, 2}}}}},
		{"an empty extent", Tree{{Name: "a", Type: Regular, Size: 9, Digest: blob, Data: []Extent{{8, 0}}}}},
		{"one extent that is all", Tree{{Name: "a", Type: Regular, Size: 9, Digest: blob, Data: []Extent{{0, 9}}}}},
		{"xattrs out of order", Tree{{Name: "a", Type: FIFO, Xattrs: []Xattr{{Name: "user.b"}, {Name: "user.a"}}}}},
	}
	for _, tt := range tests {
		if _, err := tt.tree.Encode(); err == nil {
			t.Errorf("Encode accepts %s", tt.name)
		}
	}
}

func TestParseTreeRefusesOtherEncodings(t *testing.T) {
	b, err := everything().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := ParseTree(b[:i], nil); err == nil {
			t.Fatalf("ParseTree accepts the first %d of %d bytes", i, len(b))
		}
	}
	if _, err := ParseTree(append(bytes.Clone(b), 0), nil); err == nil {
		t.Error("ParseTree accepts a trailing byte")
	}
	for name, form := range map[string][]byte{
		"a count in two bytes":     {1, 0x80, 0},
		"a count of 2^63":          {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"a newer format":           {2, 0},
		"a count without entries":  {1, 200},
		"nothing":                  {},
		"a number above 64 bits":   {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
		"a number without an end":  bytes.Repeat([]byte{0xff}, 99),
		"an unknown optional part": {1, 1, 0x86, 1, 'a', 0, 0, 0, 0, 0},
	} {
		if _, err := ParseTree(form, nil); err == nil {
			t.Errorf("ParseTree accepts %s", name)
		}
	}
}

func FuzzParseTree(f *testing.F) {
	b, err := everything().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 1, 6, 1, 'a', 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := ParseTree(b, nil)
		if err == nil {
			again, err := tree.Encode()
			if err != nil {
				t.Fatalf("a parsed tree does not encode: %v", err)
			}
			if !bytes.Equal(b, again) {
				t.Fatalf("parse and encode changed the bytes:\n%x\n%x", b, again)
			}
		}
		if root, err := ParseRoot(b); err == nil {
			if again, err := root.EncodeRoot(); err != nil || !bytes.Equal(b, again) {
				t.Fatalf("parse and encode changed the root's bytes: %v", err)
			}
		}
	})
}

// BenchmarkParseVersion parses 7,100 trees with 90,000 names in total. A replica may spend 100 ms on that.
func BenchmarkParseVersion(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var encoded [][]byte
	for range 7100 {
		var t Tree
		for j := range 13 {
			e := Entry{Name: fmt.Sprintf("%03d-some-file.so", j), Type: Regular, Mode: 0o644, Nlink: 1, Size: 1234,
				Mtime: Time{Sec: 1700000000}, Digest: Sum([]byte{byte(r.Int())})}
			t = append(t, e)
		}
		enc, err := t.Encode()
		if err != nil {
			b.Fatal(err)
		}
		encoded = append(encoded, enc)
	}
	for b.Loop() {
		for _, enc := range encoded {
			if _, err := ParseTree(enc, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}
