package dhcpconf

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Parts of a configuration of Kea, by its own keys.
type (
	keaConfig struct {
		Comment         string         `json:"comment"`
		Interfaces      keaInterfaces  `json:"interfaces-config"`
		Leases          map[string]any `json:"lease-database"`
		Authoritative   bool           `json:"authoritative"`
		Identifiers     []string       `json:"host-reservation-identifiers"`
		MatchClientID   bool           `json:"match-client-id"`
		ValidLifetime   uint32         `json:"valid-lifetime"`
		MaxLifetime     uint32         `json:"max-valid-lifetime"`
		DeclinedSeconds int            `json:"decline-probation-period"`
		Options         []keaOption    `json:"option-data"`
		Defs            []keaDef       `json:"option-def"`
		Classes         []keaClass     `json:"client-classes"`
		Subnets         []keaSubnet    `json:"subnet4"`
	}
	keaInterfaces struct {
		Interfaces []string `json:"interfaces"`
	}
	keaOption struct {
		Name   string `json:"name,omitempty"`
		Code   int    `json:"code,omitempty"`
		CSV    *bool  `json:"csv-format,omitempty"`
		Data   string `json:"data"`
		Always bool   `json:"always-send"`
	}
	keaClass struct {
		Name       string      `json:"name"`
		Comment    string      `json:"comment"`
		Test       string      `json:"test,omitempty"`
		Required   bool        `json:"only-if-required,omitempty"`
		NextServer string      `json:"next-server,omitempty"`
		BootFile   string      `json:"boot-file-name,omitempty"`
		Defs       []keaDef    `json:"option-def,omitempty"`
		Options    []keaOption `json:"option-data,omitempty"`
	}
	keaDef struct {
		Name string `json:"name"`
		Code int    `json:"code"`
		Type string `json:"type"`
	}
	keaSubnet struct {
		ID           int              `json:"id"`
		Comment      string           `json:"comment"`
		Subnet       string           `json:"subnet"`
		Required     []string         `json:"require-client-classes,omitempty"`
		Options      []keaOption      `json:"option-data,omitempty"`
		Reservations []keaReservation `json:"reservations"`
	}
	keaReservation struct {
		MAC     string      `json:"hw-address"`
		Address string      `json:"ip-address"`
		Classes []string    `json:"client-classes,omitempty"`
		Options []keaOption `json:"option-data"`
	}
)

// infinite is the lease time of a lease that does not end (RFC 2131 section 3.3).
const infinite = 0xffffffff

// kea writes a configuration of Kea. Leases are found by the hardware address alone (match-client-id), because
// firmware, iPXE and dim-init identify one card in different ways. The classes of a pool are evaluated only for hosts
// of its networks, after their reservation has been found. Leases are kept in memory only, because each address is
// reserved.
func kea(c *config) []byte {
	conf := keaConfig{
		Comment:       fmt.Sprintf(header, c.Name),
		Interfaces:    keaInterfaces{[]string{"*"}},
		Leases:        map[string]any{"type": "memfile", "persist": false},
		Authoritative: true, Identifiers: []string{"hw-address"},
		ValidLifetime: infinite, MaxLifetime: infinite, DeclinedSeconds: 60,
		Defs:    []keaDef{{wordsName, wordsCode, "string"}},
		Options: []keaOption{}, Classes: []keaClass{}, Subnets: []keaSubnet{},
	}
	if c.Domain != "" {
		conf.Options = append(conf.Options, keaNamed("domain-name", c.Domain))
	}
	for _, p := range c.pools {
		conf.Classes = append(conf.Classes, keaClass{Name: p.name, Comment: p.about})
		for _, x := range p.classes {
			conf.Classes = append(conf.Classes, keaClassOf(p, &x))
		}
	}
	for _, n := range c.networks {
		conf.Subnets = append(conf.Subnets, keaSubnetOf(n))
	}
	out, _ := json.MarshalIndent(map[string]any{"Dhcp4": conf}, "", "  ") // such values can always be encoded
	return append(out, '\n')
}

func keaNamed(name, data string) keaOption { return keaOption{Name: name, Data: data, Always: true} }

func keaClassOf(p *pool, x *class) keaClass {
	k := keaClass{
		Name: x.name, Comment: x.Name, Test: fmt.Sprintf("member('%s') and %s", p.name, keaTest(x)), Required: true,
		BootFile: x.BootFile,
	}
	if x.NextServer.IsValid() {
		k.NextServer = x.NextServer.String()
	}
	for _, code := range slices.Sorted(maps.Keys(x.Options)) {
		if code == 43 { // Kea would interpret its content, and leave out the end
			k.Defs = append(k.Defs, keaDef{"vendor-encapsulated-options", 43, "binary"})
		}
		raw := false
		k.Options = append(k.Options,
			keaOption{Code: int(code), CSV: &raw, Data: hexBytes(x.Options[code], ""), Always: true})
	}
	return k
}

// keaTest returns the condition of a class as an expression of Kea.
func keaTest(x *class) string {
	const ipxe = "(option[175].exists or substring(option[77].hex,0,4) == 'iPXE' or " +
		"substring(option[77].hex,1,4) == 'iPXE')"
	if x.IPXE {
		return ipxe
	}
	tests := []string{"not " + ipxe}
	if x.Vendor != "" {
		tests = append(tests, fmt.Sprintf("substring(option[60].hex,0,%d) == '%s'", len(x.Vendor), x.Vendor))
	}
	if x.Silent {
		tests = append(tests, "not option[93].exists")
		if x.Vendor == "" {
			tests = append(tests, "not option[60].exists")
		}
		return strings.Join(tests, " and ")
	}
	var archs []string
	for _, a := range x.Archs {
		archs = append(archs, fmt.Sprintf("substring(option[93].hex,0,2) == 0x%04x", a))
		if said := x.saidByVendor(a); said != "" {
			archs = append(archs, fmt.Sprintf(
				"(not option[93].exists and substring(option[60].hex,0,%d) == '%s')", len(said), said))
		}
	}
	return strings.Join(tests, " and ") + " and (" + strings.Join(archs, " or ") + ")"
}

func keaSubnetOf(n *network) keaSubnet {
	s := keaSubnet{
		ID: n.id, Comment: "network " + n.Name, Subnet: n.Subnet.Masked().String(), Reservations: []keaReservation{},
	}
	for _, p := range n.pools {
		for _, x := range p.classes {
			s.Required = append(s.Required, x.name)
		}
	}
	if n.router.IsValid() {
		s.Options = append(s.Options, keaNamed("routers", n.router.String()))
	}
	if dns := ipv4(n.DNS); len(dns) > 0 {
		s.Options = append(s.Options, keaNamed("domain-name-servers", join(dns)))
	}
	if n.MTU != 0 {
		s.Options = append(s.Options, keaNamed("interface-mtu", fmt.Sprint(n.MTU)))
	}
	for _, h := range n.hosts {
		r := keaReservation{
			MAC: h.mac().String(), Address: h.card.Address.String(),
			Options: []keaOption{keaNamed("host-name", string(h.node.Name))},
		}
		for _, o := range h.settings() {
			r.Options = append(r.Options, keaOption{Name: o.name, Data: o.value, Always: !o.text})
		}
		if h.pool != nil {
			r.Classes = []string{h.pool.name}
		}
		s.Reservations = append(s.Reservations, r)
	}
	return s
}
