package cluster

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// listener is one port on which a server will listen.
type listener struct {
	server    *Server
	attribute string // the one that sets it
	protocol  string
	port      uint16
	at        location
}

// servers makes the servers of a <server> or <servers>.
func (b *builder) servers(it *item) {
	count := 1
	var variables []string
	if it.element.name == "servers" {
		variables = []string{"i"}
		v, ok := it.get("count")
		count, _ = strconv.Atoi(v.text)
		if ok && (count == 0 || count > maxServers-len(b.cluster.Servers)) {
			b.add(v.at, "count=%q: must be 1 to %d servers in all", v.text, maxServers)
			b.serversIncomplete = true
			return
		}
	}
	roles := b.roles(it)
	name, ok := it.get("name")
	var namePattern pattern
	if ok {
		namePattern, ok = b.compile(name, variables)
	}
	if !ok {
		b.serversIncomplete = true
		return
	}
	ports := b.ports(it)
	dhcp, _ := it.get("dhcp")
	dns, _ := it.get("dns")
	if dns.text == "on" && b.cluster.Domain == "" {
		b.add(dns.at, "dns=\"on\": the cluster has no domain").withHint("write domain=\"…\" of <cluster>")
	}
	rate := uint64(0)
	if v, ok := it.get("pull-rate"); ok {
		rate = b.size(v)
	}
	cards := b.cardPatterns(it, variables)
	for i := range count {
		values := []int64{int64(i + 1)}
		text, ok := b.expand(namePattern, name, values)
		if !ok {
			b.serversIncomplete = true
			return
		}
		s := &Server{
			Name: ServerName(text), Roles: roles, Ports: ports, DHCP: dhcp.text != "off", DNS: dns.text == "on",
			PullRate: rate,
		}
		c := claim{server: s, at: name.at}
		if !b.claimHost(text, c) {
			b.serversIncomplete = true
			continue
		}
		b.cluster.Servers = append(b.cluster.Servers, s)
		for _, cp := range cards {
			b.serverCard(s, cp, values)
		}
		b.addListeners(it, s)
	}
}

// roles returns the roles of a <server> or <servers>.
func (b *builder) roles(it *item) []Role {
	var roles []Role
	v, ok := it.get("roles")
	b.serversIncomplete = b.serversIncomplete || !ok
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

// ports returns the ports of a <server> or <servers>.
func (b *builder) ports(it *item) Ports {
	p := Ports{NFS: 2049, HTTP: 80, TFTP: 69, API: 7117, Etcd: 7118}
	attributes := map[string]*uint16{
		"nfs-port": &p.NFS, "http-port": &p.HTTP, "tftp-port": &p.TFTP, "api-port": &p.API,
		"etcd-port": &p.Etcd,
	}
	for name, port := range attributes {
		v, ok := it.get(name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(v.text, 10, 16)
		if err != nil {
			b.add(v.at, "%s=%q: must be 1 to 65535", name, v.text)
			continue
		}
		*port = uint16(n)
	}
	return p
}

// serverCard adds an interface to s. Servers may share an address, but not a port.
func (b *builder) serverCard(s *Server, cp *cardPattern, values []int64) {
	if b.tooManyCards(cp) {
		return
	}
	c := claim{server: s, at: cp.item.at}
	card := &Interface{Name: cp.name, Network: cp.network}
	if p := cp.address.pattern; p != nil {
		if text, ok := b.expand(p, cp.address.value, values); ok {
			card.Address, _ = b.addressIn(cp.address.value.at, text, cp.network, c.String())
		}
	}
	if p := cp.mac.pattern; p != nil {
		if text, ok := b.expand(p, cp.mac.value, values); ok {
			card.MAC = b.mac(cp.mac.value.at, text, claim{server: s, at: cp.mac.value.at})
		}
	}
	if card.Address.IsValid() {
		c.at = cp.address.value.at
		if other, taken := b.addresses[card.Address]; taken && other.server == s {
			b.add(c.at, "%v: two cards have address %v", c, card.Address)
		}
		b.addresses[card.Address] = c
	}
	s.Interfaces = append(s.Interfaces, card)
}

// addListeners checks that no two servers, and no two services of one server, listen on the same address and port.
func (b *builder) addListeners(it *item, s *Server) {
	if b.listeners == nil {
		b.listeners = map[netip.Addr][]listener{}
	}
	wanted := []listener{
		{attribute: "http-port", protocol: "TCP", port: s.Ports.HTTP},
		{attribute: "api-port", protocol: "TCP", port: s.Ports.API},
	}
	if s.DNS {
		wanted = append(wanted,
			listener{attribute: "dns", protocol: "TCP", port: 53},
			listener{attribute: "dns", protocol: "UDP", port: 53})
	}
	if s.Has(RoleHead) {
		etcd := []listener{{attribute: "etcd-port", protocol: "TCP", port: s.Ports.Etcd}}
		b.etcd = append(b.etcd, func() { b.listen(it, s, etcd) })
	}
	if s.Has(RoleImage) {
		wanted = append(wanted,
			listener{attribute: "nfs-port", protocol: "TCP", port: s.Ports.NFS},
			listener{attribute: "tftp-port", protocol: "UDP", port: s.Ports.TFTP})
		if s.DHCP {
			wanted = append(wanted, listener{attribute: "dhcp", protocol: "UDP", port: 67})
		}
	}
	b.listen(it, s, wanted)
}

// listen notes what a server listens on.
func (b *builder) listen(it *item, s *Server, wanted []listener) {
	for _, card := range s.Interfaces {
		if !card.Address.IsValid() {
			continue
		}
		for _, w := range wanted {
			v, _ := it.get(w.attribute)
			w.server, w.at = s, v.at
			b.checkListener(card.Address, w)
			b.listeners[card.Address] = append(b.listeners[card.Address], w)
		}
	}
}

// checkListener reports w if another listener uses its port on address a.
func (b *builder) checkListener(a netip.Addr, w listener) {
	for _, other := range b.listeners[a] {
		if other.protocol != w.protocol || other.port != w.port {
			continue
		}
		user := "its own " + other.attribute
		if other.server != w.server {
			user = fmt.Sprintf("%s of server %s", other.attribute, other.server.Name)
		}
		format := "server %s: " + w.attribute + ": %s port %d on %v is already used by %s"
		b.add(w.at, format, w.server.Name, w.protocol, w.port, a, user)
		return
	}
}

// checkServers reports roles that no server has, and ports of several heads that are used twice.
func (b *builder) checkServers(root *item) {
	if len(b.etcd) > 1 {
		for _, note := range b.etcd {
			note()
		}
	}
	if b.serversIncomplete {
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
