package nodeinit

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"dim/internal/kmod"
)

// connect gives the boot card its name, link and address. It returns the name and the lease.
func (b *boot) connect(cards []card) (string, lease) {
	known := b.params.BootMAC != nil
	if known {
		cards[0].name = b.rename(cards[0])
	}
	b.awaitLink(cards)
	c, l := b.requestLease(cards)
	b.applyLease(l)
	if !known {
		c.name = b.rename(c)
		b.awaitLink([]card{c})
	}
	b.retry(stageAddress, "set the address", func() error {
		mtu := l.MTU
		if b.params.MTU != 0 {
			mtu = b.params.MTU
		}
		return b.Configure(c.name, l, mtu)
	})
	if b.params.IPv6.IsValid() {
		if err := b.AddIPv6(c.name, b.params.IPv6, b.params.Router6); err != nil {
			b.logf("cannot set the IPv6 address: %v; going on without it", err)
		}
	}
	if err := b.SetHostName(hostName(l, &b.params)); err != nil {
		b.logf("cannot set the host name: %v; going on without it", err)
	}
	b.reports.to = b.params.HTTP
	b.finish(stageAddress, fmt.Sprintf("%s has the address %s from %s", c.name, l.Address, l.Server))
	return c.name, l
}

// applyLease takes from the lease the parameters that the command line lacks.
func (b *boot) applyLease(l lease) {
	p, problems := parseParams(l.Words)
	for _, problem := range problems {
		b.logf("DHCP option 224: %s: ignored", problem)
	}
	b.params.fill(p)
	if b.params.Node == "" {
		b.params.Node = l.HostName
	}
}

// rename gives a card its declared name and returns the name that it has then. A card that cannot be renamed keeps its
// name: a wrong name is better than no node.
func (b *boot) rename(c card) string {
	name := c.name
	// Drivers may find cards in the background, and a new card may take a name that was free a moment ago.
	for range 5 {
		cards, err := b.Cards()
		if err == nil {
			name, err = b.renameAmong(cards, name)
		}
		if err == nil {
			return name
		}
		b.logf("cannot give the boot card its name: %v; it is %s for now", err, name)
		time.Sleep(100 * time.Millisecond)
	}
	return name
}

func (b *boot) renameAmong(cards []card, name string) (string, error) {
	for _, step := range renames(cards, name, b.params.Interface) {
		if err := b.Rename(step.from, step.to); err != nil {
			return name, fmt.Errorf("rename %s to %s: %w", step.from, step.to, err)
		}
		if step.from == name {
			name = step.to
		}
	}
	return name, nil
}

// awaitLink brings the cards up and waits until one has a carrier, for carrierTimeout at most: DHCP is tried in any
// case.
func (b *boot) awaitLink(cards []card) {
	for _, c := range cards {
		b.retry(stageLink, "switch on the card "+c.name, func() error { return b.Up(c.name) })
	}
	deadline := time.Now().Add(carrierTimeout)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		now, err := b.Cards()
		if err == nil {
			if c, ok := linked(now, cards); ok {
				b.finish(stageLink, c.linkText())
				return
			}
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(pause)
	}
	var names []string
	for _, c := range cards {
		names = append(names, c.name)
	}
	problem := strings.Join(names, ", ") + " has no link: cable, switch port?"
	b.logf("%s asking for an address all the same", problem)
	b.reports.add(report{stage: stageLink, problem: problem, at: time.Now()})
}

// linked returns the first of cards that has a carrier now.
func linked(now, cards []card) (card, bool) {
	for _, c := range cards {
		for _, n := range now {
			if n.name == c.name && n.carrier {
				return n, true
			}
		}
	}
	return card{}, false
}

// The wait for a DHCP server grows between these. RFC 2131 section 4.1 has 4 and 64 s; a lost packet must not cost that
// much where a boot takes ten seconds.
const (
	shortestWait = 2 * time.Second
	longestWait  = 32 * time.Second
)

// requestLease asks on each card in turn until one gets a lease with which the node can go on.
func (b *boot) requestLease(cards []card) (card, lease) {
	timeout := backoff{interval: shortestWait, longest: longestWait, rand: newRand(b.rand.Uint64(), cards[0].mac)}
	began := time.Now()
	for {
		wait := timeout.next()
		for _, c := range cards {
			before := time.Now()
			l, err := b.requestLeaseOn(c, wait, time.Since(began))
			if err == nil {
				return c, l
			}
			b.logf("no address on %s yet: %v; asking again", c.name, err)
			b.reports.add(report{stage: stageAddress, problem: err.Error(), at: time.Now()})
			// What failed at once, such as a card that went down, waits as long as an answer would have.
			time.Sleep(wait - min(wait, time.Since(before)))
		}
	}
}

func (b *boot) requestLeaseOn(c card, timeout, elapsed time.Duration) (lease, error) {
	conn, err := b.OpenPacketConn(c.name)
	if err != nil {
		return lease{}, err
	}
	defer conn.Close()
	client := dhcpClient{conn: conn, mac: c.mac, preferred: b.params.Server, rand: b.rand, elapsed: elapsed}
	l, err := client.request(timeout)
	if err != nil {
		return lease{}, err
	}
	p, _ := parseParams(l.Words)
	p.fill(b.params)
	if p.Root.Path == "" {
		return lease{}, errors.New(
			"neither the kernel command line (dim.nfs) nor DHCP (option 224) says where the root is")
	}
	return l, nil
}

func hostName(l lease, p *params) string {
	name := l.HostName
	if name == "" {
		name = p.Node
	}
	if name == "" {
		name = "localhost"
	}
	short, _, _ := strings.Cut(name, ".")
	return short
}

// moduleOptions joins the options of the image's configuration and of the command line, as modprobe does.
func moduleOptions(ix *kmod.Index, p *params, name string) string {
	return strings.Join(append(append([]string(nil), ix.Options(name)...), p.ModuleOptions[name]...), " ")
}
