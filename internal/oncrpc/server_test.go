package oncrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"dim/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testProgram = 0x20000001

// bench is a program whose procedures the tests block and count.
type bench struct {
	gate  chan struct{} // wait and stall block until it is closed
	ran   atomic.Int32
	mu    sync.Mutex
	creds []Cred
}

func (b *bench) program() Program {
	echo := func(c *Call) {
		c.Reply.Opaque(c.Args.Opaque(maxRecord))
	}
	count := func(c *Call) {
		c.Reply.Uint32(uint32(b.ran.Add(1)))
	}
	blocked := func(c *Call) {
		b.ran.Add(1)
		<-b.gate
		c.Reply.Uint32(c.Args.Uint32())
	}
	who := func(c *Call) {
		b.mu.Lock()
		defer b.mu.Unlock()
		cred := c.Cred
		cred.Groups = append([]uint32(nil), cred.Groups...)
		b.creds = append(b.creds, cred)
	}
	big := func(c *Call) {
		n := int(min(c.Args.Uint32(), 2<<20))
		c.Reply.Uint32(uint32(n))
		clear(c.Reply.Extend(n))
	}
	return Program{Name: "bench", Number: testProgram, Version: 3, Procs: []Proc{
		{Name: "null", Serve: func(*Call) {}},
		{Name: "echo", Serve: echo},
		{Name: "wait", Cost: Slow, Serve: blocked},
		{Name: "stall", Cost: Patient, Serve: blocked},
		{Name: "once", Cost: Slow, Once: true, Serve: count},
		{Name: "gap"},
		{Name: "who", Serve: who},
		{Name: "big", Cost: Patient, Serve: big},
		{Name: "slowEcho", Cost: Slow, Serve: echo},
		{Name: "onceWait", Cost: Slow, Once: true, Serve: blocked},
		{Name: "denied", Cost: Slow, Once: true, Serve: func(c *Call) { c.Deny() }},
	}}
}

const (
	procNull = iota
	procEcho
	procWait
	procStall
	procOnce
	procGap
	procWho
	procBig
	procSlowEcho
	procOnceWait
	procDenied
)

func start(t testing.TB, opt Options) (*Server, *bench, string) {
	t.Helper()
	b := &bench{gate: make(chan struct{})}
	s := NewServer(opt, b.program())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := s.pool.lent.Load(); n != 0 {
			t.Errorf("%d bytes of large buffers were not released", n)
		}
	})
	return s, b, ln.Addr().String()
}

func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// message is a call without its record mark; the credential and the verifier are empty.
func message(xid, proc uint32, args ...uint32) []byte {
	return words(append([]uint32{xid, msgCall, rpcVersion, testProgram, 3, proc, 0, 0, 0, 0}, args...)...)
}

func words(ws ...uint32) (b []byte) {
	for _, w := range ws {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

func record(msg []byte) []byte {
	return append(words(uint32(len(msg))|lastFragment), msg...)
}

func send(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// receive reads one reply.
func receive(t testing.TB, c net.Conn) []byte {
	t.Helper()
	var mark [4]byte
	if _, err := io.ReadFull(c, mark[:]); err != nil {
		t.Fatalf("read a reply: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(mark[:])&^lastFragment)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("read a reply of %d bytes: %v", len(b), err)
	}
	return b
}

func xidOf(reply []byte) uint32 { return binary.BigEndian.Uint32(reply) }

// closed waits until the server has closed c.
func closed(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Fatal("the server did not close the connection")
		}
	}
}

func TestRepliesFollowTheRFC(t *testing.T) {
	t.Parallel()
	_, _, addr := start(t, Options{})
	c := connect(t, addr)
	ok := func(xid uint32, rest ...uint32) []uint32 { return append([]uint32{xid, 1, 0, 0, 0}, rest...) }
	call := func(w ...uint32) []byte { return words(w...) }
	cases := []struct {
		name string
		msg  []byte
		want []uint32
	}{
		{"null", message(7, procNull), ok(7, 0)},
		{"echo", message(8, procEcho, 4, 0x61626364), ok(8, 0, 4, 0x61626364)},
		{"another program", call(9, 0, 2, 77, 3, 0, 0, 0, 0, 0), ok(9, 1)},
		{"another version", call(10, 0, 2, testProgram, 4, 0, 0, 0, 0, 0), ok(10, 2, 3, 3)},
		{"no such procedure", message(11, 99), ok(11, 3)},
		{"a procedure that is a gap", message(12, procGap), ok(12, 3)},
		{"truncated arguments", message(13, procEcho, 400, 1), ok(13, 4)},
		{"a length above all bounds", message(14, procEcho, 0xffffffff, 1), ok(14, 4)},
		{"another RPC version", call(15, 0, 3, testProgram, 3, 0, 0, 0, 0, 0), []uint32{15, 1, 1, 0, 2, 2}},
		{"an unknown flavor", call(16, 0, 2, testProgram, 3, 0, 6, 4, 0, 0, 0), []uint32{16, 1, 1, 1, 2}},
		{"AUTH_SYS cut short", call(17, 0, 2, testProgram, 3, 0, 1, 8, 0, 0, 0, 0), []uint32{17, 1, 1, 1, 1}},
		{
			"17 groups",
			call(append([]uint32{18, 0, 2, testProgram, 3, 0, 1, 20 + 17*4, 0, 0, 0, 0, 17}, make([]uint32, 19)...)...),
			[]uint32{18, 1, 1, 1, 1},
		},
	}
	for _, tc := range cases {
		send(t, c, record(tc.msg))
		if diff := cmp.Diff(words(tc.want...), receive(t, c)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tc.name, diff)
		}
	}
}

func TestAuthSysIsDecoded(t *testing.T) {
	t.Parallel()
	_, b, addr := start(t, Options{})
	c := connect(t, addr)
	send(t, c, record(words(1, 0, 2, testProgram, 3, procWho, 1, 36, 99, 3, 0x616263<<8, 1000, 100, 3, 4, 5, 6, 0, 0)))
	receive(t, c)
	send(t, c, record(message(2, procWho)))
	receive(t, c)
	if len(b.creds) != 2 || b.creds[0].UID != 1000 || b.creds[0].GID != 100 ||
		!cmp.Equal(b.creds[0].Groups, []uint32{4, 5, 6}) ||
		b.creds[1].Flavor != AuthNone || len(b.creds[1].Groups) != 0 {
		t.Errorf("got %+v", b.creds)
	}
}

func TestRecordsMayArriveInAnyPieces(t *testing.T) {
	t.Parallel()
	_, _, addr := start(t, Options{})
	c := connect(t, addr)
	payload := bytes.Repeat([]byte("0123456789abcdef"), 12500) // 200 kB: above a small buffer
	msg := append(message(1, procEcho, uint32(len(payload))), payload...)
	var stream []byte
	stream = append(stream, record(message(0, procNull))...)
	for at := 0; at < len(msg); { // fragments of growing sizes, some of them empty
		n := min(len(msg)-at, at/2+1)
		mark := uint32(n)
		if at+n == len(msg) {
			mark |= lastFragment
		} else {
			stream = append(stream, 0, 0, 0, 0)
		}
		stream = append(append(stream, words(mark)...), msg[at:at+n]...)
		at += n
	}
	stream = append(stream, record(msg)...)
	stream = append(stream, record(message(2, procNull))...)
	go func() {
		for n := 1; len(stream) > 0; n = n*3/2 + 1 {
			n = min(n, len(stream))
			c.Write(stream[:n])
			stream = stream[n:]
		}
	}()
	for i, want := range []uint32{0, 1, 1, 2} {
		got := receive(t, c)
		if xidOf(got) != want {
			t.Fatalf("reply %d has xid %d, want %d", i, xidOf(got), want)
		}
		if want == 1 && !bytes.Equal(got[28:], payload) {
			t.Errorf("reply %d: the echo differs", i)
		}
	}
}

func TestGarbageClosesTheConnection(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{})
	for name, b := range map[string][]byte{
		"4 GB record":              words(0xffffffff),
		"2 GB fragment":            words(0x7fffffff),
		"a reply":                  record(words(1, 1, 0, 0, 0, 0)),
		"an empty record":          record(nil),
		"a header cut short":       record(words(1, 0, 2, testProgram)),
		"a credential of 1 MB":     record(words(1, 0, 2, testProgram, 3, 0, 1, 1<<20, 0, 0)),
		"fragments without an end": bytes.Repeat(append(words(32<<10), make([]byte, 32<<10)...), 64),
	} {
		c := connect(t, addr)
		send(t, c, record(message(5, procNull)))
		if got := receive(t, c); xidOf(got) != 5 {
			t.Errorf("%s: first reply %x", name, got)
		}
		c.Write(b)
		closed(t, c)
	}
	testkit.Eventually(t, "all are counted as broken", func() bool { return s.Stats().Broken == 7 })
}

func TestASlowCallDelaysNoOther(t *testing.T) {
	t.Parallel()
	_, b, addr := start(t, Options{})
	c := connect(t, addr)
	send(t, c, append(record(message(1, procWait, 42)), record(message(2, procNull))...))
	if got := receive(t, c); xidOf(got) != 2 {
		t.Errorf("first reply has xid %d", xidOf(got))
	}
	close(b.gate)
	if got := receive(t, c); !bytes.Equal(got, words(1, 1, 0, 0, 0, 0, 42)) {
		t.Errorf("got %x", got)
	}
}

func TestTheReadingIsTakenOverFromALongPatientCall(t *testing.T) {
	t.Parallel()
	s, b, addr := start(t, Options{})
	c := connect(t, addr)
	// Twice, so that the reading is taken over from the goroutine that took it over. The replies that were made before
	// wait for neither call.
	for i := range uint32(2) {
		send(t, c, bytes.Join([][]byte{
			record(message(10+i, procNull)), record(message(20+i, procStall, 7)), record(message(30+i, procNull)),
		}, nil))
		for _, want := range []uint32{10 + i, 30 + i} {
			if got := receive(t, c); xidOf(got) != want {
				t.Fatalf("got xid %d, want %d", xidOf(got), want)
			}
		}
	}
	send(t, c, record(message(40, procNull)))
	receive(t, c)
	if n := s.Stats().HandedOver; n != 2 {
		t.Errorf("the reading was taken over %d times", n)
	}
	close(b.gate)
	if a, b := xidOf(receive(t, c)), xidOf(receive(t, c)); a+b != 41 {
		t.Errorf("got xids %d and %d, want 20 and 21", a, b)
	}
	send(t, c, record(message(50, procBig, 1000)))
	receive(t, c)
}

func TestShutdownFinishesRunningCalls(t *testing.T) {
	t.Parallel()
	b := &bench{gate: make(chan struct{})}
	s := NewServer(Options{}, b.program())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	c, idle := connect(t, ln.Addr().String()), connect(t, ln.Addr().String())
	send(t, idle, record(message(1, procNull)))
	receive(t, idle)
	send(t, c, record(message(3, procWait, 1)))
	testkit.Eventually(t, "the call runs", func() bool { return b.ran.Load() == 1 })
	cancel()
	closed(t, idle)
	close(b.gate)
	if got := receive(t, c); xidOf(got) != 3 {
		t.Errorf("got %x", got)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{})
	c := connect(t, addr)
	for range 5 {
		send(t, c, record(message(1, procNull)))
		receive(t, c)
	}
	send(t, c, record(message(1, procEcho, 400, 1)))
	receive(t, c)
	send(t, c, record(message(1, 99)))
	receive(t, c)
	st := s.Stats()
	got := map[string][2]uint64{}
	for _, p := range st.Procs {
		if p.Calls > 0 {
			got[p.Program+"/"+p.Proc] = [2]uint64{p.Calls, p.Errors}
		}
	}
	want := map[string][2]uint64{"bench/null": {5, 0}, "bench/echo": {1, 1}}
	if diff := cmp.Diff(want, got); diff != "" || st.Rejected != 1 || st.Conns != 1 {
		t.Errorf("rejected %d, conns %d (-want +got)\n%s", st.Rejected, st.Conns, diff)
	}
}
