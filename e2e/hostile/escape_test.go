package hostile

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

var plain = vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755}

// symlinks makes links that lead out of the replica if the server follows them.
func symlinks(t *testing.T, s *site, tree *nfsclient.Tree) (links []vfs.Handle) {
	t.Helper()
	for i, target := range []string{
		s.outside(), s.outside() + "/secret", "../../../../outside", "../../../../outside/secret",
		"/proc/self/root" + s.outside(), "/dev/fd/0", "/",
		strings.Repeat("../", 40) + strings.TrimPrefix(s.outside(), "/"),
	} {
		m, err := tree.Symlink(root, tree.Root(), fmt.Sprint("out", i), target, &vfs.SetAttr{})
		testkit.Must(t, err)
		links = append(links, m.Handle)
	}
	return links
}

func TestNoSymlinkIsFollowed(t *testing.T) {
	s := newSite(t)
	tree := s.tree(t)
	buf := make([]byte, 100)
	for i, l := range symlinks(t, s, tree) {
		name := fmt.Sprint("out", i)
		var a vfs.Attr
		_, lookup := tree.Lookup(root, l, "secret", &a)
		_, create := tree.Create(root, l, "new", &vfs.Create{Mode: vfs.Guarded, Attr: plain})
		_, mkdir := tree.Mkdir(root, l, "new", &plain)
		_, remove := tree.Remove(root, l, "secret")
		_, from := tree.Rename(root, l, "secret", tree.Root(), "mine")
		_, list := tree.ReadDir(root, l, 0, vfs.WithAttr, func(*vfs.DirEntry) bool { return true })
		_, write := tree.Write(root, l, []byte("x"), 0, vfs.FileSync)
		_, _, read := tree.Read(root, l, buf, 0)
		_, over := tree.Create(root, tree.Root(), name,
			&vfs.Create{Mode: vfs.Unchecked, Attr: vfs.SetAttr{Valid: vfs.SetSize}})
		for what, err := range map[string]error{
			"look up": lookup, "create": create, "mkdir": mkdir, "remove": remove, "rename": from, "list": list,
			"write": write, "read": read, "create over": over,
		} {
			if err == nil {
				t.Errorf("%s through link %d was possible", what, i)
			}
		}
		// What is done to a link is done to the link itself.
		if _, err := tree.SetAttr(root, l, &vfs.SetAttr{Valid: vfs.SetUID | vfs.SetMtimeNow, UID: 7}); err != nil {
			t.Errorf("chown of link %d: %v", i, err)
		}
		_, _ = tree.SetAttr(root, l, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o777})
		if _, err := tree.Link(root, l, tree.Root(), name+"-too"); err != nil {
			t.Errorf("link to link %d: %v", i, err)
		}
	}
	s.checkOutside(t)
}

func TestNoNameLeadsOut(t *testing.T) {
	s := newSite(t)
	tree := s.tree(t)
	var a vfs.Attr
	up, err := tree.Lookup(root, tree.Root(), "..", &a)
	if err != nil || up != tree.Root() {
		t.Errorf("above the root is %v, %v", up, err)
	}
	for _, name := range []string{
		"../secret", "../../../outside/secret", s.outside() + "/secret", "d/../../x", "/", "a/b", "./a", "x\x00y", ".",
		"..", "", strings.Repeat("x", 256),
	} {
		if _, err := tree.Lookup(root, tree.Root(), name, &a); err == nil && name != "." && name != ".." {
			t.Errorf("look up of %q was possible", name)
		}
		_, create := tree.Create(root, tree.Root(), name, &vfs.Create{Mode: vfs.Unchecked, Attr: plain})
		_, mkdir := tree.Mkdir(root, tree.Root(), name, &plain)
		_, symlink := tree.Symlink(root, tree.Root(), name, "x", &plain)
		_, to := tree.Rename(root, tree.Root(), "h", tree.Root(), name)
		_, from := tree.Rename(root, tree.Root(), name, tree.Root(), "mine")
		_, remove := tree.Remove(root, tree.Root(), name)
		for what, err := range map[string]error{"create": create, "mkdir": mkdir, "symlink": symlink, "rename to": to,
			"rename from": from, "remove": remove} {
			if err == nil {
				t.Errorf("%s %q was possible", what, name)
			}
		}
	}
	s.checkOutside(t)
}

func TestNoHandleLeadsOut(t *testing.T) {
	s := newSite(t)
	tree := s.tree(t)
	var a vfs.Attr
	other := s.other.Root()
	inOther, err := s.other.Lookup(root, other, "h", &a)
	testkit.Must(t, err)
	good, err := tree.Lookup(root, tree.Root(), "h", &a)
	testkit.Must(t, err)
	var forged []vfs.Handle
	for _, h := range []vfs.Handle{other, inOther, good, tree.Root()} {
		for i := range len(h.Bytes()) {
			b := append([]byte(nil), h.Bytes()...)
			b[i] ^= byte(1 + rand.IntN(255))
			f, _ := vfs.MakeHandle(b)
			short, _ := vfs.MakeHandle(b[:i])
			forged = append(forged, f, short)
		}
	}
	long, _ := vfs.MakeHandle(append(append([]byte(nil), good.Bytes()...), 1, 2, 3,
		4)[:min(vfs.HandleMax, len(good.Bytes())+4)])
	forged = append(forged, long, other, inOther)
	for _, h := range forged {
		if _, err := tree.Write(root, h, []byte("forged"), 0, vfs.FileSync); err == nil {
			t.Errorf("wrote through the handle %x", h.Bytes())
		}
		if _, err := tree.Create(root, h, "forged", &vfs.Create{Mode: vfs.Guarded, Attr: plain}); err == nil {
			t.Errorf("created through the handle %x", h.Bytes())
		}
		if _, err := tree.Link(root, h, tree.Root(), "forged"); err == nil {
			t.Errorf("linked the handle %x", h.Bytes())
		}
		if _, err := tree.Rename(root, tree.Root(), "h", h, "forged"); err == nil {
			t.Errorf("renamed into the handle %x", h.Bytes())
		}
	}
	s.checkOutside(t)
}

// TestNoRaceLeadsOut exchanges a directory and a link that leads out, as fast as it can, while other goroutines
// use paths below that name.
func TestNoRaceLeadsOut(t *testing.T) {
	s := newSite(t)
	setup := s.tree(t)
	_, err := setup.Mkdir(root, setup.Root(), "swap", &plain)
	testkit.Must(t, err)
	_, err = setup.Symlink(root, setup.Root(), "out", s.outside(), &vfs.SetAttr{})
	testkit.Must(t, err)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop.Store(true)
		for i := range 200 {
			_, _ = setup.Rename(root, setup.Root(), "swap", setup.Root(), "kept")
			_, _ = setup.Rename(root, setup.Root(), "out", setup.Root(), "swap")
			_, _ = setup.Rename(root, setup.Root(), "swap", setup.Root(), "out")
			_, _ = setup.Rename(root, setup.Root(), "kept", setup.Root(), "swap")
			if i%20 == 0 {
				if err := s.flip(); err != nil {
					t.Errorf("switch: %v", err)
				}
			}
		}
	})
	for i := range 4 {
		tree, r := s.tree(t), rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for !stop.Load() {
				below(t, tree, r)
			}
		})
	}
	wg.Wait()
	s.checkOutside(t)
}

// below makes calls below the name swap, whatever it is at that moment.
func below(t *testing.T, tree *nfsclient.Tree, r *rand.Rand) {
	var a vfs.Attr
	dir, err := tree.Lookup(root, tree.Root(), "swap", &a)
	if err != nil {
		return
	}
	name := fmt.Sprint("n", r.IntN(5))
	switch r.IntN(6) {
	case 0:
		_, _ = tree.Create(root, dir, name, &vfs.Create{Mode: vfs.Unchecked, Attr: plain})
	case 1:
		_, _ = tree.Mkdir(root, dir, name, &plain)
	case 2:
		_, _ = tree.Rename(root, dir, "secret", tree.Root(), "stolen")
	case 3:
		_, _ = tree.Remove(root, dir, "secret")
	case 4:
		if h, err := tree.Lookup(root, dir, "secret", &a); err == nil {
			t.Errorf("found the secret: %x", h.Bytes())
		}
	case 5:
		_, _ = tree.Remove(root, dir, name)
		_, _ = tree.Rmdir(root, dir, name)
	}
}
