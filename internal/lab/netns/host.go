package netns

import (
	"errors"
	"net/netip"
)

// Host is the network of one machine: a namespace with one card, whose cable leads to the bridge of a Net.
type Host struct {
	*Net
	of   *Net
	port string // the cable's end at the bridge
}

// card is the name of the card in every Host.
const card = "eth0"

// Direction is a direction on a host's cable.
type Direction int

// The directions.
const (
	FromHost Direction = iota
	ToHost
)

// NewHost makes a host with the addresses addr. The names of the hosts of a Net have at most ten bytes.
func (n *Net) NewHost(name string, addr ...netip.Prefix) (*Host, error) {
	h := &Host{Net: &Net{Name: n.Name + "-" + name}, of: n, port: "port-" + name}
	_ = ip("netns", "del", h.Name) // one that an earlier run left
	if err := ip("netns", "add", h.Name); err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error {
			return n.ip("link", "add", h.port, "type", "veth", "peer", "name", card, "netns", h.Name)
		},
		func() error { return n.ip("link", "set", h.port, "master", bridge, "up") },
		func() error { return h.ip("link", "set", "lo", "up") },
		func() error { return h.ip("link", "set", card, "up") },
	}
	for _, a := range addr {
		steps = append(steps, func() error { return h.ip("addr", "add", a.String(), "dev", card) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(err, h.Net.Close()) // the cable is possibly that of another host
		}
	}
	return h, nil
}

// Close removes the host. Its name is free at once: the cable is removed first, because the kernel removes the cards of
// a namespace only some time after the namespace.
func (h *Host) Close() error {
	return errors.Join(h.of.ip("link", "del", h.port), h.Net.Close())
}

// Cut lets no packet pass in one direction. The sender does not notice.
func (h *Host) Cut(d Direction) error {
	// A queue for packets of one byte drops all that it is given.
	return h.queue(d, "tbf", "rate", "8bit", "burst", "1", "limit", "1")
}

// Slow lets bits pass at a rate such as "10mbit" in one direction.
func (h *Host) Slow(d Direction, rate string) error {
	return h.queue(d, "tbf", "rate", rate, "burst", "64k", "limit", "512k")
}

// Mend ends what Cut and Slow do in both directions.
func (h *Host) Mend() error {
	var errs []error
	for _, d := range []Direction{FromHost, ToHost} {
		errs = append(errs, h.queue(d, "noqueue"))
	}
	return errors.Join(errs...)
}

func (h *Host) queue(d Direction, args ...string) error {
	ns, dev := h.Net, card
	if d == ToHost {
		ns, dev = h.of, h.port
	}
	return ns.tc(append([]string{"qdisc", "replace", "dev", dev, "root"}, args...)...)
}
