package nfs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/mount"
	x "github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// coded is a type of the independent coder.
type coded interface {
	io.ReaderFrom
	io.WriterTo
}

// arguments returns the type of the arguments of each NFS procedure.
var arguments = []func() coded{
	1:  func() coded { return new(x.Getattr3args) },
	2:  func() coded { return new(x.Setattr3args) },
	3:  func() coded { return new(x.Lookup3args) },
	4:  func() coded { return new(x.Access3args) },
	5:  func() coded { return new(x.Readlink3args) },
	6:  func() coded { return new(x.Read3args) },
	7:  func() coded { return new(x.Write3args) },
	8:  func() coded { return new(x.Create3args) },
	9:  func() coded { return new(x.Mkdir3args) },
	10: func() coded { return new(x.Symlink3args) },
	11: func() coded { return new(x.Mknod3args) },
	12: func() coded { return new(x.Remove3args) },
	13: func() coded { return new(x.Rmdir3args) },
	14: func() coded { return new(x.Rename3args) },
	15: func() coded { return new(x.Link3args) },
	16: func() coded { return new(x.Readdir3args) },
	17: func() coded { return new(x.Readdirplus3args) },
	18: func() coded { return new(x.Fsstat3args) },
	19: func() coded { return new(x.Fsinfo3args) },
	20: func() coded { return new(x.Pathconf3args) },
	21: func() coded { return new(x.Commit3args) },
}

func result[T io.WriterTo](read func(io.Reader) (T, int64, error)) func(io.Reader) (io.WriterTo, error) {
	return func(r io.Reader) (io.WriterTo, error) {
		v, _, err := read(r)
		return v, err
	}
}

// results decodes the results of each NFS procedure.
var results = []func(io.Reader) (io.WriterTo, error){
	1:  result(x.ReadGetattr3res),
	2:  result(x.ReadSetattr3res),
	3:  result(x.ReadLookup3res),
	4:  result(x.ReadAccess3res),
	5:  result(x.ReadReadlink3res),
	6:  result(x.ReadRead3res),
	7:  result(x.ReadWrite3res),
	8:  result(x.ReadCreate3res),
	9:  result(x.ReadMkdir3res),
	10: result(x.ReadSymlink3res),
	11: result(x.ReadMknod3res),
	12: result(x.ReadRemove3res),
	13: result(x.ReadRmdir3res),
	14: result(x.ReadRename3res),
	15: result(x.ReadLink3res),
	16: result(x.ReadReaddir3res),
	17: result(x.ReadReaddirplus3res),
	18: result(x.ReadFsstat3res),
	19: result(x.ReadFsinfo3res),
	20: result(x.ReadPathconf3res),
	21: result(x.ReadCommit3res),
}

// tap records the bytes of a connection.
type tap struct {
	net.Conn

	mu             sync.Mutex
	sent, received bytes.Buffer
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.sent.Write(p)
	t.mu.Unlock()
	return t.Conn.Write(p)
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.mu.Lock()
	t.received.Write(p[:n])
	t.mu.Unlock()
	return n, err
}

// records splits a stream into its records, each of which has one fragment.
func records(t *testing.T, stream []byte) (recs [][]byte) {
	for len(stream) > 0 {
		n := int(binary.BigEndian.Uint32(stream) &^ (1 << 31))
		recs = append(recs, stream[4:4+n])
		stream = stream[4+n:]
	}
	return recs
}

func word(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }

// exercise calls every procedure, with and without success.
func exercise(t *testing.T, c *nfsclient.Client, tree *nfsclient.Tree) {
	root, alice := &vfs.Cred{}, &vfs.Cred{UID: 1000, GID: 1000, Groups: []uint32{4, 5, 6, 7, 8}}
	top := tree.Root()
	stale, _ := vfs.MakeHandle([]byte("no handle at all"))
	mode := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755}
	all := vfs.SetAttr{
		Valid: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetAtime | vfs.SetMtimeNow,
		Mode:  0o600, UID: 5, GID: 6, Atime: vfs.Time{Sec: 7, Nsec: 8},
	}
	sized := vfs.SetAttr{Valid: vfs.SetSize | vfs.SetAtimeNow | vfs.SetMtime, Size: 3, Guard: &vfs.Time{Sec: 1}}
	d, err := tree.Mkdir(root, top, "d", &mode)
	if err != nil {
		t.Fatal(err)
	}
	var handles []vfs.Handle
	for _, how := range []vfs.CreateMode{vfs.Unchecked, vfs.Guarded, vfs.Exclusive} {
		args := &vfs.Create{Mode: how, Attr: mode, Verifier: [8]byte{1, 2}}
		m, err := tree.Create(root, d.Handle, fmt.Sprint("f", how), args)
		if err != nil {
			t.Errorf("create %d: %v", how, err)
		}
		handles = append(handles, m.Handle)
	}
	tree.Symlink(root, d.Handle, "link", "to/where", &mode)
	for _, kind := range []vfs.Type{vfs.CharDevice, vfs.BlockDevice, vfs.FIFO, vfs.Socket, vfs.Regular} {
		tree.Mknod(root, d.Handle, fmt.Sprint("node", kind), &vfs.Node{Type: kind, Major: 3, Minor: 4}, &mode)
	}
	handles = append(handles, top, d.Handle, stale, vfs.Handle{})
	long := strings.Repeat("n", 255)
	for i, h := range handles {
		var a vfs.Attr
		p := make([]byte, 100)
		tree.Attr(h, &a)
		tree.Access(alice, h, 0x3f, &a)
		for _, name := range []string{"f0", "link", ".", "..", "", "a/b", "x\x00y", long, long + "n", "nothing"} {
			tree.Lookup(root, h, name, &a)
		}
		if l, err := tree.Lookup(root, h, "link", &a); err == nil {
			tree.Readlink(root, l)
		}
		tree.Readlink(root, h)
		for j := range uint64(5) {
			tree.Write(root, h, p[:j+7*uint64(i)], j, vfs.Stability(j%3))
			tree.Read(root, h, p[:j], j)
		}
		tree.Read(alice, h, p, 1<<40)
		tree.Commit(root, h)
		tree.StatFS(h)
		c.Do(nfsclient.Call{
			Program: nfsclient.ProgramNFS, Proc: 19, Cred: root,
			Args: func(e *oncrpc.Encoder) { e.Opaque(h.Bytes()) },
		})
		for _, plus := range []vfs.Plus{vfs.NamesOnly, vfs.WithAttr} {
			tree.ReadDir(root, h, 0, plus, func(*vfs.DirEntry) bool { return true })
			tree.ReadDirPage(root, h, nfsclient.Page{Size: 60, Plus: plus}, new([]vfs.DirEntry))
		}
		tree.SetAttr(alice, h, &all)
		tree.SetAttr(root, h, &all)
		tree.SetAttr(root, h, &sized)
		tree.Link(root, h, d.Handle, fmt.Sprint("hard", i))
		tree.Rename(root, d.Handle, fmt.Sprint("hard", i), h, "moved")
		tree.Remove(root, h, "moved")
		tree.Remove(root, d.Handle, fmt.Sprint("f", i))
		tree.Rmdir(root, h, "d")
		tree.Mkdir(alice, h, "new", &all)
		tree.Rmdir(root, h, "new")
		tree.Create(root, h, "new", &vfs.Create{Attr: all})
	}
	c.Null(nfsclient.ProgramNFS)
	c.Mount("/nowhere")
	c.Exports()
	c.Unmount("/export")
}

func TestAnIndependentCoderReadsAndWritesTheSameBytes(t *testing.T) {
	addr, _ := serve(t, trees{"/export": directory(t, t.TempDir())}, nfs.Options{}, oncrpc.Options{})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	wire := &tap{Conn: nc}
	c := nfsclient.NewClient(wire)
	tree, err := c.Tree("/export")
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, c, tree)
	c.Close()
	calls := make(map[uint32][]byte)
	for _, rec := range records(t, wire.sent.Bytes()) {
		calls[word(rec, 0)] = rec
	}
	seen := make(map[uint32]int)
	for _, rec := range records(t, wire.received.Bytes()) {
		call := calls[word(rec, 0)]
		if word(call, 3) != nfsclient.ProgramNFS || word(call, 5) == 0 {
			continue
		}
		proc := word(call, 5)
		seen[proc]++
		args := call[4*8+int(word(call, 7))+8:]
		checkArguments(t, proc, args)
		if word(rec, 5) != 0 {
			t.Errorf("procedure %d was refused: %x", proc, rec)
			continue
		}
		checkResults(t, proc, rec[24:])
	}
	for proc := range uint32(21) {
		if seen[proc+1] == 0 {
			t.Errorf("procedure %d was not called", proc+1)
		}
	}
}

func checkArguments(t *testing.T, proc uint32, args []byte) {
	v := arguments[proc]()
	var again bytes.Buffer
	if _, err := v.ReadFrom(bytes.NewReader(args)); err != nil {
		t.Errorf("procedure %d: arguments %x: %v", proc, args, err)
	} else if _, err := v.WriteTo(&again); err != nil || !bytes.Equal(again.Bytes(), args) {
		t.Errorf("procedure %d: arguments %x are %x to the other coder (%v)", proc, args, again.Bytes(), err)
	}
}

func checkResults(t *testing.T, proc uint32, res []byte) {
	v, err := results[proc](bytes.NewReader(res))
	if err != nil && strings.Contains(err.Error(), "non-ASCII") {
		return // our names are any bytes, those of the other coder are ASCII
	}
	if err != nil {
		t.Errorf("procedure %d: results %x: %v", proc, res, err)
		return
	}
	var again bytes.Buffer
	if _, err := v.WriteTo(&again); err != nil || !bytes.Equal(again.Bytes(), res) {
		t.Errorf("procedure %d: results %x are %x to the other coder (%v)", proc, res, again.Bytes(), err)
	}
}

// raw calls a procedure and returns its results undecoded.
func raw(t *testing.T, c *nfsclient.Client, program, proc uint32, args io.WriterTo) []byte {
	t.Helper()
	var b, res bytes.Buffer
	if args != nil {
		args.WriteTo(&b)
	}
	err := c.Do(nfsclient.Call{
		Program: program, Proc: proc, Cred: &vfs.Cred{},
		Args: func(e *oncrpc.Encoder) { copy(e.Extend(b.Len()), b.Bytes()) },
		Results: func(d *oncrpc.Decoder) error {
			res.Write(d.Fixed(len(d.Rest())))
			return nil
		},
	})
	if err != nil {
		t.Fatalf("procedure %d: %v", proc, err)
	}
	return res.Bytes()
}

// results3 calls a procedure of NFS and returns its results undecoded.
func results3(t *testing.T, c *nfsclient.Client, proc uint32, args io.WriterTo) io.Reader {
	t.Helper()
	return bytes.NewReader(raw(t, c, nfsclient.ProgramNFS, proc, args))
}

func TestAnIndependentCoderSeesTheSameValues(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("0123456789"), 0o640); err != nil {
		t.Fatal(err)
	}
	addr, _ := serve(t, trees{"/export": directory(t, dir)}, nfs.Options{}, oncrpc.Options{})
	c := dial(t, addr)
	m, _, err := mount.ReadMountres3(bytes.NewReader(raw(t, c, nfsclient.ProgramMount, 1, &stringArg{"/export"})))
	ok, _ := m.(*mount.Mountres3_MNT3_OK)
	if err != nil || ok == nil || len(ok.Mountinfo.AuthFlavors) != 1 || ok.Mountinfo.AuthFlavors[0] != 1 {
		t.Fatalf("mount: %+v, %v", m, err)
	}
	top := x.NfsFh3{Data: ok.Mountinfo.Fhandle}
	l, _, err := x.ReadLookup3res(results3(t, c, 3, &x.Lookup3args{What: x.Diropargs3{Dir: top, Name: "f"}}))
	found, _ := l.(*x.Lookup3res_NFS3_OK)
	if err != nil || found == nil {
		t.Fatalf("lookup: %+v, %v", l, err)
	}
	g, _, err := x.ReadGetattr3res(results3(t, c, 1, &x.Getattr3args{Object: found.Resok.Object}))
	attr, _ := g.(*x.Getattr3res_NFS3_OK)
	if err != nil || attr == nil {
		t.Fatalf("getattr: %+v, %v", g, err)
	}
	if a := attr.Resok.ObjAttributes; a.Type != x.NF3REG || a.Mode != 0o640 || a.Nlink != 1 ||
		a.Uid != uint32(os.Getuid()) || a.Size != 10 {
		t.Errorf("attributes %+v", a)
	}
	r, _, err := x.ReadRead3res(results3(t, c, 6, &x.Read3args{File: found.Resok.Object, Offset: 3, Count: 4}))
	if data, ok := r.(*x.Read3res_NFS3_OK); err != nil || !ok ||
		string(data.Resok.Data) != "3456" || data.Resok.Count != 4 || data.Resok.Eof {
		t.Errorf("read: %+v, %v", r, err)
	}
	i, _, err := x.ReadFsinfo3res(results3(t, c, 19, &x.Fsinfo3args{Fsroot: top}))
	info, _ := i.(*x.Fsinfo3res_NFS3_OK)
	if err != nil || info == nil {
		t.Fatalf("fsinfo: %+v, %v", i, err)
	}
	if f := info.Resok; f.Rtmax != 1<<20 || f.Wtpref != 1<<20 || f.Dtpref != 64<<10 ||
		f.TimeDelta.Nseconds != 1 || f.Properties != 0x1b {
		t.Errorf("fsinfo %+v", f)
	}
}

// stringArg is a string as arguments.
type stringArg struct{ s string }

func (a *stringArg) WriteTo(w io.Writer) (int64, error) {
	e := oncrpc.NewEncoder(nil)
	e.String(a.s)
	n, err := w.Write(e.Bytes())
	return int64(n), err
}
