package nodefile

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
)

func (b *Base) findNetworkManager() (err error) {
	b.version.networkManager, err = b.has("etc/NetworkManager")
	return err
}

// networkManager returns configuration that makes NetworkManager leave the boot card alone. It must leave resolv.conf
// alone, too: since it does not manage the card, it knows no name servers, and would empty the file. Each other
// interface of the node gets a connection.
func (b *Base) networkManager(n *cluster.Node) ([]rendered, error) {
	if !b.version.networkManager {
		return nil, nil
	}
	match := "interface-name:" + n.Boot().Name
	if mac := n.Boot().MAC; mac != nil {
		match = "mac:" + mac.String()
	}
	// One of the two settings is enough. The first has no effect if another file sets the same key, and versions before
	// 1.12 do not know the second.
	text := fmt.Sprintf("# The root of node %s comes through %s.\n[main]\ndns=none\n\n"+
		"[keyfile]\nunmanaged-devices+=%s\n\n[device-dim-boot]\nmatch-device=%[3]s\nmanaged=0\n",
		n.Name, n.Boot().Name, match)
	files := []rendered{b.file(builtin.NetworkManager, "etc/NetworkManager/conf.d/00-dim-boot.conf", []byte(text))}
	all := linksOf(n)
	for _, l := range all[1:] {
		if l.isUnused() {
			continue
		}
		if l.VLAN != 0 && l.On[0] == n.Boot() {
			continue // NetworkManager manages no VLAN of a card that it does not manage
		}
		path := "etc/NetworkManager/system-connections/dim-" + l.Name + ".nmconnection"
		r := b.file(builtin.NetworkManager, path, connection(&l))
		r.Mode = 0o600 // NetworkManager ignores connections that others may read
		files = append(files, r)
	}
	// Where there is ifupdown, it makes them: NetworkManager leaves alone what is in /etc/network/interfaces.
	if text := vlansOfBoot(all); text != "" && !b.version.ifupdown {
		path := "etc/systemd/system/NetworkManager.service.d/00-dim-boot.conf"
		files = append(files, b.file(builtin.NetworkManager, path, []byte(text)))
	}
	return files, nil
}

// vlansOfBoot returns a part of NetworkManager's unit that makes the VLANs on the boot card; "" if there are none. Each
// command may fail: when NetworkManager is started again they are there already.
func vlansOfBoot(all []link) string {
	var text strings.Builder
	for _, l := range all {
		if l.VLAN == 0 || l.On[0] != all[0].Interface {
			continue
		}
		commands := l.create()
		if l.MTU > 0 {
			commands = append(commands, fmt.Sprintf("ip link set %s mtu %d", l.Name, l.MTU))
		}
		commands = append(commands, fmt.Sprintf("ip link set %s up", l.Name))
		for _, a := range l.addresses {
			commands = append(commands, fmt.Sprintf("ip address add %v dev %s", a, l.Name))
		}
		for _, command := range append(commands, l.routes()...) {
			fmt.Fprintf(&text, "ExecStartPre=-%s\n", command)
		}
	}
	if text.Len() == 0 {
		return ""
	}
	return "# NetworkManager makes no VLAN on a card that it leaves alone.\n[Service]\n" + text.String()
}

// connection returns the connection of an interface (nm-settings-keyfile(5)).
func connection(l *link) []byte {
	var text bytes.Buffer
	kind := "ethernet"
	switch {
	case l.VLAN != 0:
		kind = "vlan"
	case l.Bond != "":
		kind = "bond"
	case l.InfiniBand:
		kind = "infiniband"
	}
	fmt.Fprintf(&text, "[connection]\nid=dim-%s\ntype=%s\n", l.Name, kind)
	if l.MAC == nil {
		fmt.Fprintf(&text, "interface-name=%s\n", l.Name)
	}
	if l.bond != nil {
		fmt.Fprintf(&text, "master=%s\nslave-type=bond\n", l.bond.Name)
	}
	switch kind {
	case "vlan":
		fmt.Fprintf(&text, "\n[vlan]\nid=%d\nparent=%s\n", l.VLAN, l.On[0].Name)
	case "bond":
		fmt.Fprintf(&text, "\n[bond]\nmode=%s\nmiimon=%d\n", l.Bond, bondMonitor)
	case "infiniband":
		mode := "datagram"
		if l.connected() {
			mode = "connected"
		}
		fmt.Fprintf(&text, "\n[infiniband]\ntransport-mode=%s\n", mode)
	}
	if kind == "ethernet" || kind != "infiniband" && l.MTU > 0 {
		text.WriteString("\n[ethernet]\n")
	}
	if l.MAC != nil {
		fmt.Fprintf(&text, "mac-address=%s\n", strings.ToUpper(fullAddress(l.MAC).String()))
	}
	if l.MTU > 0 {
		fmt.Fprintf(&text, "mtu=%d\n", l.MTU)
	}
	if l.bond != nil {
		return text.Bytes()
	}
	for _, f := range []struct {
		section, without string
		is4              bool
	}{{"ipv4", "disabled", true}, {"ipv6", "link-local", false}} {
		fmt.Fprintf(&text, "\n[%s]\n", f.section)
		writeAddresses(&text, l, f.is4, f.without)
	}
	return text.Bytes()
}

// fullAddress returns a hardware address of 20 bytes in place of the GUID of a port. NetworkManager compares only the
// last eight (libnm-core, nm_utils_hwaddr_matches).
func fullAddress(mac net.HardwareAddr) net.HardwareAddr {
	if len(mac) == 8 {
		return append(make(net.HardwareAddr, 12, 20), mac...)
	}
	return mac
}

// writeAddresses writes the addresses and routes of one family; without is the method if there is no address.
func writeAddresses(text *bytes.Buffer, l *link, is4 bool, without string) {
	i := slices.IndexFunc(l.addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
	if i < 0 {
		fmt.Fprintf(text, "method=%s\n", without)
		return
	}
	p := l.addresses[i]
	gateway := l.gateway(p.Addr())
	fmt.Fprintf(text, "method=manual\naddress1=%v", p)
	if l.isDefault(p.Addr()) {
		fmt.Fprintf(text, ",%v\n", gateway)
	} else {
		text.WriteString("\nnever-default=true\n")
	}
	if l.table == 0 {
		return
	}
	any := "0.0.0.0/0"
	if !is4 {
		any = "::/0"
	}
	fmt.Fprintf(text, "route1=%v\nroute1_options=table=%d\n", p.Masked(), l.table)
	if gateway.IsValid() {
		fmt.Fprintf(text, "route2=%s,%v\nroute2_options=table=%d\n", any, gateway, l.table)
	}
	fmt.Fprintf(text, "routing-rule1=priority %d from %v table %d\n", rulePriority, p.Addr(), l.table)
}
