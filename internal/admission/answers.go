package admission

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	// answerWait is how long Answers waits. A machine that runs acknowledges a probe at once; some probes may be lost.
	answerWait = 2500 * time.Millisecond
	// answerPoll is the interval between its looks.
	answerPoll = 100 * time.Millisecond
	// probeEvery is the interval between its probes.
	probeEvery = time.Second
	// answerMargin is how much later than the given time an acknowledgement must be: the kernel counts in ticks.
	answerMargin = 20 * time.Millisecond
)

// keepAlive is how connections are probed otherwise; these are the values of package net.
const keepAlive = 15 * time.Second

// Answers reports whether a machine with one of the addresses has acknowledged something after the given time, on a
// connection that one of the controllers has admitted from a port below 1024, which firmware and loaders do not use.
// That proves that the kernel which opened the connection still runs. Neither another machine nor an ordinary user can
// forge it.
//
// The connections are probed by keep-alives (RFC 9293 section 3.8.4). Answers returns at once when there are none, and
// otherwise blocks for at most 2.5 s.
func Answers(ctx context.Context, controllers []*Controller, addrs []netip.Addr, since time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	probed := map[net.Conn]bool{}
	defer func() {
		for c := range probed {
			probe(c, keepAlive)
		}
	}()
	for {
		list := privileged(controllers, addrs)
		if len(list) == 0 {
			return false
		}
		for _, c := range list {
			if acknowledged(c).After(since.Add(answerMargin)) {
				return true
			}
			if !probed[c] {
				probed[c] = true
				probe(c, probeEvery)
			}
		}
		if ctx.Err() != nil { // only now: this goroutine may have waited for a processor
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(answerPoll):
		}
	}
}

// privileged returns the connections of the addresses from ports below 1024.
func privileged(controllers []*Controller, addrs []netip.Addr) (list []net.Conn) {
	for _, a := range controllers {
		for _, addr := range addrs {
			for _, c := range a.open.Of(holder{addr, true}) {
				if peerOf(c).Remote.Port() < 1024 {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// acknowledged returns when the other end of c acknowledged something last, the zero time when c has ended.
func acknowledged(c net.Conn) time.Time {
	info, err := infoOf(c)
	if err != nil || info.State != established {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
}

// established is TCP_ESTABLISHED of the kernel's include/net/tcp_states.h.
const established = 1

// probe sets the interval between keep-alives of c. If c has been quiet for longer, one is sent at once.
func probe(c net.Conn, interval time.Duration) {
	if tcp, ok := tcpOf(c); ok {
		// An error says that the connection has ended.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: interval, Interval: interval})
	}
}
