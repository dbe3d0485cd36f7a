package oncrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// spliced serves a file: procedure 1 replies with a part of it, spliced if possible; procedure 0 echoes its argument.
type spliced struct {
	content []byte
	addr    string
	srv     *Server
}

func newSpliced(t *testing.T, size int) *spliced {
	t.Helper()
	s := &spliced{content: make([]byte, size)}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.content {
		s.content[i] = byte(rng.Uint32())
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, s.content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	s.serve(t, func(c *Call) {
		off, n := int(c.Args.Uint32()), int(c.Args.Uint32())
		if c.Splice(int(file.Fd()), int64(off), n) {
			c.Reply.Uint32(1)
			c.Reply.Uint32(uint32(n))
			return
		}
		c.Reply.Uint32(0)
		c.Reply.Opaque(s.content[min(off, size):min(off+n, size)])
	})
	return s
}

func (s *spliced) serve(t *testing.T, part func(*Call)) {
	t.Helper()
	echo := func(c *Call) { c.Reply.Opaque(c.Args.Opaque(maxRecord)) }
	s.srv = NewServer(Options{}, Program{Name: "splice", Number: testProgram, Version: 3, Procs: []Proc{
		{Name: "echo", Serve: echo}, {Name: "part", Cost: Patient, Serve: part},
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if s.srv.pipes.made != 0 {
			t.Errorf("%d pipes were not released", s.srv.pipes.made)
		}
	})
}

// check fails the test if a reply of part is wrong, and returns whether it was spliced.
func (s *spliced) check(t *testing.T, reply []byte, off, n int) bool {
	t.Helper()
	want := s.content[min(off, len(s.content)):min(off+n, len(s.content))]
	if len(reply) != 32+pad(len(want)) {
		t.Fatalf("%d bytes at %d: the reply has %d bytes", n, off, len(reply))
	}
	if got := binary.BigEndian.Uint32(reply[28:]); int(got) != len(want) || !bytes.Equal(reply[32:32+len(want)], want) {
		t.Fatalf("%d bytes at %d: other bytes, %d of them", n, off, got)
	}
	for _, b := range reply[32+len(want):] {
		if b != 0 {
			t.Fatalf("%d bytes at %d: padded with %d", n, off, b)
		}
	}
	return binary.BigEndian.Uint32(reply[24:]) == 1
}

func TestASplicedReplyHasTheBytesOfTheFile(t *testing.T) {
	t.Parallel()
	s := newSpliced(t, 3<<20)
	c := connect(t, s.addr)
	for i, r := range []struct {
		off, n  int
		spliced bool
	}{
		{0, 1, true},
		{4095, 2, true},
		{5, 100_001, true},
		{1 << 20, 1 << 20, true},
		{3<<20 - 70_000, 70_000, true},
		{3<<20 - 10, 70_000, false}, // beyond the end
		{3 << 20, 1, false},
	} {
		send(t, c, record(message(uint32(i), 1, uint32(r.off), uint32(r.n))))
		if got := s.check(t, receive(t, c), r.off, r.n); got != r.spliced {
			t.Errorf("%d bytes at %d: spliced is %v", r.n, r.off, got)
		}
	}
	// A full pipe that begins inside a page does not fit, whatever the size of a page. The bytes must be right
	// either way.
	send(t, c, record(message(99, 1, 3, 1<<20)))
	s.check(t, receive(t, c), 3, 1<<20)
}

// Replies of both kinds are kept apart, however slowly the client reads them.
func TestSplicedRepliesMixWithOthers(t *testing.T) {
	t.Parallel()
	s := newSpliced(t, 1<<20)
	c := connect(t, s.addr)
	const rounds = 60
	go func() {
		var all []byte
		for i := range uint32(rounds) {
			all = append(all, record(message(2*i, 1, i, 200_000+i))...)
			all = append(all, record(message(2*i+1, 0, 4, i))...)
		}
		c.Write(all)
	}()
	for range 2 * rounds {
		reply := receive(t, c)
		i := xidOf(reply) / 2
		if xidOf(reply)%2 == 0 {
			s.check(t, reply, int(i), int(200_000+i))
		} else if !bytes.Equal(reply[24:], words(4, i)) {
			t.Fatalf("echo %d: got %x", i, reply)
		}
	}
}

// A client that disconnects in the middle leaks no pipe: the cleanup counts them.
func TestAClientThatDisconnectsLeaksNoPipe(t *testing.T) {
	t.Parallel()
	s := newSpliced(t, 1<<20)
	for range 5 {
		c := connect(t, s.addr)
		for i := range uint32(40) {
			send(t, c, record(message(i, 1, 0, 1<<20)))
		}
		receive(t, c)
		c.Close()
	}
}

func TestWithoutPipesNothingIsSpliced(t *testing.T) {
	t.Parallel()
	ps := pipes{made: pipesMax}
	if ps.get() != nil {
		t.Error("got a pipe beyond the limit")
	}
}
