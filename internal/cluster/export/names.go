package export

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster"
)

// hosts writes hosts(5).
func hosts(w *writer) {
	w.header("#")
	w.printf("127.0.0.1 localhost\n")
	for name, at := range w.names {
		if full := w.full(name); full != name {
			name = full + " " + name
		}
		w.printf("%s %s\n", at, name)
	}
}

// ethers writes ethers(5), with the cards whose hardware address is known.
func ethers(w *writer) {
	w.header("#")
	for _, m := range w.machines() {
		for name, card := range cluster.HostNames(m.name, m.cards) {
			if len(card.MAC) == 6 {
				w.printf("%s %s\n", card.MAC, name)
			}
		}
	}
}

// sshConfig writes ssh_config(5).
func sshConfig(w *writer) {
	w.header("#")
	for _, m := range w.machines() {
		if len(m.cards) == 0 || !m.cards[0].Address.IsValid() {
			continue
		}
		names := m.name
		if full := w.full(m.name); full != m.name {
			names += " " + full
		}
		w.printf("Host %s\n  HostName %s\n  HostKeyAlias %s\n", names, m.cards[0].Address, m.name)
	}
}

// HostKey is a public key of the ssh server of a node, in the words of known_hosts.
type HostKey struct{ Node, Type, Key string }

// KnownHosts returns ssh's list of known hosts (sshd(8)). Each node has all its names and addresses.
func KnownHosts(c *cluster.Cluster, keys []HostKey) []byte {
	s := &source{Cluster: c}
	names := map[string]string{}
	for _, m := range s.machines() {
		names[m.name] = strings.Join(s.allNames(&m), ",")
	}
	w := &writer{source: s}
	w.header("#")
	for _, k := range keys {
		if hosts := names[k.Node]; hosts != "" {
			w.printf("%s %s %s\n", hosts, k.Type, k.Key)
		}
	}
	return w.Bytes()
}

// allNames returns the names and addresses of all cards of a machine.
func (s *source) allNames(m *machine) (list []string) {
	for name, card := range cluster.HostNames(m.name, m.cards) {
		if !card.Address.IsValid() {
			continue
		}
		list = append(list, name)
		if full := s.full(name); full != name {
			list = append(list, full)
		}
		for _, at := range []netip.Addr{card.Address, card.Address6} {
			if at.IsValid() {
				list = append(list, at.String())
			}
		}
	}
	return list
}

// timers are those of a zone that a secondary server follows (RFC 1912 section 2.2), and the time to live of all
// records. A change of the description is seen within the last one.
const timers = "3600 600 1209600 300"

// bind writes a zone with the names, one for the addresses of each network, and the statements of named.conf for them
// (RFC 1035 section 5).
func bind(s *source) ([]File, error) {
	if s.Domain == "" {
		return nil, errors.New("export: zones need a domain: <cluster domain=\"…\"> in the description")
	}
	var zones []zone
	forward := zone{name: s.Domain}
	for name, at := range s.names {
		kind := "A"
		if at.Is6() {
			kind = "AAAA"
		}
		forward.add("%s %s %s", name, kind, at)
		origin, rest := Reverse(at)
		i := slices.IndexFunc(zones, func(z zone) bool { return z.name == origin })
		if i < 0 {
			i, zones = len(zones), append(zones, zone{name: origin})
		}
		zones[i].add("%s PTR %s.%s.", rest, name, s.Domain)
	}
	zones = append([]zone{forward}, zones...)
	files := []File{s.file("named.conf.dim", func(w *writer) {
		w.header("//")
		for _, z := range zones {
			w.printf("zone %q { type master; file %q; };\n", z.name, z.file())
		}
	})}
	for _, z := range zones {
		files = append(files, s.file(z.file(), func(w *writer) {
			w.header(";")
			server := w.full(string(w.Servers[0].Name)) + "."
			w.printf("$TTL 300\n@ SOA %s root.%s. %d %s\n@ NS %[1]s\n", server, w.Domain, w.serial, timers)
			w.printf("%s\n", strings.Join(z.records, "\n"))
		}))
	}
	return files, nil
}

// zone is one zone of a name server.
type zone struct {
	name    string
	records []string
}

func (z *zone) file() string { return "db." + z.name }

func (z *zone) add(format string, args ...any) {
	z.records = append(z.records, fmt.Sprintf(format, args...))
}

// Reverse returns the zone with the pointer of an address, and its name in the zone. There is a zone for each 256 IPv4
// addresses, and for each /64 of IPv6 addresses (RFC 3596 section 2.5).
func Reverse(at netip.Addr) (origin, rest string) {
	var labels []string
	suffix, own := "in-addr.arpa", 1
	if at.Is4() {
		labels = strings.Split(at.String(), ".")
	} else {
		labels = strings.Split(hex.EncodeToString(at.AsSlice()), "")
		suffix, own = "ip6.arpa", 16
	}
	slices.Reverse(labels)
	return strings.Join(labels[own:], ".") + "." + suffix, strings.Join(labels[:own], ".")
}
