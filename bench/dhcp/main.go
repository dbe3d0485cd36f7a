// Command dhcp measures how many boots a second a DHCP server can begin: exchanges of DISCOVER, OFFER, REQUEST and ACK,
// each of another machine, through a relay. The limit is measured in the same run: the same number of datagrams of the
// same size, echoed by a loop in this process.
//
//	dhcp -relay 10.77.200.1 -server 10.77.0.1 -pid N -mac 52:54:00:4d:00:00 -machines 512
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"dim/internal/procstat"
)

type options struct {
	relay, server string
	first         string
	machines      int
	exchanges     int
	window        int
	pid           int
}

func main() {
	var o options
	flag.StringVar(&o.relay, "relay", "10.77.200.1", "address of this machine in the nodes' network: the relay's")
	flag.StringVar(&o.server, "server", "10.77.0.1", "address of the DHCP server")
	flag.StringVar(&o.first, "mac", "52:54:00:4d:00:00", "MAC address of machine 0; the others have those that follow")
	flag.IntVar(&o.machines, "machines", 512, "how many machines ask in turn")
	flag.IntVar(&o.exchanges, "exchanges", 20000, "exchanges in all")
	flag.IntVar(&o.window, "window", 64, "exchanges at once")
	flag.IntVar(&o.pid, "pid", 0, "process of the server, to read its CPU time")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "dhcp:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	mac, err := net.ParseMAC(o.first)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(o.relay), Port: 67})
	if err != nil {
		return err
	}
	defer conn.Close()
	l := load{options: o, conn: conn, to: &net.UDPAddr{IP: net.ParseIP(o.server), Port: 67}, mac: mac,
		open: map[dhcpv4.TransactionID]*exchange{}}
	before := procstat.CPUTime(o.pid)
	begin := time.Now()
	if err := l.run(); err != nil {
		return err
	}
	took, used := time.Since(begin), procstat.CPUTime(o.pid)-before
	limit, err := echo(2*o.exchanges, l.size)
	if err != nil {
		return err
	}
	rate, most := float64(o.exchanges)/took.Seconds(), float64(o.exchanges)/limit.Seconds()
	fmt.Printf("%d exchanges, %d at once, wall %.2fs, server cpu %.2fs, %d sent again\n",
		o.exchanges, o.window, took.Seconds(), used, l.again)
	fmt.Printf("%.0f exchanges/s; limit, %d datagrams of %d bytes echoed: %.0f/s; ratio limit/server %.1f\n",
		rate, 2*o.exchanges, l.size, most, most/rate)
	return nil
}

// exchange is one machine's way to an address.
type exchange struct {
	mac    net.HardwareAddr
	last   []byte // the message that waits for an answer
	sentAt time.Time
}

// load keeps a number of exchanges open until all are done.
type load struct {
	*options
	conn  *net.UDPConn
	to    *net.UDPAddr
	mac   net.HardwareAddr
	open  map[dhcpv4.TransactionID]*exchange
	begun int
	done  int
	again int
	size  int // bytes of the largest message
}

// resend is the time after which a message without an answer is sent again.
const resend = time.Second

func (l *load) run() error {
	buf := make([]byte, 2048)
	for progress := time.Now(); l.done < l.exchanges; {
		for l.begun < l.exchanges && len(l.open) < l.window {
			if err := l.discover(); err != nil {
				return err
			}
		}
		l.conn.SetReadDeadline(time.Now().Add(resend / 4))
		n, err := l.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if time.Since(progress) > 20*resend {
				return fmt.Errorf("no answer for %v after %d exchanges", 20*resend, l.done)
			}
			if err := l.repeat(); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			progress = time.Now()
			err = l.answer(buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *load) discover() error {
	n := l.begun % l.machines
	l.begun++
	mac := append(net.HardwareAddr{}, l.mac...)
	mac[4], mac[5] = mac[4]+byte(n>>8), mac[5]+byte(n) // as bench/run describes them
	m, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithRelay(net.ParseIP(l.relay)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
	if err != nil {
		return err
	}
	for l.open[m.TransactionID] != nil {
		m.TransactionID[0] = byte(rand.Uint32())
	}
	l.open[m.TransactionID] = &exchange{mac: mac}
	return l.send(m)
}

func (l *load) send(m *dhcpv4.DHCPv4) error {
	b := m.ToBytes()
	l.size = max(l.size, len(b))
	x := l.open[m.TransactionID]
	x.last, x.sentAt = b, time.Now()
	_, err := l.conn.WriteTo(b, l.to)
	return err
}

func (l *load) repeat() error {
	for _, x := range l.open {
		if time.Since(x.sentAt) < resend {
			continue
		}
		l.again++
		x.sentAt = time.Now()
		if _, err := l.conn.WriteTo(x.last, l.to); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) answer(b []byte) error {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return err
	}
	l.size = max(l.size, len(b))
	x := l.open[m.TransactionID]
	switch {
	case x == nil: // the answer to a message that was sent twice
		return nil
	case m.MessageType() == dhcpv4.MessageTypeOffer:
		r, err := dhcpv4.NewRequestFromOffer(m, dhcpv4.WithRelay(net.ParseIP(l.relay)))
		if err != nil {
			return err
		}
		return l.send(r)
	case m.MessageType() == dhcpv4.MessageTypeAck:
		delete(l.open, m.TransactionID)
		l.done++
		return nil
	}
	return fmt.Errorf("the answer for %v is %v", x.mac, m.MessageType())
}

// echo returns how long it takes to send n datagrams of so many bytes to a loop that sends them back, one after the
// other.
func echo(n, size int) (time.Duration, error) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	defer server.Close()
	go func() {
		buf := make([]byte, size)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	buf := make([]byte, size)
	begin := time.Now()
	for range n {
		client.SetDeadline(time.Now().Add(time.Second))
		_, err := client.Write(buf)
		if err == nil {
			_, err = client.Read(buf)
		}
		if err != nil {
			return 0, fmt.Errorf("echo: %w", err)
		}
	}
	return time.Since(begin), nil
}
