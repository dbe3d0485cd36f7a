package liveness

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"dim/internal/boot"
	"dim/internal/cluster"
)

const (
	// clockTolerance is how far a node's clock may be off before that is told. Files that a node writes have the
	// server's time; make, find -mmin and rsync -u compare it with the node's.
	clockTolerance = 2 * time.Second
	// clockInterval is the time between two checks of a clock, and clockRetry that of one that was off.
	clockInterval = 10 * time.Minute
	clockRetry    = time.Minute
)

// clock is the outcome of the last check of a node's clock.
type clock struct {
	checked time.Time
	ahead   time.Duration // zero: not known, or within clockTolerance
}

// due reports whether the clock is to be checked.
func (c *clock) due(now time.Time) bool {
	interval := clockInterval
	if c.ahead != 0 {
		interval = clockRetry
	}
	return now.Sub(c.checked) >= interval
}

// checkClocks checks the clocks of some nodes that run.
func (t *Tracker) checkClocks(nodes []*cluster.Node) {
	batch := t.unchecked(nodes)
	if len(batch) == 0 {
		return
	}
	addrs := make([]netip.Addr, 0, len(batch))
	for a := range batch {
		addrs = append(addrs, a)
	}
	ahead, err := t.clocks(addrs)
	if err != nil {
		t.log.Debug("clocks of nodes not checked", "error", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, name := range batch {
		if r := t.nodes[name]; r != nil {
			r.clock.ahead = ahead[addr]
		}
	}
}

// unchecked returns the next few nodes whose clocks are to be checked, and counts them as checked.
func (t *Tracker) unchecked(nodes []*cluster.Node) map[netip.Addr]cluster.NodeName {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	batch := map[netip.Addr]cluster.NodeName{}
	for _, n := range nodes {
		r := t.nodes[n.Name]
		if r == nil || len(r.events) == 0 || r.last().Stage != boot.StageRunning || !r.clock.due(now) {
			continue
		}
		r.clock.checked = now
		if batch[n.Address()] = n.Name; len(batch) == probeBatch {
			break
		}
	}
	return batch
}

// clocks asks machines for the time of day with ICMP timestamps (RFC 792), which Linux answers by default. It returns
// by how much their clocks are ahead of this one's, of those for which that is more than clockTolerance. A difference
// of whole days does not show. There is no such message for IPv6.
func clocks(addrs []netip.Addr) (map[netip.Addr]time.Duration, error) {
	conn, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	id := uint16(os.Getpid())
	sent := map[netip.Addr]time.Time{}
	for _, a := range addrs {
		if !a.Is4() {
			continue
		}
		now := time.Now()
		ask := icmp.Message{Type: ipv4.ICMPTypeTimestamp, Body: &icmp.RawBody{Data: askClock(id, now)}}
		b, err := ask.Marshal(nil)
		if err != nil {
			return nil, err
		}
		if _, err := conn.WriteTo(b, &net.IPAddr{IP: a.AsSlice()}); err == nil {
			sent[a] = now
		}
	}
	return readClocks(conn, id, sent)
}

// readClocks reads the replies to requests that were sent at those times. It ends when all are there, or after
// pingTimeout.
func readClocks(conn *icmp.PacketConn, id uint16, sent map[netip.Addr]time.Time) (map[netip.Addr]time.Duration, error) {
	if err := conn.SetReadDeadline(time.Now().Add(pingTimeout)); err != nil {
		return nil, err
	}
	ahead := map[netip.Addr]time.Duration{}
	for buf := make([]byte, 1500); len(sent) > 0; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			break
		}
		received := time.Now()
		m, err := icmp.ParseMessage(1, buf[:n])
		at, isIP := from.(*net.IPAddr)
		if err != nil || m.Type != ipv4.ICMPTypeTimestampReply || !isIP {
			continue
		}
		body, isRaw := m.Body.(*icmp.RawBody)
		a, _ := netip.AddrFromSlice(at.IP)
		began, asked := sent[a.Unmap()]
		if !isRaw || !asked {
			continue
		}
		if d, ok := readClock(body.Data, id, began, received); ok {
			delete(sent, a.Unmap())
			if d != 0 {
				ahead[a.Unmap()] = d
			}
		}
	}
	return ahead, nil
}

// Fields of a timestamp message behind its checksum: identifier, sequence number, and three times of day in
// milliseconds: of the request, of its arrival and of the reply.
const (
	askedAt, arrivedAt, timestampSize = 4, 8, 16
	day                               = 24 * time.Hour
)

// askClock returns the body of a timestamp message.
func askClock(id uint16, now time.Time) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(timeOfDay(now).Milliseconds()))
	return append(b, make([]byte, timestampSize-len(b))...)
}

// timeOfDay returns the time since midnight UTC.
func timeOfDay(t time.Time) time.Duration { return time.Duration(t.UnixNano()) % day }

// readClock returns by how much the clock of a reply's sender is ahead, zero if that is within clockTolerance or may
// be the time that the messages took. ok is false when it is no reply to the request that was sent at began.
func readClock(b []byte, id uint16, began, received time.Time) (ahead time.Duration, ok bool) {
	if len(b) < timestampSize || binary.BigEndian.Uint16(b) != id ||
		binary.BigEndian.Uint32(b[askedAt:]) != uint32(timeOfDay(began).Milliseconds()) {
		return 0, false
	}
	remote := binary.BigEndian.Uint32(b[arrivedAt:])
	if time.Duration(remote)*time.Millisecond >= day {
		return 0, true // not milliseconds since midnight, which the high bit says
	}
	took := received.Sub(began)
	ahead = time.Duration(remote)*time.Millisecond - timeOfDay(began.Add(took/2))
	switch { // the nearest of the days
	case ahead > day/2:
		ahead -= day
	case ahead < -day/2:
		ahead += day
	}
	if ahead.Abs()-took <= clockTolerance {
		return 0, true
	}
	return ahead.Round(100 * time.Millisecond), true
}
