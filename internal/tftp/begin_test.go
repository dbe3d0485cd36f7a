package tftp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Transfers are started up to a bound. One that waits for its client leaves its place to the next one.
func TestFewTransfersAreStartedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		ctx, cancel := context.WithCancel(t.Context())
		const more = 3
		places, results := make(chan func(), 100), make(chan bool, 100)
		bound := max(2, runtime.GOMAXPROCS(0)/2)
		for range bound + more {
			go func() {
				started, ok := s.begin(ctx)
				places <- started
				results <- ok
			}()
		}
		if synctest.Wait(); len(results) != bound {
			t.Errorf("%d transfers are started, want %d", len(results), bound)
		}
		first := <-places
		first()
		first() // counts once
		if synctest.Wait(); len(results) != bound+1 {
			t.Errorf("after one waits for its client %d are started, want %d", len(results), bound+1)
		}
		cancel()
		started := 0
		for range bound + more {
			if <-results {
				started++
			}
		}
		if started != bound+1 {
			t.Errorf("after the end of the server %d were started, want %d", started, bound+1)
		}
	})
}

// Files that are waited for, such as those of nodes whose version is on its way, do not keep others from being sent.
func TestAFileThatIsWaitedForKeepsNoOtherBack(t *testing.T) {
	opened, open := make(chan struct{}, 100), make(chan struct{})
	ts := serve(t, map[string][]byte{"f": pattern(100), "late": pattern(100)}, func(s *Server) {
		s.MaxPerClient = 100
		at := s.Open
		s.Open = func(ctx context.Context, client netip.AddrPort, name string) (File, error) {
			if name == "late" {
				opened <- struct{}{}
				<-open
			}
			return at(ctx, client, name)
		}
	})
	defer close(open)
	const late = 3
	for range late * max(2, runtime.GOMAXPROCS(0)/2) {
		c := newClient(t, ts.addr)
		c.conn.WriteTo(c.request(opRead, "late", "octet"), c.server)
		select {
		case <-opened:
		case <-time.After(time.Minute):
			t.Fatal("a request waits for a file that another one waits for")
		}
	}
	c := newClient(t, ts.addr)
	first(t, c, c.request(opRead, "f", "octet"))
}

// Transfers that follow each other use different ports, and a packet to another port than that of the transfer is
// ignored.
func TestTransfersOfAClientUseDifferentPorts(t *testing.T) {
	want := pattern(700)
	ts := serve(t, map[string][]byte{"f": want}, func(s *Server) { s.Timeout = time.Minute })
	c := newClient(t, ts.addr)
	before := first(t, c, c.request(opRead, "f", "octet"))
	now := first(t, c, append(c.request(opRead, "f", "octet"), 0))
	if before.String() == now.String() {
		t.Fatalf("both are sent from %v", now)
	}
	answer := func(to net.Addr) (block uint16, n int) {
		c.conn.WriteTo(ack(1), to)
		c.conn.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 600)
		n, from, err := c.conn.ReadFrom(buf)
		if err != nil || from.String() != now.String() {
			t.Fatalf("%d bytes from %v: %v", n, from, err)
		}
		return binary.BigEndian.Uint16(buf[2:]), n - 4
	}
	c.conn.WriteTo(ack(1), before) // of the transfer that the second request has replaced
	if block, n := answer(now); block != 2 || n != 700-512 {
		t.Errorf("block %d of %d bytes follows block 1", block, n)
	}
	ts.mu.Lock()
	ports := map[net.PacketConn]bool{}
	for _, tr := range ts.transfers {
		ports[tr.conn] = true
	}
	ts.mu.Unlock()
	if len(ports) != 1 {
		t.Errorf("%d transfers are left", len(ports))
	}
}
