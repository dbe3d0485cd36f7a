package nfs_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	x "github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"
	"github.com/google/go-cmp/cmp"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

func TestListingsFillTheirLimits(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{".": true, "..": true}
	for i := range 50 {
		name := strings.Repeat("x", i%13+1) + fmt.Sprint(i)
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	addr, _ := serve(t, trees{"/export": directory(t, dir)}, nfs.Options{}, oncrpc.Options{})
	c := dial(t, addr)
	tree, err := c.Tree("/export")
	if err != nil {
		t.Fatal(err)
	}
	root := tree.Root()
	top := x.NfsFh3{Data: root.Bytes()}
	for limit := uint32(150); limit < 1200; limit += 7 {
		got := map[string]bool{}
		var cookie uint64
		for eof := false; !eof; {
			args := &x.Readdirplus3args{Dir: top, Cookie: cookie, Dircount: 1 << 20, Maxcount: limit}
			res := raw(t, c, nfsclient.ProgramNFS, 17, args)
			if n := len(res) - 4; n > int(limit) {
				t.Fatalf("READDIRPLUS with limit %d got %d bytes", limit, n)
			}
			r, _, err := x.ReadReaddirplus3res(bytes.NewReader(res))
			ok, _ := r.(*x.Readdirplus3res_NFS3_OK)
			if err != nil {
				t.Fatal(err)
			}
			if ok == nil {
				if r.GetStatus() != x.NFS3ERR_TOOSMALL || limit > 350 {
					t.Fatalf("limit %d: status %d", limit, r.GetStatus())
				}
				break
			}
			for e := ok.Resok.Reply.Entries; e != nil; e = e.Nextentry {
				got[e.Name] = true
				cookie = e.Cookie
			}
			eof = ok.Resok.Reply.Eof
		}
		if len(got) > 0 && limit > 350 {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("limit %d (-want +got)\n%s", limit, diff)
			}
		}
	}
	// The limit must leave out an entry if it is one byte less than the whole listing takes, and none if it is equal.
	whole := len(raw(t, c, nfsclient.ProgramNFS, 16, &x.Readdir3args{Dir: top, Count: 1 << 16})) - 4
	for limit, want := range map[int]bool{whole: true, whole - 1: false} {
		r, _, _ := x.ReadReaddir3res(results3(t, c, 16, &x.Readdir3args{Dir: top, Count: uint32(limit)}))
		if ok, _ := r.(*x.Readdir3res_NFS3_OK); ok == nil || ok.Resok.Reply.Eof != want {
			t.Errorf("READDIR with limit %d of %d: %+v", limit, whole, r)
		}
	}
	// dircount counts file id, name and cookie: 16 + 4 + 4 for "." and "..".
	for names, want := range map[uint32]int{1: 1, 24: 1, 47: 1, 48: 2} {
		args := &x.Readdirplus3args{Dir: top, Dircount: names, Maxcount: 1 << 16}
		r, _, _ := x.ReadReaddirplus3res(results3(t, c, 17, args))
		n := 0
		if ok, _ := r.(*x.Readdirplus3res_NFS3_OK); ok != nil {
			for e := ok.Resok.Reply.Entries; e != nil; e = e.Nextentry {
				n++
			}
		}
		if n != want {
			t.Errorf("dircount %d gave %d entries, want %d", names, n, want)
		}
	}
}

// fenced is Exports in which each tree belongs to one client port.
type fenced struct {
	trees
	mu    sync.Mutex
	owner map[string]uint16
}

func (f *fenced) Client(peer nfs.Peer) (nfs.Client, error) {
	return fencedClient{f, peer.Remote.Port()}, nil
}

type fencedClient struct {
	*fenced
	port uint16
}

func (f fencedClient) Find(h vfs.Handle) (nfs.Export, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var a vfs.Attr
	for path, fs := range f.trees {
		if fs.Attr(h, &a) != vfs.EBADHANDLE {
			if f.owner[path] != f.port {
				return nfs.Export{}, vfs.EACCES
			}
			return nfs.Export{FS: fs}, nil
		}
	}
	return nfs.Export{}, vfs.EBADHANDLE
}

func TestAClientReachesOnlyItsOwnTree(t *testing.T) {
	both := trees{"/a": directory(t, t.TempDir()), "/b": directory(t, t.TempDir())}
	f := &fenced{trees: both, owner: map[string]uint16{}}
	addr, _ := serve(t, f, nfs.Options{}, oncrpc.Options{})
	a, b := dial(t, addr), dial(t, addr)
	f.mu.Lock()
	f.owner["/a"] = uint16(a.LocalAddr().(*net.TCPAddr).Port)
	f.owner["/b"] = uint16(b.LocalAddr().(*net.TCPAddr).Port)
	f.mu.Unlock()
	own, err := a.Tree("/a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Tree("/b")
	if err != nil {
		t.Fatal(err)
	}
	var attr vfs.Attr
	if err := own.Attr(own.Root(), &attr); err != nil {
		t.Error(err)
	}
	if err := own.Attr(other.Root(), &attr); err != vfs.EACCES {
		t.Errorf("getattr: %v", err)
	}
	root := &vfs.Cred{}
	m, err := own.Create(root, own.Root(), "f", &vfs.Create{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Rename(root, own.Root(), "f", other.Root(), "f"); err != vfs.EACCES {
		t.Errorf("rename: %v", err)
	}
	if _, err := own.Link(root, m.Handle, other.Root(), "f"); err != vfs.EACCES {
		t.Errorf("link: %v", err)
	}
	f.mu.Lock()
	f.owner["/b"] = f.owner["/a"] // both trees belong to the client now
	f.mu.Unlock()
	if _, err := own.Rename(root, own.Root(), "f", other.Root(), "f"); err != vfs.EXDEV {
		t.Errorf("rename across trees: %v", err)
	}
	if _, err := own.Link(root, m.Handle, other.Root(), "f"); err != vfs.EXDEV {
		t.Errorf("link across trees: %v", err)
	}
}

func TestTheCallsOfShowmount(t *testing.T) {
	addr, _ := serve(t, trees{"/a": directory(t, t.TempDir())}, nfs.Options{}, oncrpc.Options{})
	c := dial(t, addr)
	if paths, err := c.Exports(); err != nil || !cmp.Equal(paths, []string{"/a"}) {
		t.Errorf("exports: %v, %v", paths, err)
	}
	if _, err := c.Mount("/b"); err != vfs.ENOENT {
		t.Errorf("mount of what is not exported: %v", err)
	}
	for _, err := range []error{
		c.Null(nfsclient.ProgramMount), c.Unmount("/a"),
		c.Do(nfsclient.Call{Program: nfsclient.ProgramMount, Proc: 4}),
		c.Do(nfsclient.Call{
			Program: nfsclient.ProgramMount, Proc: 2,
			Results: func(d *oncrpc.Decoder) error { d.Uint32(); return nil },
		}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestACallRepeatedOverAnotherConnectionGetsItsFirstReply(t *testing.T) {
	tree := directory(t, t.TempDir())
	addr, srv := serve(t, trees{"/export": tree}, nfs.Options{}, oncrpc.Options{})
	top := tree.Root()
	e := oncrpc.NewEncoder(nil)
	for _, v := range []uint32{0, 77, 0, 2, nfsclient.ProgramNFS, 3, 9, 1, 20, 0, 0, 0, 0, 0, 0, 0} {
		e.Uint32(v)
	}
	e.Opaque(top.Bytes())
	e.String("dir")
	for range 6 {
		e.Uint32(0)
	}
	e.PutUint32(0, uint32(e.Len()-4)|1<<31)
	var replies [2][]byte
	for i := range replies {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.Write(e.Bytes())
		b := make([]byte, 4096)
		n, err := nc.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		replies[i] = b[:n]
		nc.Close()
	}
	if !bytes.Equal(replies[0], replies[1]) || word(replies[0], 7) != 0 {
		t.Errorf("MKDIR: %x, then %x", replies[0], replies[1])
	}
	if n := srv.Stats().Repeated; n != 1 {
		t.Errorf("%d calls answered from kept replies", n)
	}
}

func TestManyClientsReadAndWriteAtTheSameTime(t *testing.T) {
	addr, srv := serve(t, trees{"/export": directory(t, t.TempDir())}, nfs.Options{}, oncrpc.Options{Memory: 8 << 20})
	data := bytes.Repeat([]byte("some words that are not all the same "), 60000) // 2.2 MB
	root := &vfs.Cred{}
	var wg sync.WaitGroup
	for i := range 8 {
		c := dial(t, addr)
		wg.Go(func() {
			tree, err := c.Tree("/export")
			if err != nil {
				t.Error(err)
				return
			}
			how := &vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}}
			m, err := tree.Create(root, tree.Root(), fmt.Sprint(i), how)
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				if _, err := tree.Write(root, m.Handle, data, 0, vfs.Unstable); err != nil {
					t.Error(err)
				}
				p := make([]byte, len(data)+1)
				n, eof, err := tree.Read(root, m.Handle, p, 0)
				if err != nil || !eof || !bytes.Equal(p[:n], data) {
					t.Errorf("read %d bytes, eof %v, %v", n, eof, err)
				}
			}
		})
	}
	wg.Wait()
	// Buffers are released a moment after the last reply.
	testkit.Eventually(t, "all buffers are released", func() bool { return srv.Stats().Memory == 0 })
}

func TestThousandsOfConnections(t *testing.T) {
	addr, srv := serve(t, trees{"/export": directory(t, t.TempDir())}, nfs.Options{}, oncrpc.Options{})
	var conns []net.Conn
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	for range 2000 {
		nc, err := new(net.Dialer).DialContext(context.Background(), "tcp", addr)
		if err != nil {
			t.Skipf("after %d connections: %v", len(conns), err)
		}
		conns = append(conns, nc)
		nc.Write([]byte{0x80, 0, 0}) // an incomplete record mark
	}
	if _, err := dial(t, addr).Mount("/export"); err != nil {
		t.Error(err)
	}
	if n := srv.Stats().Conns; n != 2001 {
		t.Errorf("%d connections", n)
	}
}
