package oncrpc

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func FuzzMessage(f *testing.F) {
	f.Add(message(1, procNull))
	f.Add(message(2, procEcho, 4, 5))
	f.Add(words(1, 0, 2, testProgram, 3, procWho, 1, 36, 99, 3, 0x61626300, 1000, 100, 3, 4, 5, 6, 0, 0))
	f.Add(words(1, 0, 3, testProgram, 4, 99, 6, 0, 0, 0))
	b := new(bench)
	s := NewServer(Options{}, b.program())
	f.Fuzz(func(t *testing.T, msg []byte) {
		call := s.getCall(new(Peer))
		defer s.putCall(call)
		call.ensure(s.pool)
		slot, ok := call.decode(msg)
		if !ok {
			return
		}
		if slot.Cost == Quick {
			call.run(slot)
		}
		reply := call.Reply.Bytes()
		if len(reply) < replyStart-4 || !bytes.Equal(reply[markSize:markSize+4], msg[:4]) {
			t.Errorf("reply %x to %x", reply, msg)
		}
	})
}

// FuzzStream sends any bytes, cut anywhere. The server must answer or close, and serve the next client.
func FuzzStream(f *testing.F) {
	f.Add(record(message(1, procNull)), uint16(3))
	f.Add(append(record(message(1, procBig, 70000)), record(message(2, procSlowEcho, 4, 1))...), uint16(50))
	f.Add(append(words(8), append(message(1, procNull)[:8], record(message(1, procNull)[8:])...)...), uint16(9))
	f.Add(words(0x7fffffff, 1, 2), uint16(1))
	s, b, addr := start(f, Options{})
	close(b.gate)
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Skip(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		at := min(int(cut), len(stream))
		nc.Write(stream[:at])
		nc.Write(stream[at:])
		time.Sleep(time.Millisecond) // a FIN together with the last call is found a second later only
		nc.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, nc); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("no end after %x", stream)
			}
		}
		if m := s.pool.lent.Load(); m > 64*largeBuffer {
			t.Errorf("%d bytes in use", m)
		}
	})
}
