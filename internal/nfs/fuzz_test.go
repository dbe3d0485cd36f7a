package nfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	x "github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// fuzzTree is a directory with objects of several types.
func fuzzTree(t testing.TB) vfs.FS {
	dir := t.TempDir()
	vfstest.WriteDir(t, dir, []vfstest.Entry{
		{Path: "d", Type: vfs.Directory, Mode: 0o755},
		{Path: "d/f", Type: vfs.Regular, Mode: 0o644, Content: "content"},
		{Path: "l", Type: vfs.Symlink, Target: "d/f"},
		{Path: "n", Type: vfs.FIFO, Mode: 0o600},
	})
	return directory(t, dir)
}

// FuzzArguments sends any bytes as the arguments of a procedure, after the handle of the root. The independent
// coder must be able to decode the reply.
func FuzzArguments(f *testing.F) {
	fs := fuzzTree(f)
	root := fs.Root()
	top := x.NfsFh3{Data: root.Bytes()}
	head := 4 + (len(root.Bytes())+3)&^3
	for proc, args := range map[uint8]io.WriterTo{
		1:  &x.Getattr3args{Object: top},
		2:  &x.Setattr3args{Object: top, NewAttributes: sattr(), Guard: &x.Sattrguard3_FALSE{}},
		3:  &x.Lookup3args{What: x.Diropargs3{Dir: top, Name: "d"}},
		4:  &x.Access3args{Object: top, Access: 63},
		6:  &x.Read3args{File: top, Count: 100},
		7:  &x.Write3args{File: top, Count: 3, Data: []byte("abc")},
		9:  &x.Mkdir3args{Where: x.Diropargs3{Dir: top, Name: "e"}, Attributes: sattr()},
		14: &x.Rename3args{From: x.Diropargs3{Dir: top, Name: "e"}, To: x.Diropargs3{Dir: top, Name: "g"}},
		15: &x.Link3args{File: top, Link: x.Diropargs3{Dir: top, Name: "h"}},
		16: &x.Readdir3args{Dir: top, Count: 4096},
		17: &x.Readdirplus3args{Dir: top, Dircount: 512, Maxcount: 4096},
		21: &x.Commit3args{File: top},
	} {
		var b bytes.Buffer
		args.WriteTo(&b)
		f.Add(proc, b.Bytes()[head:])
	}
	addr, _ := serve(f, trees{"/export": fs}, nfs.Options{}, oncrpc.Options{})
	c := dial(f, addr)
	f.Fuzz(func(t *testing.T, proc uint8, rest []byte) {
		if len(rest) > 1<<16 {
			return
		}
		p := uint32(proc)%21 + 1
		var res []byte
		err := c.Do(nfsclient.Call{
			Program: nfsclient.ProgramNFS, Proc: p, Cred: &vfs.Cred{},
			Args: func(e *oncrpc.Encoder) {
				e.Opaque(root.Bytes())
				copy(e.Extend(len(rest)), rest)
			},
			Results: func(d *oncrpc.Decoder) error {
				res = append(res, d.Fixed(len(d.Rest()))...)
				return nil
			},
		})
		const garbageArgs = 4
		var refused *nfsclient.RPCError
		if errors.As(err, &refused) && refused.Stat == garbageArgs {
			return
		}
		if err != nil {
			t.Fatalf("procedure %d with %x: %v", p, rest, err)
		}
		checkResults(t, p, res)
	})
}

func sattr() x.Sattr3 {
	return x.Sattr3{
		Mode: &x.SetMode3_TRUE{Mode: 0o700}, Uid: &x.SetUid3_default{}, Gid: &x.SetGid3_default{},
		Size: &x.SetSize3_default{}, Atime: &x.SetAtime_default{}, Mtime: &x.SetMtime_default{},
	}
}

// FuzzSequence makes sequences of well-formed calls on objects that earlier calls found or made.
func FuzzSequence(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13"))
	f.Add([]byte{9, 0, 0, 8, 0, 1, 7, 2, 3, 14, 0, 1, 12, 0, 0, 17, 0, 0})
	tree := mounted(f, fuzzTree(f))
	f.Fuzz(func(t *testing.T, program []byte) {
		s := &sequence{tree: tree, handles: []vfs.Handle{tree.Root()}, left: program[:min(len(program), 300)]}
		for len(s.left) > 0 {
			if err := s.step(); err != nil && !isErrno(err) {
				t.Fatalf("after %x: %v", program[:len(program)-len(s.left)], err)
			}
		}
	})
}

func isErrno(err error) bool {
	_, ok := err.(vfs.Errno)
	return ok
}

// sequence makes calls from bytes.
type sequence struct {
	tree    *nfsclient.Tree
	handles []vfs.Handle
	left    []byte
}

func (s *sequence) next() int {
	if len(s.left) == 0 {
		return 0
	}
	b := s.left[0]
	s.left = s.left[1:]
	return int(b)
}

func (s *sequence) handle() vfs.Handle { return s.handles[s.next()%len(s.handles)] }

func (s *sequence) name() string {
	names := []string{"d", "f", "l", "n", "a", "b", "c", ".", "..", "", "é", "x\n"}
	if n := s.next(); n < 200 {
		return names[n%len(names)]
	}
	return fmt.Sprint(s.next())
}

func (s *sequence) keep(h vfs.Handle, err error) error {
	if err == nil && len(s.handles) < 64 {
		s.handles = append(s.handles, h)
	}
	return err
}

func (s *sequence) step() error {
	c := &vfs.Cred{UID: uint32(s.next() % 3), GID: 1}
	set := vfs.SetAttr{
		Valid: uint32(s.next()) &^ (vfs.SetAtime | vfs.SetMtime), Mode: uint32(s.next()) * 2, Size: uint64(s.next()),
	}
	var a vfs.Attr
	var err error
	op, h := s.next(), s.handle()
	switch op % 16 {
	case 0:
		return s.tree.Attr(h, &a)
	case 1:
		_, err = s.tree.SetAttr(c, h, &set)
	case 2:
		found, err := s.tree.Lookup(c, h, s.name(), &a)
		return s.keep(found, err)
	case 3:
		_, err = s.tree.Access(c, h, uint32(s.next()), &a)
	case 4:
		_, err = s.tree.Readlink(c, h)
	case 5:
		_, _, err = s.tree.Read(c, h, make([]byte, s.next()), uint64(s.next()))
	case 6:
		_, err = s.tree.Write(c, h, make([]byte, s.next()), uint64(s.next())*1000, vfs.Stability(s.next()%3))
	case 7:
		m, err := s.tree.Create(c, h, s.name(), &vfs.Create{Mode: vfs.CreateMode(s.next() % 3), Attr: set})
		return s.keep(m.Handle, err)
	case 8:
		m, err := s.tree.Mkdir(c, h, s.name(), &set)
		return s.keep(m.Handle, err)
	case 9:
		m, err := s.tree.Symlink(c, h, s.name(), s.name(), &set)
		return s.keep(m.Handle, err)
	case 10:
		m, err := s.tree.Mknod(c, h, s.name(), &vfs.Node{Type: vfs.Type(s.next() % 9)}, &set)
		return s.keep(m.Handle, err)
	case 11:
		_, err = s.tree.Remove(c, h, s.name())
	case 12:
		_, err = s.tree.Rmdir(c, h, s.name())
	case 13:
		_, err = s.tree.Rename(c, h, s.name(), s.handle(), s.name())
	case 14:
		_, err = s.tree.Link(c, h, s.handle(), s.name())
	case 15:
		_, err = s.tree.ReadDir(c, h, uint64(s.next()), vfs.Plus(s.next()%2), func(*vfs.DirEntry) bool { return true })
	}
	return err
}
