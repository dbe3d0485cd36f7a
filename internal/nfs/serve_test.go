package nfs_test

import (
	"context"
	"math"
	"net"
	"testing"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
	"dim/internal/vfs/vfstest"
)

// trees is Exports by path, the same for every client; Find asks every tree whether the handle is its own.
type trees map[string]vfs.FS

func (e trees) Client(nfs.Peer) (nfs.Client, error) { return e, nil }
func (e trees) Current() bool                       { return true }

func (e trees) Mount(_ context.Context, path string) (vfs.FS, error) {
	if fs, ok := e[path]; ok {
		return fs, nil
	}
	return nil, vfs.ENOENT
}

func (e trees) Find(h vfs.Handle) (nfs.Export, error) {
	var a vfs.Attr
	for _, fs := range e {
		if fs.Attr(h, &a) != vfs.EBADHANDLE {
			return nfs.Export{FS: fs}, nil
		}
	}
	return nfs.Export{}, vfs.EBADHANDLE
}

func (e trees) Paths() (paths []string) {
	for p := range e {
		paths = append(paths, p)
	}
	return paths
}

// serve serves exports on a loopback port until the test ends.
func serve(
	t testing.TB, exports nfs.Exports, opt nfs.Options, rpcOpt oncrpc.Options,
) (addr string, srv *oncrpc.Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = oncrpc.NewServer(rpcOpt, nfs.New(exports, opt).Programs()...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String(), srv
}

func dial(t testing.TB, addr string) *nfsclient.Client {
	t.Helper()
	c, err := nfsclient.Dial(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// directory opens dir as a tree.
func directory(t testing.TB, dir string) vfs.FS {
	t.Helper()
	testkit.NeedRoot(t, "dirfs opens handles with open_by_handle_at")
	fs, err := dirfs.Open(dir, dirfs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// mounted returns fs as a client sees it through a server.
func mounted(t testing.TB, fs vfs.FS) *nfsclient.Tree {
	t.Helper()
	addr, _ := serve(t, trees{"/export": fs}, nfs.Options{}, oncrpc.Options{})
	tree, err := dial(t, addr).Tree("/export")
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestBatteryThroughTheWire(t *testing.T) {
	testkit.NeedRoot(t, "dirfs opens handles with open_by_handle_at")
	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS {
		dir := t.TempDir()
		vfstest.WriteDir(t, dir, seed)
		return carried{mounted(t, directory(t, dir)), t}
	})
}

// carried skips the cases that need what NFSv3 cannot carry.
type carried struct {
	*nfsclient.Tree
	t *testing.T
}

func (f carried) SetAttr(c *vfs.Cred, h vfs.Handle, s *vfs.SetAttr) (vfs.Change, error) {
	if s.Atime.Sec > math.MaxUint32 || s.Mtime.Sec > math.MaxUint32 {
		f.t.Skip("NFSv3 cannot carry times after 2106")
	}
	return f.Tree.SetAttr(c, h, s)
}

// Verifier gets the present verifier of the server with a COMMIT of any file.
func (f carried) Verifier() [8]byte {
	_, err := f.ReadDir(&vfs.Cred{}, f.Root(), 0, vfs.WithAttr, func(de *vfs.DirEntry) bool {
		if de.Attr.Type != vfs.Regular {
			return true
		}
		_, err := f.Commit(&vfs.Cred{}, de.Handle)
		return err != nil
	})
	if err != nil {
		f.t.Errorf("list the root: %v", err)
	}
	return f.Tree.Verifier()
}
