package cluster

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// listener is one port on which a server will listen.
type listener struct {
	server   *Server
	what     string // the attribute that sets it
	protocol string
	port     uint16
	at       place
}

// servers makes the servers of a <server> or <servers>.
func (b *builder) servers(it *item) {
	count := 1
	var slots []string
	if it.element.name == "servers" {
		slots = []string{"i"}
		v, ok := it.get("count")
		count, _ = strconv.Atoi(v.text)
		if ok && (count == 0 || count > maxServers-len(b.cluster.Servers)) {
			b.add(v.at, "count=%q: want 1 to %d servers in all", v.text, maxServers)
			b.uncertain = true
			return
		}
	}
	roles := b.roles(it)
	name, ok := it.get("name")
	var named pattern
	if ok {
		named, ok = b.compile(name, slots)
	}
	if !ok {
		b.uncertain = true
		return
	}
	ports := b.ports(it)
	dhcp, _ := it.get("dhcp")
	cards := b.cardPatterns(it, slots)
	for i := range count {
		values := []int64{int64(i + 1)}
		text, ok := b.expand(named, name, values)
		if !ok {
			b.uncertain = true
			return
		}
		s := &Server{Name: ServerName(text), Roles: roles, Ports: ports, DHCP: dhcp.text != "off"}
		c := claim{server: s, at: name.at}
		if !b.claimHost(text, c) {
			b.uncertain = true
			continue
		}
		b.cluster.Servers = append(b.cluster.Servers, s)
		for _, cp := range cards {
			b.serverCard(s, cp, values)
		}
		b.listen(it, s)
	}
}

func (b *builder) roles(it *item) []Role {
	var roles []Role
	v, ok := it.get("roles")
	b.uncertain = b.uncertain || !ok
	for _, text := range strings.Fields(v.text) {
		r := Role(text)
		if (&Server{Roles: roles}).Has(r) {
			b.add(v.at, "role %q is given twice", text)
			continue
		}
		roles = append(roles, r)
	}
	return roles
}

func (b *builder) ports(it *item) Ports {
	p := Ports{NFS: 2049, HTTP: 80, TFTP: 69, API: 7117}
	for name, port := range map[string]*uint16{"nfs-port": &p.NFS, "http-port": &p.HTTP, "tftp-port": &p.TFTP, "api-port": &p.API} {
		v, ok := it.get(name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(v.text, 10, 16)
		if err != nil {
			b.add(v.at, "%s=%q: want 1 to 65535", name, v.text)
			continue
		}
		*port = uint16(n)
	}
	return p
}

// serverCard adds a card to s. Servers may share an address: what they must not share is a port.
func (b *builder) serverCard(s *Server, cp *cardPattern, values []int64) {
	if b.tooManyCards(cp) {
		return
	}
	c := claim{server: s, at: cp.item.at}
	card := &Interface{Name: cp.name, Network: cp.network}
	if cp.address != nil {
		if text, ok := b.expand(cp.address, cp.addressValue, values); ok {
			card.Address, _ = b.addressIn(cp.addressValue.at, text, cp.network, c.String())
		}
	}
	if cp.mac != nil {
		if text, ok := b.expand(cp.mac, cp.macValue, values); ok {
			card.MAC = b.mac(cp.macValue.at, text, claim{server: s, at: cp.macValue.at})
		}
	}
	if card.Address.IsValid() {
		c.at = cp.addressValue.at
		if other, taken := b.addresses[card.Address]; taken && other.server == s {
			b.add(c.at, "%v: two cards have address %v", c, card.Address)
		}
		b.addresses[card.Address] = c
	}
	s.Interfaces = append(s.Interfaces, card)
}

// listen checks that no two servers, nor two services of one, listen on the same address and port.
func (b *builder) listen(it *item, s *Server) {
	if b.listening == nil {
		b.listening = map[netip.Addr][]listener{}
	}
	wanted := []listener{{what: "http-port", protocol: "TCP", port: s.Ports.HTTP}, {what: "api-port", protocol: "TCP", port: s.Ports.API}}
	if s.Has(RoleImage) {
		wanted = append(wanted, listener{what: "nfs-port", protocol: "TCP", port: s.Ports.NFS}, listener{what: "tftp-port", protocol: "UDP", port: s.Ports.TFTP})
		if s.DHCP {
			wanted = append(wanted, listener{what: "dhcp", protocol: "UDP", port: 67})
		}
	}
	for _, card := range s.Interfaces {
		if !card.Address.IsValid() {
			continue
		}
		for _, w := range wanted {
			v, _ := it.get(w.what)
			w.server, w.at = s, v.at
			b.checkListener(card.Address, w)
			b.listening[card.Address] = append(b.listening[card.Address], w)
		}
	}
}

func (b *builder) checkListener(a netip.Addr, w listener) {
	for _, other := range b.listening[a] {
		if other.protocol != w.protocol || other.port != w.port {
			continue
		}
		who := "its own " + other.what
		if other.server != w.server {
			who = fmt.Sprintf("%s of server %s", other.what, other.server.Name)
		}
		b.add(w.at, "server %s: "+w.what+": %s port %d on %v is taken by %s", w.server.Name, w.protocol, w.port, a, who)
		return
	}
}

func (b *builder) checkServers(root *item) {
	if b.uncertain {
		return
	}
	for _, role := range []Role{RoleHead, RoleImage} {
		found := false
		for _, s := range b.cluster.Servers {
			found = found || s.Has(role)
		}
		if !found {
			b.add(root.at, "no server has the role %q", role)
		}
	}
}
