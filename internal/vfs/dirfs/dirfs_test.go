package dirfs

import (
	"os"
	"path/filepath"
	"testing"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

func open(t *testing.T, dir string, opt Options) *FS {
	t.Helper()
	testkit.NeedRoot(t, "handles are opened with open_by_handle_at")
	f, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestHandlesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := &vfs.Cred{}
	var a vfs.Attr
	first := open(t, dir, Options{})
	h, err := first.Lookup(root, first.Root(), "f", &a)
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, Options{})
	if first.Root() != second.Root() {
		t.Error("the root's handle changed")
	}
	if first.Verifier() == second.Verifier() {
		t.Error("the verifier did not change")
	}
	var b vfs.Attr
	if err := second.Attr(h, &b); err != nil || a != b {
		t.Errorf("after a restart the handle shows %+v, %v; before %+v", b, err, a)
	}
}

func TestAHandleOfAnotherTreeIsRefused(t *testing.T) {
	one, two := open(t, t.TempDir(), Options{}), open(t, t.TempDir(), Options{})
	var a vfs.Attr
	if err := two.Attr(one.Root(), &a); err != vfs.EBADHANDLE {
		t.Errorf("got %v", err)
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, 64)} {
		h, _ := vfs.MakeHandle(b)
		if err := one.Attr(h, &a); err != vfs.EBADHANDLE {
			t.Errorf("handle %x: got %v", b, err)
		}
	}
}

func TestNamesWithOneHashAreAllListed(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := open(t, dir, Options{})
	f.hash = func(string) uint64 { return 77 }
	seen := make(map[string]bool)
	var cookie uint64
	for range 20 { // at most: a listing that is resumed between colliding names repeats them
		size := 0
		end, err := f.ReadDir(&vfs.Cred{}, f.Root(), cookie, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
			if size == 3 {
				return false
			}
			size++
			seen[e.Name], cookie = true, e.Cookie
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if end {
			break
		}
	}
	for _, n := range []string{".", "..", "a", "b", "c"} {
		if !seen[n] {
			t.Errorf("%q was not listed", n)
		}
	}
}

func TestCookiesOfAListingOnlyGrow(t *testing.T) {
	list := []entry{{name: "x"}, {name: "y"}, {name: "z"}, {name: ""}, {name: "\xff"}}
	constant := func(h uint64) func(string) uint64 { return func(string) uint64 { return h } }
	for _, hash := range []func(string) uint64{nameHash, constant(0), constant(1<<64 - 1)} {
		last := uint64(cookieDotDot)
		for _, e := range order(list, hash) {
			if e.cookie < last || e.cookie <= cookieDotDot || e.cookie >= 1<<63 {
				t.Errorf("cookie %d after %d", e.cookie, last)
			}
			last = e.cookie
		}
	}
}
