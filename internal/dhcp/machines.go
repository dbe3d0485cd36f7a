package dhcp

import (
	"container/list"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Machine is a client that nobody knows, and what it told about itself when it asked last.
type Machine struct {
	MAC         net.HardwareAddr
	First, Last time.Time
	Count       int    // how often it asked
	Why         string // it was not answered

	VendorClass string
	UserClass   string
	HostName    string
	Archs       []Arch
	Wanted      netip.Addr // the address that it asked for
	Relay       netip.Addr
	Link        string // name of the card on which it was heard
}

// Machines remembers unknown clients, those heard last first, and a bounded number of them: one who sends from ever new hardware
// addresses drives out the oldest. It may be used by any number of goroutines.
type Machines struct {
	max int

	mu    sync.Mutex
	order *list.List // of *Machine, heard last in front
	byMAC map[string]*list.Element
}

// NewMachines makes a Machines that remembers up to limit of them.
func NewMachines(limit int) *Machines {
	return &Machines{max: limit, order: list.New(), byMAC: make(map[string]*list.Element)}
}

// Note remembers that r came at that time and was not answered, and why.
func (m *Machines) Note(r *Request, now time.Time, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byMAC[string(r.MAC)]
	if e == nil {
		e = m.order.PushFront(&Machine{MAC: slices.Clone(r.MAC), First: now})
		m.byMAC[string(r.MAC)] = e
	}
	m.order.MoveToFront(e)
	x := e.Value.(*Machine)
	x.Last, x.Why, x.Wanted, x.Relay, x.Link = now, why, r.Wanted, r.Relay, r.Link.Name
	x.VendorClass, x.UserClass, x.HostName, x.Archs = r.VendorClass, r.UserClass, r.HostName, r.Archs
	x.Count++
	for m.order.Len() > m.max {
		m.remove(m.order.Back())
	}
}

// Forget drops a machine: it is known now.
func (m *Machines) Forget(mac net.HardwareAddr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.byMAC[string(mac)]; e != nil {
		m.remove(e)
	}
}

// List returns the machines, heard last first.
func (m *Machines) List() []Machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Machine, 0, m.order.Len())
	for e := m.order.Front(); e != nil; e = e.Next() {
		out = append(out, *e.Value.(*Machine))
	}
	return out
}

// remove is called with mu held.
func (m *Machines) remove(e *list.Element) {
	m.order.Remove(e)
	delete(m.byMAC, string(e.Value.(*Machine).MAC))
}
