package oncrpc

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"dim/internal/testkit"
)

// once sends a call of procOnce with xid and arg, and returns the reply.
func once(t *testing.T, c net.Conn, xid, arg uint32) []byte {
	t.Helper()
	send(t, c, record(message(xid, procOnce, arg)))
	return receive(t, c)
}

func TestARepeatedCallRunsOnce(t *testing.T) {
	t.Parallel()
	s, b, addr := start(t, Options{})
	first, second := connect(t, addr), connect(t, addr)
	one := once(t, first, 9, 1)
	if two := once(t, second, 9, 1); !bytes.Equal(one, two) {
		t.Errorf("the replies differ: %x, %x", one, two)
	}
	if n := b.ran.Load(); n != 1 || s.Stats().Repeated != 1 {
		t.Errorf("ran %d times, repeated %d", n, s.Stats().Repeated)
	}
	once(t, second, 9, 2)  // other arguments
	once(t, second, 10, 1) // another call
	send(t, second, record(withUser(message(9, procOnce, 1), 1000)))
	receive(t, second)
	if n := b.ran.Load(); n != 4 {
		t.Errorf("ran %d times", n)
	}
}

// withUser gives a message an AUTH_SYS credential.
func withUser(msg []byte, uid uint32) []byte {
	cred := words(AuthSys, 20, 0, 0, uid, 0, 0)
	return append(append(append([]byte(nil), msg[:24]...), cred...), msg[32:]...)
}

func TestAReplyThatWasLostIsRepeatedAfterAReconnect(t *testing.T) {
	t.Parallel()
	s, b, addr := start(t, Options{})
	for i := range uint32(20) {
		lost := connect(t, addr)
		send(t, lost, record(message(i, procOnce, i)))
		testkit.Eventually(t, "the call ran", func() bool { return b.ran.Load() == int32(i)+1 })
		lost.Close()
		if got := once(t, connect(t, addr), i, i); xidOf(got) != i || len(got) <= 24 {
			t.Errorf("call %d: got %x", i, got)
		}
	}
	if b.ran.Load() != 20 || s.Stats().Repeated != 20 {
		t.Errorf("ran %d times, repeated %d", b.ran.Load(), s.Stats().Repeated)
	}
}

func TestARepeatedCallWaitsForTheOriginal(t *testing.T) {
	t.Parallel()
	s, b, addr := start(t, Options{})
	lost := connect(t, addr)
	msg := record(message(7, procOnceWait, 5))
	send(t, lost, msg)
	testkit.Eventually(t, "the call runs", func() bool { return b.ran.Load() == 1 })
	lost.Close()
	again := connect(t, addr)
	send(t, again, msg)
	send(t, again, record(message(8, procNull)))
	if got := receive(t, again); xidOf(got) != 8 {
		t.Errorf("the repeated call did not wait: %x", got)
	}
	close(b.gate)
	if got := receive(t, again); xidOf(got) != 7 {
		t.Errorf("got %x", got)
	}
	if b.ran.Load() != 1 || s.Stats().Repeated != 1 {
		t.Errorf("ran %d times, repeated %d", b.ran.Load(), s.Stats().Repeated)
	}
}

// from connects from an address of the loopback network, as a client of its own.
func from(t *testing.T, addr, local string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	c, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestABusyClientDisplacesNoRepliesOfAnother(t *testing.T) {
	t.Parallel()
	s, b, addr := start(t, Options{})
	quiet, busy := from(t, addr, "127.0.0.2"), from(t, addr, "127.0.0.3")
	once(t, quiet, 1, 1)
	for i := range uint32(2000) {
		once(t, busy, i, 1)
	}
	quiet.Close()
	once(t, from(t, addr, "127.0.0.2"), 1, 1)
	once(t, busy, 1999, 1)
	if n := b.ran.Load(); n != 2001 {
		t.Errorf("ran %d times", n)
	}
	once(t, busy, 0, 1) // evicted
	if n := b.ran.Load(); n != 2002 {
		t.Errorf("ran %d times", n)
	}
	s.replies.check(t, 2*clientMax)
}

func TestRepliesOfAllClientsAreBounded(t *testing.T) {
	t.Parallel()
	const limit = 4 << 10
	s, b, addr := start(t, Options{Replies: limit})
	silent, other := from(t, addr, "127.0.0.2"), from(t, addr, "127.0.0.3")
	once(t, silent, 1, 1)
	for i := range uint32(100) {
		once(t, other, i, 1)
		s.replies.check(t, limit)
	}
	once(t, other, 99, 1)
	once(t, silent, 1, 1) // was evicted
	if n := b.ran.Load(); n != 102 {
		t.Errorf("ran %d times", n)
	}
	for i := range uint32(100) { // the entry of the silent client is dropped
		send(t, other, record(message(i, procOnce, 2)))
		receive(t, other)
	}
	s.replies.mu.Lock()
	defer s.replies.mu.Unlock()
	if n := len(s.replies.clients); n != 1 || s.replies.order.Len() != 1 {
		t.Errorf("%d clients are kept", n)
	}
}

// check fails the test if the sums are wrong or above limit.
func (r *replies) check(t *testing.T, limit int64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum int64
	for _, c := range r.clients {
		var own int64
		for _, known := range c.by {
			own += replyCost + int64(len(known.b))
		}
		if own != c.bytes || len(c.by) != len(c.done) {
			t.Errorf("client %s: %d bytes of %d replies, counted %d of %d",
				c.addr, own, len(c.by), c.bytes, len(c.done))
		}
		sum += own
	}
	if sum != r.bytes || sum > limit {
		t.Errorf("%d bytes of replies, counted %d, limit %d", sum, r.bytes, limit)
	}
}

func TestRepliesToRootAreNotRepeatedToOtherPorts(t *testing.T) {
	t.Parallel()
	_, b, addr := start(t, Options{})
	var low net.Conn
	for port := 1023; port > 512 && low == nil; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
		low, _ = d.Dial("tcp", addr)
	}
	if low == nil {
		t.Skip("needs root: binds a privileged port")
	}
	defer low.Close()
	low.SetDeadline(time.Now().Add(20 * time.Second))
	once(t, low, 1, 1)
	once(t, connect(t, addr), 1, 1)
	if n := b.ran.Load(); n != 2 {
		t.Errorf("ran %d times", n)
	}
}

func TestDeniedCallsAreNotKept(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{})
	c := connect(t, addr)
	for i := range uint32(100) {
		send(t, c, record(message(i, procDenied)))
		receive(t, c)
	}
	s.replies.mu.Lock()
	defer s.replies.mu.Unlock()
	if n := len(s.replies.clients); n != 0 || s.replies.bytes != 0 || s.replies.order.Len() != 0 {
		t.Errorf("replies of %d clients are kept, %d bytes", n, s.replies.bytes)
	}
}
