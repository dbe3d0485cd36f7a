package bootload

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// Opcodes of TFTP (RFC 1350, 2347).
const (
	tftpRead = iota + 1
	_
	tftpData
	tftpAck
	tftpError
	tftpOACK
)

// tftpBlock is the size of a block that UEFI firmware asks for.
const tftpBlock = 1468

// FetchTFTP gets a file as UEFI firmware does: with blocks of 1,468 bytes, each acknowledged by itself. It writes the
// file to w. conn is used for this transfer alone, and is not closed.
func FetchTFTP(ctx context.Context, conn net.PacketConn, server netip.AddrPort, name string, w io.Writer) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	t := transfer{conn: conn, to: net.UDPAddrFromAddrPort(server), block: 512}
	t.last = binary.BigEndian.AppendUint16(nil, tftpRead)
	for _, s := range []string{name, "octet", "blksize", fmt.Sprint(tftpBlock)} {
		t.last = append(append(t.last, s...), 0)
	}
	if err := t.run(ctx, w); err != nil {
		return fmt.Errorf("tftp %s: %w", name, err)
	}
	return nil
}

// transfer is one file on its way.
type transfer struct {
	conn   net.PacketConn
	to     net.Addr
	from   net.Addr // of the server's end of the transfer, once it is known
	last   []byte   // what was sent last
	block  int
	number uint16 // of the last block
}

func (t *transfer) run(ctx context.Context, w io.Writer) error {
	buf := make([]byte, 65536)
	for try := 0; try < tries; {
		if _, err := t.conn.WriteTo(t.last, t.to); err != nil {
			return err
		}
		b, err := t.receive(ctx, buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			try++
			continue
		}
		if err != nil {
			return err
		}
		end, err := t.take(b, w)
		if err != nil || end {
			return err
		}
		try = 0
	}
	return fmt.Errorf("no answer within %v", tries*resend)
}

// receive returns the next packet of the transfer.
func (t *transfer) receive(ctx context.Context, buf []byte) ([]byte, error) {
	for {
		t.conn.SetReadDeadline(time.Now().Add(resend))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n, from, err := t.conn.ReadFrom(buf)
		if err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		if t.from == nil {
			t.from, t.to = from, from
		}
		if n >= 4 && from.String() == t.from.String() {
			return buf[:n], nil
		}
	}
}

// take takes a packet and sets what is to be sent next. end reports that the file has ended; the last acknowledgement
// is sent then.
func (t *transfer) take(b []byte, w io.Writer) (end bool, err error) {
	number := binary.BigEndian.Uint16(b[2:])
	switch binary.BigEndian.Uint16(b) {
	case tftpError:
		return true, fmt.Errorf("the server says %.100q", b[4:])
	case tftpOACK: // it grants the only option that was asked for
		t.block, number = tftpBlock, 0
	case tftpData:
		if number != t.number+1 {
			return false, nil // a block that came twice
		}
		t.number = number
		if _, err := w.Write(b[4:]); err != nil {
			return true, err
		}
		end = len(b)-4 < t.block
	default:
		return true, fmt.Errorf("a packet of kind %d", binary.BigEndian.Uint16(b))
	}
	t.last = binary.BigEndian.AppendUint16([]byte{0, tftpAck}, number)
	if end {
		_, err = t.conn.WriteTo(t.last, t.to)
	}
	return end, err
}
