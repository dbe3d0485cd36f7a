package nfs_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// recorder is a connection that keeps the bytes of the last write and those that were read after it.
type recorder struct {
	net.Conn
	sent, got bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.sent.Reset()
	r.got.Reset()
	r.sent.Write(p)
	return r.Conn.Write(p)
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.got.Write(p[:n])
	return n, err
}

// TestRepeatedCallsGetTheSameReply sends every call that cannot be repeated once more over a new connection, as a
// client does that lost the first one, and compares the bytes of the replies.
func TestRepeatedCallsGetTheSameReply(t *testing.T) {
	dir := t.TempDir()
	fs := directory(t, dir)
	vfstest.WriteDir(t, dir, []vfstest.Entry{
		{Path: "f", Type: vfs.Regular, Mode: 0o644, Content: "f"},
		{Path: "g", Type: vfs.Regular, Mode: 0o644, Content: "g"},
		{Path: "d", Type: vfs.Directory, Mode: 0o755},
		{Path: "h", Type: vfs.Regular, Mode: 0o644, Content: "h"},
	})
	addr, srv := serve(t, trees{"/export": fs}, nfs.Options{}, oncrpc.Options{})
	root, mode := &vfs.Cred{}, vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}
	exclusive := vfs.Create{Mode: vfs.Exclusive, Verifier: [8]byte{1, 2, 3}}
	guarded := vfs.Create{Mode: vfs.Guarded, Attr: mode}
	made := func(_ vfs.Made, err error) error { return err }
	changed := func(_ vfs.Change, err error) error { return err }
	for _, c := range []struct {
		name string
		call func(tr *nfsclient.Tree, top vfs.Handle) error
	}{
		{"exclusive create", func(tr *nfsclient.Tree, top vfs.Handle) error {
			return made(tr.Create(root, top, "x", &exclusive))
		}},
		{"guarded create", func(tr *nfsclient.Tree, top vfs.Handle) error {
			return made(tr.Create(root, top, "y", &guarded))
		}},
		{"mkdir", func(tr *nfsclient.Tree, top vfs.Handle) error { return made(tr.Mkdir(root, top, "m", &mode)) }},
		{"symlink", func(tr *nfsclient.Tree, top vfs.Handle) error {
			return made(tr.Symlink(root, top, "s", "to", &mode))
		}},
		{"mknod", func(tr *nfsclient.Tree, top vfs.Handle) error {
			return made(tr.Mknod(root, top, "n", &vfs.Node{Type: vfs.FIFO}, &mode))
		}},
		{"link", func(tr *nfsclient.Tree, top vfs.Handle) error {
			_, err := tr.Link(root, handleOf(t, tr, top, "f"), top, "l")
			return err
		}},
		{"remove", func(tr *nfsclient.Tree, top vfs.Handle) error { return changed(tr.Remove(root, top, "g")) }},
		{"rmdir", func(tr *nfsclient.Tree, top vfs.Handle) error { return changed(tr.Rmdir(root, top, "d")) }},
		{"rename", func(tr *nfsclient.Tree, top vfs.Handle) error {
			_, err := tr.Rename(root, top, "h", top, "renamed")
			return err
		}},
		{"guarded setattr", func(tr *nfsclient.Tree, top vfs.Handle) error {
			var a vfs.Attr
			h, err := tr.Lookup(root, top, "f", &a)
			if err != nil {
				return err
			}
			return changed(tr.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o640, Guard: &a.Ctime}))
		}},
		{"refused remove", func(tr *nfsclient.Tree, top vfs.Handle) error {
			if err := changed(tr.Remove(root, top, "none")); err != vfs.ENOENT {
				t.Errorf("remove of nothing: %v", err)
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := srv.Stats().Repeated
			sent, first := recorded(t, addr, c.call)
			if second := resend(t, addr, sent); !bytes.Equal(first, second) {
				t.Errorf("first\n%x\nthen\n%x", first, second)
			}
			if n := srv.Stats().Repeated - before; n != 1 {
				t.Errorf("%d replies were repeated", n)
			}
		})
	}
}

func handleOf(t *testing.T, tr *nfsclient.Tree, dir vfs.Handle, name string) vfs.Handle {
	t.Helper()
	var a vfs.Attr
	h, err := tr.Lookup(&vfs.Cred{}, dir, name, &a)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// recorded makes a call over a connection of its own, and returns the last record that was sent and the reply.
func recorded(t *testing.T, addr string, call func(*nfsclient.Tree, vfs.Handle) error) (sent, got []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{Conn: nc}
	c := nfsclient.NewClient(rec)
	tree, err := c.Tree("/export")
	if err == nil {
		err = call(tree, tree.Root())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return rec.sent.Bytes(), rec.got.Bytes()
}

func resend(t *testing.T, addr string, record []byte) []byte {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write(record); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, 4)
	if _, err := io.ReadFull(nc, reply); err != nil {
		t.Fatal(err)
	}
	reply = append(reply, make([]byte, binary.BigEndian.Uint32(reply)&^(1<<31))...)
	if _, err := io.ReadFull(nc, reply[4:]); err != nil {
		t.Fatal(err)
	}
	return reply
}
