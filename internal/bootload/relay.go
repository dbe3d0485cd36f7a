package bootload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Relay asks a DHCP server for addresses and boot files in the name of machines with UEFI firmware (x86_64), as a relay
// does. Its counters are of all machines.
type Relay struct {
	Again atomic.Uint64 // messages that were sent again
	Size  atomic.Uint64 // bytes of the largest message

	conn net.PacketConn
	to   net.Addr
	addr net.IP
	read sync.WaitGroup

	mu   sync.Mutex
	open map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4
}

// NewRelay returns a Relay that asks the server at to. conn is bound to port 67 of an address to which the server can
// send its answers. Close closes it.
func NewRelay(conn net.PacketConn, to netip.AddrPort) *Relay {
	r := &Relay{conn: conn, to: net.UDPAddrFromAddrPort(to), open: map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4{}}
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		r.addr = a.IP
	}
	r.read.Go(r.receive)
	return r
}

// Close closes the socket.
func (r *Relay) Close() error {
	err := r.conn.Close()
	r.read.Wait()
	return err
}

// receive passes answers on to who waits for them.
func (r *Relay) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			continue
		}
		r.grown(n)
		r.mu.Lock()
		if c := r.open[m.TransactionID]; c != nil {
			select {
			case c <- m:
			default: // the answer to a message that was sent twice
			}
		}
		r.mu.Unlock()
	}
}

func (r *Relay) grown(size int) {
	for old := r.Size.Load(); uint64(size) > old && !r.Size.CompareAndSwap(old, uint64(size)); old = r.Size.Load() {
	}
}

// resend is the time after which a message without an answer is sent again, and tries how often it is sent.
const (
	resend = time.Second
	tries  = 20
)

// errNoAnswer is the error of a machine that gets no address.
var errNoAnswer = errors.New("dhcp: no answer")

// Boot asks for the address of a machine: DISCOVER, OFFER, REQUEST, ACK. It returns the boot file that the machine is
// given, "" for none.
func (r *Relay) Boot(ctx context.Context, mac net.HardwareAddr) (file string, err error) {
	firmware := []dhcpv4.Modifier{
		dhcpv4.WithRelay(r.addr),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}),
	}
	m, err := dhcpv4.NewDiscovery(mac, firmware...)
	if err != nil {
		return "", err
	}
	answers := make(chan *dhcpv4.DHCPv4, 1)
	r.mu.Lock()
	for r.open[m.TransactionID] != nil {
		m.TransactionID[0] = byte(rand.Uint32())
	}
	r.open[m.TransactionID] = answers
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, m.TransactionID)
	}()
	offer, err := r.exchange(ctx, m, answers, dhcpv4.MessageTypeOffer)
	if err != nil {
		return "", err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, firmware...)
	if err != nil {
		return "", err
	}
	ack, err := r.exchange(ctx, request, answers, dhcpv4.MessageTypeAck)
	if err != nil {
		return "", err
	}
	return ack.BootFileName, nil
}

// exchange sends m until it is answered by a message of type want.
func (r *Relay) exchange(
	ctx context.Context, m *dhcpv4.DHCPv4, answers <-chan *dhcpv4.DHCPv4, want dhcpv4.MessageType,
) (*dhcpv4.DHCPv4, error) {
	b := m.ToBytes()
	r.grown(len(b))
	again := time.NewTicker(resend)
	defer again.Stop()
	for try := range tries {
		if try > 0 {
			r.Again.Add(1)
		}
		if _, err := r.conn.WriteTo(b, r.to); err != nil {
			return nil, err
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case a := <-answers:
				switch a.MessageType() {
				case want:
					return a, nil
				case dhcpv4.MessageTypeOffer: // of a DISCOVER that was sent twice
				default:
					return nil, fmt.Errorf("dhcp: the answer is %v", a.MessageType())
				}
			case <-again.C:
				waiting = false
			}
		}
	}
	return nil, fmt.Errorf("%w within %v", errNoAnswer, tries*resend)
}
