package dns

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl is how many seconds other programs may keep a record, or that there is none.
const ttl = 60

// Zones are the names for which a server is the authority. They must not be changed while a server uses them.
type Zones struct {
	serial  uint32
	servers []dnsmessage.Name
	apexes  map[string]dnsmessage.Name // of zones, by their names
	names   map[string]*records        // by name; one without records has names below it
}

// records are what one name has.
type records struct {
	addresses []netip.Addr
	pointers  []dnsmessage.Name
}

// NewZones returns zones without names. servers are the full names of the servers that answer for them, and serial is
// a number that grows with each change.
func NewZones(serial uint32, servers ...string) (*Zones, error) {
	z := &Zones{serial: serial, apexes: map[string]dnsmessage.Name{}, names: map[string]*records{}}
	for _, s := range servers {
		name, err := fullName(s)
		if err != nil {
			return nil, err
		}
		z.servers = append(z.servers, name)
	}
	if len(z.servers) == 0 {
		return nil, fmt.Errorf("make zones: no server answers for them")
	}
	return z, nil
}

// AddZone adds a zone.
func (z *Zones) AddZone(name string) error {
	full, err := fullName(name)
	if err == nil {
		z.apexes[key(name)] = full
		z.at(name)
	}
	return err
}

// AddAddress adds an address of a name in one of the zones.
func (z *Zones) AddAddress(name string, a netip.Addr) error {
	if _, err := fullName(name); err != nil {
		return err
	}
	r := z.at(name)
	r.addresses = append(r.addresses, a)
	return nil
}

// AddPointer adds a name to which a name in a reverse zone points.
func (z *Zones) AddPointer(name, target string) error {
	if _, err := fullName(name); err != nil {
		return err
	}
	full, err := fullName(target)
	if err != nil {
		return err
	}
	r := z.at(name)
	r.pointers = append(r.pointers, full)
	return nil
}

// at returns the records of a name. It makes them, and those of the names above it in its zone (RFC 8020).
func (z *Zones) at(name string) *records {
	name = key(name)
	if r := z.names[name]; r != nil {
		return r
	}
	r := &records{}
	z.names[name] = r
	if _, apex := z.apexes[name]; !apex {
		if _, above, ok := strings.Cut(name, "."); ok && z.zoneOf(above) != "" {
			z.at(above)
		}
	}
	return r
}

// zoneOf returns the zone that a name is in; "": it is in none.
func (z *Zones) zoneOf(name string) string {
	for {
		if _, ok := z.apexes[name]; ok {
			return name
		}
		_, above, ok := strings.Cut(name, ".")
		if !ok {
			return ""
		}
		name = above
	}
}

// key returns a name as Zones knows it.
func key(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// fullName returns a name in the form of messages.
func fullName(name string) (dnsmessage.Name, error) {
	full, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return full, fmt.Errorf("name %q: %w", name, err)
	}
	for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return full, fmt.Errorf("name %q: a label of 1 to 63 bytes is needed between dots", name)
		}
	}
	return full, nil
}
