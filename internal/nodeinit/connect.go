package nodeinit

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"dim/internal/kmod"
)

// connect gives the boot card its name, link and address. It returns the name and what DHCP said.
func (b *boot) connect(cards []card) (string, Lease) {
	known := b.params.BootMAC != nil
	if known {
		cards[0].name = b.rename(cards[0])
	}
	b.awaitLink(cards)
	c, lease := b.askForAddress(cards)
	b.learn(lease)
	if !known {
		c.name = b.rename(c)
		b.awaitLink([]card{c})
	}
	b.until(stageAddress, "set the address", func() error {
		mtu := lease.MTU
		if b.params.MTU != 0 {
			mtu = b.params.MTU
		}
		return b.Configure(c.name, lease, mtu)
	})
	if err := b.SetHostName(hostName(lease, &b.params)); err != nil {
		b.say("cannot set the host name: %v; going on without it", err)
	}
	b.reports.to = b.params.HTTP
	b.reached(stageAddress, fmt.Sprintf("%s has the address %s from %s", c.name, lease.Address, lease.Server))
	return c.name, lease
}

// learn takes from the lease what the command line did not say.
func (b *boot) learn(l Lease) {
	words, problems := ParseParams(l.Words)
	for _, p := range problems {
		b.say("DHCP option 224: %s: left out", p)
	}
	b.params.fill(words)
	if b.params.Node == "" {
		b.params.Node = l.HostName
	}
}

// rename gives a card its declared name. A card that cannot be renamed keeps its name: better a node with the wrong
// name on its card than no node.
func (b *boot) rename(c card) string {
	name := c.name
	// Drivers may find their cards in the background, and a new card take the name that was free a moment ago.
	for range 5 {
		cards, err := b.Cards()
		if err == nil {
			name, err = b.renameAmong(cards, name)
		}
		if err == nil {
			return name
		}
		b.say("cannot give the boot card its name: %v; it is %s for now", err, name)
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

// awaitLink brings the cards up and waits until one has a carrier, but not for ever: DHCP is tried in any case.
func (b *boot) awaitLink(cards []card) {
	for _, c := range cards {
		b.until(stageLink, "switch on the card "+c.name, func() error { return b.Up(c.name) })
	}
	deadline := time.Now().Add(carrierPatience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		now, err := b.Cards()
		if err == nil {
			if c, ok := linked(now, cards); ok {
				b.reached(stageLink, fmt.Sprintf("the boot card %s (%s) has a link", c.name, c.mac))
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
	b.say("%s asking for an address all the same", problem)
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

// Waits for an answer of a DHCP server grow between these (RFC 2131 section 4.1 has 4 and 64; a lost packet shall not
// cost that much where a boot takes ten seconds).
const (
	firstAsk = 2 * time.Second
	mostAsk  = 32 * time.Second
)

// askForAddress asks on each card in turn until one gets a lease with which the node can go on.
func (b *boot) askForAddress(cards []card) (card, Lease) {
	patience := backoff{next: firstAsk, most: mostAsk, rand: newRand(b.rand.Uint64(), cards[0].mac)}
	began := time.Now()
	for {
		wait := patience.take()
		for _, c := range cards {
			before := time.Now()
			lease, err := b.ask(c, wait, time.Since(began))
			if err == nil {
				return c, lease
			}
			b.say("no address on %s yet: %v; asking again", c.name, err)
			b.reports.add(report{stage: stageAddress, problem: err.Error(), at: time.Now()})
			// What failed at once, such as a card that went down, waits as long as an answer would have.
			time.Sleep(wait - min(wait, time.Since(before)))
		}
	}
}

func (b *boot) ask(c card, patience, elapsed time.Duration) (Lease, error) {
	w, err := b.OpenWire(c.name)
	if err != nil {
		return Lease{}, err
	}
	defer w.Close()
	q := inquiry{wire: w, mac: c.mac, prefer: b.params.Server, rand: b.rand, elapsed: elapsed}
	lease, err := q.ask(patience)
	if err != nil {
		return Lease{}, err
	}
	words, _ := ParseParams(lease.Words)
	words.fill(b.params)
	if words.Root.Path == "" {
		return Lease{}, errors.New("neither the kernel command line (dim.nfs) nor DHCP (option 224) says where the root is")
	}
	return lease, nil
}

func hostName(l Lease, p *Params) string {
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

// moduleOptions joins the image's configuration and the command line, as modprobe does.
func moduleOptions(ix *kmod.Index, p *Params, name string) string {
	return strings.Join(append(append([]string(nil), ix.Options(name)...), p.ModuleOptions[name]...), " ")
}
