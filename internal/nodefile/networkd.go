package nodefile

import (
	"fmt"
	"net/netip"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
)

func (b *Base) findNetworkd() error {
	var err error
	b.version.networkd, err = b.has("usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd",
		"usr/lib/systemd/systemd-udevd", "lib/systemd/systemd-udevd")
	if err != nil {
		return err
	}
	b.version.waitOnline, err = b.has("usr/lib/systemd/system/"+waitOnline, "lib/systemd/system/"+waitOnline)
	return err
}

// waitOnline waits until the cards that networkd manages are up. If there are none, it fails after two minutes.
const waitOnline = "systemd-networkd-wait-online.service"

// networkd returns configuration that makes systemd-networkd leave the boot card alone, and udev keep the name that
// dim-init gave it. Each other interface of the node gets its addresses and, if it is a card whose hardware address is
// known, its declared name.
func (b *Base) networkd(n *cluster.Node) ([]rendered, error) {
	if !b.version.networkd {
		return nil, nil
	}
	all := linksOf(n)
	files := []rendered{
		b.systemdNetwork("00-dim-boot.network", bootNetwork(&all[0])),
		b.systemdNetwork("00-dim-boot.link",
			matchCard(n.Boot(), "OriginalName")+"\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"),
	}
	if b.version.waitOnline {
		text := "# The root comes over the network: it is online.\n[Service]\nExecStart=\nExecStart=/bin/true\n"
		path := "etc/systemd/system/" + waitOnline + ".d/00-dim-boot.conf"
		files = append(files, b.file(builtin.Networkd, path, []byte(text)))
	}
	var infiniband string
	for _, l := range all[1:] {
		if len(l.MAC) == 6 {
			files = append(files, b.systemdNetwork("10-dim-"+l.Name+".link",
				matchCard(l.Interface, "OriginalName")+"\n[Link]\nName="+l.Name+"\nMACAddressPolicy=none\n"))
		}
		if len(l.MAC) >= 8 {
			infiniband += fmt.Sprintf("SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{type}==\"32\", "+
				"ATTR{address}==\"*%v\", NAME=\"%s\"\n", l.MAC[len(l.MAC)-8:], l.Name)
		}
		if text := netdev(&l); text != "" {
			files = append(files, b.systemdNetwork("10-dim-"+l.Name+".netdev", text))
		}
		if text := networkOf(&l); text != "" {
			files = append(files, b.systemdNetwork("10-dim-"+l.Name+".network", text))
		}
	}
	if infiniband != "" {
		// A .link file compares all 20 bytes, of which only the last eight stay (RFC 4391 section 9.1.1).
		files = append(files, b.file(builtin.Networkd, "etc/udev/rules.d/70-dim-ipoib.rules", []byte(infiniband)))
	}
	return files, nil
}

// bootNetwork returns the file about the boot card. If VLANs are on it, networkd has to manage it to make them. It then
// keeps what dim-init has set.
func bootNetwork(l *link) string {
	match := matchCard(l.Interface, "Name")
	if len(l.vlans) == 0 {
		return match + "\n[Link]\nUnmanaged=yes\n"
	}
	// The VLANs have the hardware address of the card, and without udev its type, too.
	match += "Kind=!vlan\n"
	return match + "\n[Network]\nKeepConfiguration=yes\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n" + vlansOn(l)
}

func vlansOn(l *link) string {
	var text strings.Builder
	for _, v := range l.vlans {
		text.WriteString("VLAN=" + v.Name + "\n")
	}
	return text.String()
}

// netdev returns the file that makes a VLAN or a bond (systemd.netdev(5)); "" for a card.
func netdev(l *link) string {
	switch {
	case l.VLAN != 0:
		return fmt.Sprintf("[NetDev]\nName=%s\nKind=vlan\n\n[VLAN]\nId=%d\n", l.Name, l.VLAN)
	case l.Bond != "":
		return fmt.Sprintf("[NetDev]\nName=%s\nKind=bond\n\n[Bond]\nMode=%s\nMIIMonitorSec=%dms\n",
			l.Name, l.Bond, bondMonitor)
	}
	return ""
}

// networkOf returns the file about an interface other than the boot card (systemd.network(5)); "" if there is nothing
// to configure.
func networkOf(l *link) string {
	if l.isUnused() {
		return ""
	}
	text := "[Match]\nName=" + l.Name + "\n\n"
	if len(l.MAC) == 6 && l.bond == nil { // the cards of a bond get one hardware address
		text = matchCard(l.Interface, "Name") + "\n"
	}
	if l.MTU > 0 {
		text += fmt.Sprintf("[Link]\nMTUBytes=%d\n\n", l.MTU)
	}
	if l.connected() {
		text += "[IPoIB]\nMode=connected\n\n"
	}
	text += "[Network]\n"
	if l.bond != nil {
		return text + "Bond=" + l.bond.Name + "\n"
	}
	for _, a := range l.addresses {
		text += fmt.Sprintf("Address=%v\n", a)
	}
	local := "ipv6"
	if len(l.addresses) == 0 {
		local = "no"
	}
	text += "LinkLocalAddressing=" + local + "\nIPv6AcceptRA=no\n" + vlansOn(l)
	for _, a := range l.addresses {
		text += routesOf(l, a)
	}
	return text
}

// routesOf returns the sections about the routes for an address.
func routesOf(l *link, p netip.Prefix) (text string) {
	gateway := l.gateway(p.Addr())
	if l.isDefault(p.Addr()) {
		text += fmt.Sprintf("\n[Route]\nGateway=%v\n", gateway)
	}
	if l.table == 0 {
		return text
	}
	text += fmt.Sprintf("\n[Route]\nDestination=%v\nTable=%d\n", p.Masked(), l.table)
	if p.Addr().Is4() {
		text += "Scope=link\n"
	}
	if gateway.IsValid() {
		text += fmt.Sprintf("\n[Route]\nGateway=%v\nTable=%d\n", gateway, l.table)
	}
	return text + fmt.Sprintf("\n[RoutingPolicyRule]\nFrom=%v\nTable=%d\nPriority=%d\n",
		p.Addr(), l.table, rulePriority)
}

func (b *Base) systemdNetwork(name, text string) rendered {
	return b.file(builtin.Networkd, "etc/systemd/network/"+name, []byte(text))
}

// matchCard returns a [Match] section: by hardware address if it is known, else by name. The type excludes VLANs and
// bridges, which have the hardware address of the card below them.
func matchCard(card *cluster.Interface, nameKey string) string {
	if card.MAC == nil {
		return fmt.Sprintf("[Match]\n%s=%s\n", nameKey, card.Name)
	}
	return fmt.Sprintf("[Match]\nMACAddress=%v\nType=ether\n", card.MAC)
}
