package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"dim/internal/testkit"
)

func someZones(t testing.TB) *Zones {
	t.Helper()
	z, err := NewZones(7, "head.small.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		z.AddZone("small.example"), z.AddZone("0.77.10.in-addr.arpa"),
		z.AddAddress("n01.small.example", netip.MustParseAddr("10.77.0.11")),
		z.AddAddress("n01.small.example", netip.MustParseAddr("fd00::11")),
		z.AddAddress("b.a.small.example", netip.MustParseAddr("10.77.0.12")),
		z.AddPointer("11.0.77.10.in-addr.arpa", "n01.small.example"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return z
}

// ask returns a question as a client encodes it.
func ask(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 42, RecursionDesired: true},
		Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET},
		},
	}
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMalformedMessages(t *testing.T) {
	z := someZones(t)
	good := ask(t, "n01.small.example.", dnsmessage.TypeA)
	changed := func(at int, to ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], to)
		return out
	}
	for _, tt := range []struct {
		name    string
		message []byte
		code    dnsmessage.RCode
		silent  bool
	}{
		{"a question", good, dnsmessage.RCodeSuccess, false},
		{"nothing", nil, 0, true},
		{"half a header", good[:7], 0, true},
		{"an answer", changed(2, 0x80), 0, true},
		{"another operation", changed(2, 0x28), dnsmessage.RCodeNotImplemented, false},
		{"no question", changed(4, 0, 0), dnsmessage.RCodeFormatError, false},
		{"two questions", changed(4, 0, 2), dnsmessage.RCodeFormatError, false},
		{"half a question", good[:20], dnsmessage.RCodeFormatError, false},
		{"a name that points to itself", changed(12, 0xc0, 12), dnsmessage.RCodeFormatError, false},
		{"additional records that are missing", changed(10, 0, 9), dnsmessage.RCodeFormatError, false},
	} {
		out := z.answer(tt.message, 0)
		if tt.silent != (out == nil) {
			t.Errorf("%s: answered with %x", tt.name, out)
			continue
		}
		if tt.silent {
			continue
		}
		var p dnsmessage.Parser
		h := testkit.Value(p.Start(out))(t)
		if h.RCode != tt.code || h.ID != 42 || !h.Response {
			t.Errorf("%s: %+v, want %v", tt.name, h, tt.code)
		}
	}
}

// A name without records exists if names below it do (RFC 8020).
func TestWhatANameHas(t *testing.T) {
	z := someZones(t)
	for _, tt := range []struct {
		name    string
		kind    dnsmessage.Type
		code    dnsmessage.RCode
		answers int
	}{
		{"n01.small.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 1},
		{"n01.small.example.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, 1},
		{"n01.small.example.", dnsmessage.TypeMX, dnsmessage.RCodeSuccess, 0},
		{"a.small.example.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, 0},
		{"c.small.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0},
		{"11.0.77.10.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeSuccess, 1},
		{"77.10.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeRefused, 0},
	} {
		var m dnsmessage.Message
		testkit.Must(t, m.Unpack(z.answer(ask(t, tt.name, tt.kind), 0)))
		if m.RCode != tt.code || len(m.Answers) != tt.answers {
			t.Errorf("%s %v: %v with %d answers", tt.name, tt.kind, m.RCode, len(m.Answers))
		}
	}
}

// questions is a socket at which questions of several addresses arrive. It counts the answers.
type questions struct {
	net.PacketConn // calls that the server does not make
	packet         []byte
	from           []string
	answered       map[string]int
}

func (q *questions) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(q.from) == 0 {
		return 0, nil, net.ErrClosed
	}
	from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(q.from[0]))
	q.from = q.from[1:]
	return copy(b, q.packet), from, nil
}

func (q *questions) WriteTo(_ []byte, to net.Addr) (int, error) {
	q.answered[to.String()]++
	return 0, nil
}

func (q *questions) Close() error { return nil }

// However many questions are sent in the name of an address, it gets a thousand answers at once.
func TestAnAddressGetsABoundedNumberOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time stands still
		q := &questions{packet: ask(t, "n01.small.example.", dnsmessage.TypeA), answered: map[string]int{}}
		for range 3 * answerBurst {
			q.from = append(q.from, "192.0.2.1:53", "[2001:db8::1]:53")
		}
		q.from = append(q.from, "192.0.2.1:54", "[2001:db8::2]:53", "192.0.2.2:53", "[2001:db8:0:1::1]:53")
		z := someZones(t)
		s := &Server{Zones: func() *Zones { return z }, Log: slog.New(slog.DiscardHandler)}
		if err := s.Serve(t.Context(), q); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		want := map[string]int{"192.0.2.1:53": answerBurst, "[2001:db8::1]:53": answerBurst,
			"192.0.2.2:53": 1, "[2001:db8:0:1::1]:53": 1}
		if !maps.Equal(q.answered, want) {
			t.Errorf("answered: %v, want %v", q.answered, want)
		}
	})
}

// A connection is read question by question, a client that says nonsense is cut off, and connections are bounded.
func TestConnections(t *testing.T) {
	z := someZones(t)
	s := &Server{Zones: func() *Zones { return z }, Log: slog.New(slog.DiscardHandler)}
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTCP(ctx, ln) }()
	dial := func() net.Conn {
		conn := testkit.Value(net.Dial("tcp", ln.Addr().String()))(t)
		testkit.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		return conn
	}
	question := ask(t, "n01.small.example.", dnsmessage.TypeALL)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)
	exchange := func(conn net.Conn) error {
		if _, err := conn.Write(framed); err != nil {
			return err
		}
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return err
		}
		out := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, out); err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil || len(m.Answers) != 2 {
			return fmt.Errorf("%d answers: %w", len(m.Answers), err)
		}
		return nil
	}
	conn := dial()
	testkit.Must(t, exchange(conn), exchange(conn))
	wrong := dial()
	testkit.Value(wrong.Write([]byte{0xff, 0xff}))(t)
	if _, err := wrong.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a question of 65,535 bytes: %v", err)
	}
	refused := 0
	for range perAddress + 4 { // each stays open
		if exchange(dial()) != nil {
			refused++
		}
	}
	if refused < 4 {
		t.Errorf("%d connections of one address were refused", refused)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	second := testkit.Value(other.Dial("tcp", ln.Addr().String()))(t)
	testkit.Must(t, second.SetDeadline(time.Now().Add(time.Minute)), exchange(second))
	cancel()
	testkit.Must(t, <-ended)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the server")
	}
}

// Every answer is well-formed, small, and about the question.
func FuzzAnswer(f *testing.F) {
	z := someZones(f)
	for _, name := range []string{
		"n01.small.example.", "11.0.77.10.in-addr.arpa.", "x.small.example.", "example.com.", ".",
	} {
		f.Add(ask(f, name, dnsmessage.TypeALL))
	}
	f.Add(append(ask(f, "small.example.", dnsmessage.TypeSOA)[:10], 0, 1, 0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, message []byte) {
		out := z.answer(message, 0)
		if out == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil {
			t.Fatalf("the answer %x: %v", out, err)
		}
		if len(out) > maxSize || !m.Response || len(m.Questions) > 1 || m.ID != binary.BigEndian.Uint16(message) {
			t.Errorf("the answer to %x is %+v", message, m)
		}
	})
}
