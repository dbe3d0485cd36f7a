package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

// client is a small TFTP client for the tests, written from the RFCs.
type client struct {
	conn    net.PacketConn
	server  net.Addr
	options []string // key, value, …
	wait    time.Duration
	oack    map[string]string // the options that the server granted
	rounds  int               // time-outs after which a transfer fails
}

func newClient(t *testing.T, server net.Addr, options ...string) *client {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{conn: conn, server: server, options: options, wait: 50 * time.Millisecond, rounds: 100}
}

func (c *client) request(op opcode, name, mode string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(op))
	for _, s := range append([]string{name, mode}, c.options...) {
		b = append(append(b, s...), 0)
	}
	return b
}

// remoteError is an ERROR packet.
type remoteError struct {
	code errorCode
	text string
}

func (e *remoteError) Error() string { return fmt.Sprintf("code %d: %s", e.code, e.text) }

// get fetches name. It tolerates the loss of packets in both directions.
func (c *client) get(name string) ([]byte, error) {
	return c.transfer(c.request(opRead, name, "octet"))
}

func (c *client) transfer(first []byte) ([]byte, error) {
	var data []byte
	var peer net.Addr // its port, once known
	blockSize, window := 512, 1
	reply, to := first, c.server
	send := func() { c.conn.WriteTo(reply, to) }
	send()
	buf := make([]byte, 70000)
	expected, inWindow := uint64(1), 0
	for rounds := 0; ; {
		c.conn.SetReadDeadline(time.Now().Add(c.wait))
		n, from, err := c.conn.ReadFrom(buf)
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			if rounds++; rounds > c.rounds {
				return data, err
			}
			inWindow = 0
			send()
			continue
		}
		if err != nil {
			return data, err
		}
		if peer == nil {
			peer = from
		}
		if from.String() != peer.String() {
			continue
		}
		b := buf[:n]
		switch opcode(binary.BigEndian.Uint16(b)) {
		case opOACK:
			c.oack = parseOACK(b[2:])
			if v, ok := c.oack["blksize"]; ok {
				blockSize, _ = strconv.Atoi(v)
			}
			if v, ok := c.oack["windowsize"]; ok {
				window, _ = strconv.Atoi(v)
			}
			reply, to = ack(0), peer
			send()
		case opError:
			return data, &remoteError{errorCode(binary.BigEndian.Uint16(b[2:])), string(b[4 : n-1])}
		case opData:
			if binary.BigEndian.Uint16(b[2:]) != uint16(expected) {
				if inWindow++; inWindow == 1 && window > 1 { // a gap: report it once
					send()
				}
				continue
			}
			data = append(data, b[4:]...)
			done := len(b)-4 < blockSize
			reply, to = ack(uint16(expected)), peer
			if expected%uint64(window) == 0 || done || inWindow != 0 {
				send()
			}
			inWindow = 0
			expected++
			if done {
				return data, nil
			}
		}
	}
}

func ack(block uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, byte(opAck)}, block)
}

func parseOACK(b []byte) map[string]string {
	m := make(map[string]string)
	for len(b) > 0 {
		k, rest, ok1 := cutString(b)
		v, rest, ok2 := cutString(rest)
		if !ok1 || !ok2 {
			break
		}
		m[k], b = v, rest
	}
	return m
}

// bytesFile is a File in memory.
type bytesFile struct {
	io.ReaderAt
	size   int64
	closed func()
}

func (f *bytesFile) Size() int64 { return f.size }
func (f *bytesFile) Close() error {
	f.closed()
	return nil
}
