package tftp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// maxWait bounds the time between retransmissions.
	maxWait = 8 * time.Second
	// firstWait bounds the time until the first ACK, which proves that the client's address is not forged.
	firstWait = 10 * time.Second
	// maxAnswers bounds the answers of a client that wait. A client sends one after each window, and perhaps one for
	// each packet after one that was lost; a further one is not missed.
	maxAnswers = 8
	// minRate is the number of bytes a second below which a transfer does not end in time; minTime is for all others.
	minRate, minTime = 16 << 10, 5 * time.Minute
)

// transfer is one file that is being sent to one client. All its fields but acknowledged belong to the goroutine
// that runs send.
type transfer struct {
	ctx          context.Context
	cancel       context.CancelFunc
	client       netip.AddrPort
	packet       []byte // the bytes of the request, to recognize it when it is repeated
	request      request
	timeout      time.Duration
	retries      int
	started      func() // the first packet is sent: others can be started
	conn         net.PacketConn
	answers      chan answer // of the client; the capacity is maxAnswers
	until        time.Time   // when the transfer ends if it is not acknowledged before
	acknowledged atomic.Bool // the client has acknowledged a packet
	resentAfter  int64       // the block after which a window was sent again because of a second ACK; -1: none
	buf          []byte
}

// clientError is the ERROR packet with which a client ended the transfer.
type clientError struct{ text string }

func (e *clientError) Error() string { return "ended by the client: " + e.text }

// send sends file, window by window. Block numbers count from 1 and do not roll over here. In packets they have 16
// bits.
func (t *transfer) send(file File) error {
	var cancel context.CancelFunc
	t.ctx, cancel = context.WithTimeout(t.ctx, minTime+time.Duration(file.Size()/minRate)*time.Second)
	defer cancel()
	t.until = time.Now().Add(firstWait)
	if t.request.options() {
		oack := appendOACK(nil, t.request, file.Size())
		if _, err := t.exchange(0, 0, func() error { return t.write(oack) }); err != nil {
			return fmt.Errorf("send options: %w", err)
		}
	}
	blockSize := int64(cmp.Or(t.request.blockSize, 512))
	window := int64(cmp.Or(t.request.window, 1))
	last := file.Size()/blockSize + 1 // the last block is shorter than the others, and may be empty
	t.resentAfter = -1
	for acked := int64(0); acked < last; {
		end := min(acked+window, last)
		now, err := t.exchange(acked, end, func() error { return t.writeBlocks(file, acked+1, end, blockSize) })
		if err != nil {
			return fmt.Errorf("send block %d of %d: %w", acked+1, last, err)
		}
		acked = now
	}
	return nil
}

// exchange calls write, waits for an ACK of a block in (acked, end], or of block 0 if both are 0, and returns the block
// that was acknowledged. If no ACK arrives, it calls write again, with back-off.
func (t *transfer) exchange(acked, end int64, write func() error) (int64, error) {
	wait := t.timeout
	if t.request.timeout != 0 {
		wait = time.Duration(t.request.timeout) * time.Second
	}
	for try := 0; try <= t.retries; try++ {
		if err := write(); err != nil {
			return 0, err
		}
		t.started()
		deadline := time.Now().Add(wait)
		if !t.acknowledged.Load() && deadline.After(t.until) {
			deadline, try = t.until, t.retries
		}
		n, err := t.await(acked, end, deadline)
		if err == nil {
			t.acknowledged.Store(true)
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		wait = min(2*wait, maxWait)
	}
	return 0, errors.New("no answer")
}

// await waits until an ACK of a block in (acked, end] arrives, for exchange.
//
// An ACK of block acked itself means that the first block of a window was lost (RFC 7440 section 4). Then await
// returns acked, and the window is sent again from there. It does so once only, because some clients send such an
// ACK for each block after the lost one. With a window of one block such an ACK is a duplicate, and only the
// time-out sends the block again: otherwise all further blocks would be sent twice (the Sorcerer's Apprentice
// Syndrome, RFC 1123 section 4.2.3.1).
func (t *transfer) await(acked, end int64, deadline time.Time) (int64, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		var a answer
		select {
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		case <-timer.C:
			return 0, os.ErrDeadlineExceeded
		case a = <-t.answers:
		}
		if a.op == opError {
			return 0, &clientError{fmt.Sprintf("%q (code %d)", a.message, a.block)}
		}
		ahead := int64(a.block - uint16(acked)) // modulo 65,536, which is far more than a window
		if ahead == 0 && (end == 0 || end-acked > 1 && t.resentAfter != acked) {
			t.resentAfter = acked
			return acked, nil
		}
		if ahead > 0 && ahead <= end-acked {
			return acked + ahead, nil
		}
	}
}

// writeBlocks sends the blocks from first to last.
func (t *transfer) writeBlocks(file File, first, last, blockSize int64) error {
	for b := first; b <= last; b++ {
		t.buf = appendDataHeader(t.buf[:0], uint16(b))
		at := (b - 1) * blockSize
		n := min(blockSize, file.Size()-at)
		t.buf = slices.Grow(t.buf, int(n))[:4+n]
		if _, err := io.ReadFull(io.NewSectionReader(file, at, n), t.buf[4:]); err != nil {
			t.write(appendError(nil, codeUndefined, "the server cannot read the file"))
			return fmt.Errorf("read at %d: %w", at, err)
		}
		if err := t.write(t.buf); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) write(b []byte) error {
	_, err := t.conn.WriteTo(b, net.UDPAddrFromAddrPort(t.client))
	return err
}
