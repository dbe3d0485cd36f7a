package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testServer serves files from memory on loopback until the test ends.
type testServer struct {
	*Server
	addr  net.Addr
	files map[string][]byte
	open  atomic.Int64 // files that are open
	seen  chan string  // names that Open got
}

func serve(t *testing.T, files map[string][]byte, set func(*Server)) *testServer {
	t.Helper()
	ts := &testServer{files: files, seen: make(chan string, 1000)}
	ts.Server = &Server{
		Open:         ts.openFile,
		Known:        func(netip.AddrPort) bool { return true },
		ListenPacket: func(net.Addr) (net.PacketConn, error) { return net.ListenPacket("udp4", "127.0.0.1:0") },
		Log:          slog.New(slog.DiscardHandler),
		Timeout:      20 * time.Millisecond,
		Retries:      20,
	}
	if set != nil {
		set(ts.Server)
	}
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.addr = conn.LocalAddr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ts.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		conn.Close()
		if n := ts.open.Load(); n != 0 {
			t.Errorf("%d files left open", n)
		}
	})
	return ts
}

func (ts *testServer) openFile(_ context.Context, _ netip.AddrPort, name string) (File, error) {
	ts.seen <- name
	switch name {
	case "forbidden":
		return nil, fs.ErrPermission
	case "broken":
		return nil, errors.New("disk on fire in /secret/place")
	}
	b, ok := ts.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	ts.open.Add(1)
	return &bytesFile{bytes.NewReader(b), int64(len(b)), func() { ts.open.Add(-1) }}, nil
}

func pattern(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestFilesArriveComplete(t *testing.T) {
	files := map[string][]byte{}
	for _, n := range []int{0, 1, 511, 512, 513, 1024, 100_000} {
		files[fmt.Sprint(n)] = pattern(n)
	}
	ts := serve(t, files, nil)
	for _, options := range [][]string{
		nil,
		{"tsize", "0"},
		{"blksize", "512"},
		{"blksize", "1468", "tsize", "0", "timeout", "1"},
		{"blksize", "1024", "windowsize", "7"},
		{"windowsize", "64"},
	} {
		for name, want := range files {
			t.Run(fmt.Sprint(name, options), func(t *testing.T) {
				c := newClient(t, ts.addr, options...)
				got, err := c.get(name)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d arrived, or they differ", len(got), len(want))
				}
				if v, ok := c.oack["tsize"]; ok && v != name {
					t.Errorf("tsize %s of a file of %s bytes", v, name)
				}
			})
		}
	}
}

func TestOptionsAreGrantedWithinLimits(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": pattern(10)}, nil)
	c := newClient(t, ts.addr, "blksize", "65464", "windowsize", "4000", "timeout", "3", "tsize", "0", "multicast", "")
	if _, err := c.get("f"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"blksize": "1468", "windowsize": "32", "timeout": "3", "tsize": "10"}
	if d := cmp.Diff(want, c.oack); d != "" {
		t.Error(d)
	}
}

func TestBlocksFitTheWayToTheClient(t *testing.T) {
	for _, tt := range []struct {
		mtu  int // 0: not known
		asks string
		want string
	}{
		{0, "1468", "1468"}, {1400, "1468", "1368"}, {1400, "1024", "1024"}, {9000, "65464", "1468"},
		{576, "1428", "544"},
		{20, "1468", "1468"}, {33, "1468", "8"},
	} {
		content := pattern(5000)
		ts := serve(t, map[string][]byte{"f": content}, func(s *Server) {
			s.MTU = func(client netip.Addr) int {
				if !client.IsLoopback() {
					t.Errorf("asked for the way to %v", client)
				}
				return tt.mtu
			}
		})
		c := newClient(t, ts.addr, "blksize", tt.asks)
		got, err := c.get("f")
		if err != nil || !bytes.Equal(got, content) || c.oack["blksize"] != tt.want {
			t.Errorf("MTU %d: blocks of %s, want %s; %d bytes, %v", tt.mtu, c.oack["blksize"], tt.want, len(got), err)
		}
	}
}

func TestBlockNumbersRollOver(t *testing.T) {
	want := pattern(65536*8 + 2005)
	ts := serve(t, map[string][]byte{"big": want}, func(s *Server) {
		s.MaxWindow, s.Timeout = 100, 5*time.Second // loopback loses no packets, but a busy machine delays them
	})
	c := newClient(t, ts.addr, "blksize", "8", "windowsize", "100")
	c.wait = 20 * time.Second
	got, err := c.get("big")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d arrived, or they differ", len(got), len(want))
	}
}

// lossy drops and duplicates packets, as a seeded generator decides.
type lossy struct {
	net.PacketConn
	percent int

	mu sync.Mutex
	r  *rand.Rand
}

func (l *lossy) drop() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(100) < l.percent
}

func (l *lossy) WriteTo(b []byte, to net.Addr) (int, error) {
	if l.drop() {
		return len(b), nil
	}
	n, err := l.PacketConn.WriteTo(b, to)
	if err == nil && l.drop() { // a duplicate
		l.PacketConn.WriteTo(b, to)
	}
	return n, err
}

func (l *lossy) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := l.PacketConn.ReadFrom(b)
		if err != nil || !l.drop() {
			return n, from, err
		}
	}
}

func TestFilesArriveCompleteOverALossyLink(t *testing.T) {
	want := pattern(20_000)
	var seed atomic.Uint64
	ts := serve(t, map[string][]byte{"f": want}, func(s *Server) {
		s.ListenPacket = func(net.Addr) (net.PacketConn, error) {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			return &lossy{PacketConn: c, percent: 10, r: rand.New(rand.NewPCG(seed.Add(1), 0))}, err
		}
	})
	for _, options := range [][]string{nil, {"blksize", "1024", "tsize", "0"}, {"blksize", "1024", "windowsize", "8"}} {
		t.Run(fmt.Sprint(options), func(t *testing.T) {
			t.Parallel()
			got, err := newClient(t, ts.addr, options...).get("f")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d arrived, or they differ", len(got), len(want))
			}
		})
	}
}

func TestRefusalsHaveTheRightCode(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": nil}, nil)
	tests := []struct {
		what       string
		op         opcode
		name, mode string
		want       errorCode
	}{
		{"a missing file", opRead, "absent", "octet", codeNotFound},
		{"a file that is not for this client", opRead, "forbidden", "octet", codeAccess},
		{"a file that cannot be read", opRead, "broken", "octet", codeUndefined},
		{"writing", opWrite, "f", "octet", codeAccess},
		{"netascii", opRead, "f", "netascii", codeIllegal},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			c := newClient(t, ts.addr)
			_, err := c.transfer(c.request(tt.op, tt.name, tt.mode))
			var e *remoteError
			if !errors.As(err, &e) {
				t.Fatalf("%v, want an ERROR packet", err)
			}
			if e.code != tt.want {
				t.Errorf("code %d, want %d (%s)", e.code, tt.want, e.text)
			}
			if strings.Contains(e.text, "secret") {
				t.Errorf("the error reveals a path: %s", e.text)
			}
		})
	}
}

func TestOpenGetsNamesUnchanged(t *testing.T) {
	ts := serve(t, nil, nil)
	for _, name := range []string{"/undionly.kpxe", "../../etc/passwd", `boot\x64\a`, "a\xff"} {
		newClient(t, ts.addr).get(name)
		if got := <-ts.seen; got != name {
			t.Errorf("Open got %q for %q", got, name)
		}
	}
}

func TestATransferFollowsARequestForTheSizeFromTheSamePort(t *testing.T) {
	want := pattern(5000)
	ts := serve(t, map[string][]byte{"f": want}, nil)
	c := newClient(t, ts.addr, "tsize", "0")
	c.conn.WriteTo(c.request(opRead, "f", "octet"), ts.addr)
	buf := make([]byte, 600)
	n, from, err := c.conn.ReadFrom(buf)
	if err != nil || opcode(binary.BigEndian.Uint16(buf)) != opOACK {
		t.Fatalf("%q, %v, want an OACK", buf[:n], err)
	}
	c.conn.WriteTo(appendError(nil, 8, "thank you"), from)
	c.options = []string{"blksize", "1400"}
	got, err := c.get("f")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the bytes differ")
	}
}

func TestANewRequestFromAPortReplacesTheOldTransfer(t *testing.T) {
	ts := serve(t, map[string][]byte{"a": pattern(5000), "b": pattern(700)}, func(s *Server) { s.MaxPerClient = 1 })
	c := newClient(t, ts.addr)
	c.conn.WriteTo(c.request(opRead, "a", "octet"), ts.addr)
	buf := make([]byte, 600)
	if _, _, err := c.conn.ReadFrom(buf); err != nil {
		t.Fatal(err)
	}
	// The transfer is not ended. The next request is sent from the same port.
	c.conn.WriteTo(c.request(opRead, "b", "octet"), ts.addr)
	<-ts.seen
	if got := <-ts.seen; got != "b" {
		t.Errorf("Open got %q, want b", got)
	}
}

func TestARepeatedRequestStartsNoSecondTransfer(t *testing.T) {
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	from := netip.MustParseAddrPort("127.0.0.1:2070")
	ask := func(packet string) (*transfer, bool) { return s.admit(context.Background(), from, []byte(packet), nil) }
	first, ok := ask("a")
	if !ok {
		t.Fatal("the first request is not admitted")
	}
	if _, ok := ask("a"); ok {
		t.Error("a repeated request before an acknowledgement starts a second transfer")
	}
	first.acknowledged.Store(true)
	second, ok := ask("a")
	if !ok || first.ctx.Err() == nil {
		t.Error("a repeated request after an acknowledgement does not start a new transfer")
	}
	third, ok := ask("b")
	if !ok || second.ctx.Err() == nil {
		t.Error("another request does not replace the transfer")
	}
	s.finish(first)
	s.finish(second)
	if len(s.transfers) != 1 || len(s.perClient.Of(from.Addr())) != 1 {
		t.Error("transfers that were replaced are counted")
	}
	s.finish(third)
	if len(s.transfers) != 0 || len(s.perClient.Of(from.Addr())) != 0 {
		t.Errorf("the table keeps %d transfers", len(s.transfers))
	}
}

func TestTransfersOfAnAddressAreBounded(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": pattern(2000)}, func(s *Server) {
		s.MaxPerClient = 2
		s.Timeout = time.Minute
	})
	for range 2 {
		c := newClient(t, ts.addr)
		from := first(t, c, c.request(opRead, "f", "octet"))
		c.conn.WriteTo(ack(1), from) // proves its address
		c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := c.conn.ReadFrom(make([]byte, 600)); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, ts.addr)
	c.conn.WriteTo(c.request(opRead, "f", "octet"), ts.addr)
	c.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, _, err := c.conn.ReadFrom(make([]byte, 600)); err == nil {
		t.Errorf("a third transfer to one address started: %d bytes", n)
	}
	if n := len(ts.seen); n != 2 {
		t.Errorf("%d files opened, want 2", n)
	}
}

// first sends a request and returns where the first packet of the answer comes from.
func first(t *testing.T, c *client, request []byte) net.Addr {
	t.Helper()
	c.conn.WriteTo(request, c.server)
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, from, err := c.conn.ReadFrom(make([]byte, 600))
	if err != nil {
		t.Fatal(err)
	}
	return from
}

func TestRequestsWithForgedAddressesDoNotKeepOthersFromTheirs(t *testing.T) {
	want := pattern(20_000)
	ts := serve(t, map[string][]byte{"f": want}, func(s *Server) {
		s.MaxTransfers = func() int { return 64 }
		s.Timeout = time.Minute // so that no transfer ends by itself
	})
	for i := range 512 {
		from, err := net.ListenPacket("udp4", fmt.Sprintf("127.1.%d.%d:0", i/256, i%256))
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		silent := client{conn: from, server: ts.addr, options: []string{"timeout", "255"}}
		first(t, &silent, silent.request(opRead, "f", "octet"))
	}
	for range 6 { // more than one address may have
		silent := newClient(t, ts.addr)
		first(t, silent, silent.request(opRead, "f", "octet"))
	}
	got, err := newClient(t, ts.addr, "blksize", "1024").get("f")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d arrived: %v", len(got), len(want), err)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if n := len(ts.transfers); n > 64 {
		t.Errorf("%d transfers at a time", n)
	}
}

func TestALongTimeoutIsNotGranted(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": pattern(10)}, nil)
	c := newClient(t, ts.addr, "timeout", "255", "tsize", "0")
	if _, err := c.get("f"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"tsize": "10"}, c.oack); d != "" {
		t.Error(d)
	}
}

func TestAnUnknownClientGetsNoTransfer(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": pattern(10)}, func(s *Server) {
		s.Known = func(netip.AddrPort) bool { return false }
	})
	_, err := newClient(t, ts.addr).get("f")
	if e := (*remoteError)(nil); !errors.As(err, &e) || e.code != codeAccess || len(ts.seen) != 0 {
		t.Errorf("%v, %d files opened", err, len(ts.seen))
	}
}

func TestATransferToASilentClientFails(t *testing.T) {
	ts := serve(t, map[string][]byte{"f": pattern(2000)}, func(s *Server) {
		s.Timeout = time.Millisecond
		s.Retries = 2
	})
	c := newClient(t, ts.addr)
	c.conn.WriteTo(c.request(opRead, "f", "octet"), ts.addr)
	packets := 0
	buf := make([]byte, 600)
	for range 200 { // 10 s
		c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, _, err := c.conn.ReadFrom(buf); err == nil {
			packets++
			continue
		}
		ts.mu.Lock()
		left := len(ts.transfers)
		ts.mu.Unlock()
		if left == 0 && packets > 0 {
			break
		}
	}
	if packets != 3 {
		t.Errorf("%d packets to a silent client, want 3", packets)
	}
}
