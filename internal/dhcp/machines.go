package dhcp

import (
	"container/list"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Machine is an unknown client, with the facts in its last message.
type Machine struct {
	MAC         net.HardwareAddr
	First, Last time.Time
	Count       int    // its messages
	Reason      string // for which it was not answered

	VendorClass string
	UserClass   string
	HostName    string
	Archs       []Arch
	Wanted      netip.Addr // the address that it asked for
	Relay       netip.Addr
	Network     netip.Addr // an address on its network; zero: that of Interface
	UUID        string     // option 97; "": it sends none
	Port        string     // the circuit and the remote identifier of option 82
	Interface   Interface  // on which its message arrived
}

// Machines is a list of unknown clients, and one of other DHCP servers. It keeps a bounded number of them: a new client
// displaces the one whose last message is oldest. It may be used by any number of goroutines.
type Machines struct {
	max int

	mu    sync.Mutex
	order *list.List // of *Machine: the one with the latest message is in front
	byMAC map[string]*list.Element

	servers []OtherServer // the one with the latest message is at the end
}

// NewMachines returns a Machines that keeps up to limit clients.
func NewMachines(limit int) *Machines {
	return &Machines{max: limit, order: list.New(), byMAC: make(map[string]*list.Element)}
}

// note adds r, which arrived at now and was not answered for that reason.
func (m *Machines) note(r *Request, now time.Time, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byMAC[string(r.MAC)]
	if e == nil {
		e = m.order.PushFront(&Machine{MAC: slices.Clone(r.MAC), First: now})
		m.byMAC[string(r.MAC)] = e
	}
	m.order.MoveToFront(e)
	x := e.Value.(*Machine)
	x.Last, x.Reason, x.Wanted, x.Relay, x.Interface = now, reason, r.Wanted, r.Relay, r.Interface
	x.Network, x.UUID, x.Port = r.Network, r.uuid(), r.relay.port
	x.VendorClass, x.UserClass, x.HostName, x.Archs = r.VendorClass, r.UserClass, r.HostName, r.Archs
	x.Count++
	for m.order.Len() > m.max {
		m.remove(m.order.Back())
	}
}

// forget removes a client, which is known now.
func (m *Machines) forget(mac net.HardwareAddr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byMAC[string(mac)]; e != nil {
		m.remove(e)
	}
}

// List returns the clients, the one with the latest message first.
func (m *Machines) List() []Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Machine, 0, m.order.Len())
	for e := m.order.Front(); e != nil; e = e.Next() {
		out = append(out, *e.Value.(*Machine))
	}
	return out
}

// remove removes a client. The caller holds mu.
func (m *Machines) remove(e *list.Element) {
	m.order.Remove(e)
	delete(m.byMAC, string(e.Value.(*Machine).MAC))
}
