// Command dhcp measures how many boots a second a DHCP server can begin: exchanges of DISCOVER, OFFER, REQUEST and ACK,
// each of another machine, through a relay. The limit is measured in the same run: the same number of datagrams of the
// same size, echoed by a loop in this process.
//
//	dhcp -relay 10.77.200.1 -server 10.77.0.1 -pid N -mac 52:54:00:4d:00:00 -machines 512
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/bootload"
	"dim/internal/procstat"
)

type options struct {
	relay, server string
	first         string
	machines      int
	exchanges     int
	window        int
	pid           int
	await         bool
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
	flag.BoolVar(&o.await, "await", false, "only wait until machine 0 has an address")
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
	server, err := netip.ParseAddr(o.server)
	if err != nil {
		return err
	}
	relay := bootload.NewRelay(conn, netip.AddrPortFrom(server, 67))
	defer relay.Close()
	if o.await {
		return await(relay, mac)
	}
	before := procstat.CPUTime(o.pid)
	begin := time.Now()
	if err := o.ask(relay, mac); err != nil {
		return err
	}
	took, used := time.Since(begin), procstat.CPUTime(o.pid)-before
	size := int(relay.Size.Load())
	limit, err := echo(2*o.exchanges, size)
	if err != nil {
		return err
	}
	rate, most := float64(o.exchanges)/took.Seconds(), float64(o.exchanges)/limit.Seconds()
	fmt.Printf("%d exchanges, %d at once, wall %.2fs, server cpu %.2fs, %d sent again\n",
		o.exchanges, o.window, took.Seconds(), used, relay.Again.Load())
	fmt.Printf("%.0f exchanges/s; limit, %d datagrams of %d bytes echoed: %.0f/s; ratio limit/server %.1f\n",
		rate, 2*o.exchanges, size, most, most/rate)
	return nil
}

// await asks again and again until a server that is being started answers, a minute at most.
func await(relay *bootload.Relay, mac net.HardwareAddr) (err error) {
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err = relay.Boot(ctx, mac)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// ask lets the machines ask, o.window of them at a time.
func (o *options) ask(relay *bootload.Relay, first net.HardwareAddr) error {
	var g errgroup.Group
	g.SetLimit(o.window)
	for i := range o.exchanges {
		n := i % o.machines
		mac := append(net.HardwareAddr{}, first...)
		mac[4], mac[5] = mac[4]+byte(n>>8), mac[5]+byte(n) // as bench/run describes them
		g.Go(func() error {
			_, err := relay.Boot(context.Background(), mac)
			return err
		})
	}
	return g.Wait()
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
