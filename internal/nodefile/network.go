package nodefile

import (
	"bytes"
	"fmt"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
)

// The root is mounted over the boot card. dim-init has configured the card before the distribution starts, and the card
// must stay as it is until the machine is off: a program that takes it down, or gives it another address or name, stops
// the node.

func (b *Base) findIfupdown() error {
	var err error
	b.version.interfaces, b.version.ifupdown, err = b.read("etc/network/interfaces")
	if err != nil || !b.version.ifupdown {
		return err
	}
	r, err := b.replacement("", "etc/network/interfaces", nil)
	b.version.interfacesFile = r.File
	return err
}

// interfaces returns /etc/network/interfaces for ifupdown (Debian, Alpine): the master's loopback, the boot card
// unconfigured, and the node's other cards with their declared addresses. The rest of the master's file, including its
// sources, is about the master's cards, or about bridges and bonds on the boot card; it becomes comments.
func (b *Base) interfaces(n *cluster.Node) ([]rendered, error) {
	if !b.version.ifupdown {
		return nil, nil
	}
	loopback, rest := splitInterfaces(string(b.version.interfaces))
	var text bytes.Buffer
	fmt.Fprintf(&text, "# interfaces(5) of node %s, made from the cluster description.\n\n", n.Name)
	text.WriteString(loopback)
	fmt.Fprintf(&text, "\n# The root comes through %s: it is up, and nothing may take it down.\n"+
		"iface %[1]s inet manual\n", n.Boot().Name)
	for _, card := range n.Interfaces[1:] {
		if !card.Address.IsValid() {
			continue
		}
		// Not auto: networking.service would fail if the card is missing.
		fmt.Fprintf(&text, "\nallow-hotplug %s\niface %[1]s inet static\n\taddress %s\n", card.Name, prefix(card))
		if card.Network.MTU > 0 {
			fmt.Fprintf(&text, "\tmtu %d\n", card.Network.MTU)
		}
	}
	if rest != "" {
		text.WriteString("\n# Left out on nodes, from the master's file:\n" + rest)
	}
	r := b.file(builtin.Ifupdown, "etc/network/interfaces", text.Bytes())
	own := &b.version.interfacesFile
	r.Mode, r.UID, r.GID = own.Mode, own.UID, own.GID
	return []rendered{r}, nil
}

func prefix(card *cluster.Interface) string {
	return fmt.Sprintf("%v/%d", card.Address, card.Network.Subnet.Bits())
}

// splitInterfaces splits an interfaces(5) file into the stanzas of the loopback and, as comments, everything else. It
// drops comments.
func splitInterfaces(own string) (loopback, rest string) {
	var kept, out strings.Builder
	up, configured := false, false
	keeping := false
	for line := range logicalLines(own) {
		fields := strings.Fields(strings.ReplaceAll(line, "\\\n", " "))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if startsStanza(fields[0]) {
			keeping = false
			switch {
			case fields[0] == "iface" && len(fields) > 1 && fields[1] == "lo":
				keeping = true
				configured = configured || len(fields) > 2 && fields[2] == "inet"
			case len(fields) == 2 && fields[1] == "lo" && (fields[0] == "auto" || fields[0] == "allow-auto"):
				keeping, up = true, true
			}
		}
		if keeping {
			kept.WriteString(line)
		} else {
			for physical := range strings.Lines(line) {
				out.WriteString("#   " + strings.TrimRight(physical, "\\\n") + "\n")
			}
		}
	}
	loopback = kept.String()
	if !configured {
		loopback = "iface lo inet loopback\n" + loopback
	}
	if !up {
		loopback = "auto lo\n" + loopback
	}
	return loopback, out.String()
}

// logicalLines yields lines with their line ends. It yields a line that ends in a backslash together with the next one.
func logicalLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var whole string
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\r\n")
			whole += line
			if strings.HasSuffix(line, `\`) && !strings.HasPrefix(strings.TrimSpace(whole), "#") {
				whole += "\n"
				continue
			}
			if !yield(whole + "\n") {
				return
			}
			whole = ""
		}
		if whole != "" {
			yield(whole)
		}
	}
}

// startsStanza reports whether a word at the beginning of a line of interfaces(5) starts a stanza. Other words are
// options of the stanza above.
func startsStanza(word string) bool {
	switch word {
	case "iface", "mapping", "auto", "source", "source-directory", "template", "rename", "no-auto-down", "no-scripts":
		return true
	}
	return strings.HasPrefix(word, "allow-")
}

func (b *Base) findNetworkManager() (err error) {
	b.version.networkManager, err = b.has("etc/NetworkManager")
	return err
}

// networkManager returns configuration that makes NetworkManager leave the boot card alone. It must leave resolv.conf
// alone, too: since it does not manage the card, it knows no name servers, and would empty the file. Each other card of
// the node gets a connection.
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
	for _, card := range n.Interfaces[1:] {
		if !card.Address.IsValid() {
			continue
		}
		path := "etc/NetworkManager/system-connections/dim-" + card.Name + ".nmconnection"
		r := b.file(builtin.NetworkManager, path, connection(card))
		r.Mode = 0o600 // NetworkManager ignores connections that others may read
		files = append(files, r)
	}
	return files, nil
}

func connection(card *cluster.Interface) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "[connection]\nid=dim-%s\ntype=ethernet\n", card.Name)
	if card.MAC == nil {
		fmt.Fprintf(&text, "interface-name=%s\n", card.Name)
	}
	text.WriteString("\n[ethernet]\n")
	if card.MAC != nil {
		fmt.Fprintf(&text, "mac-address=%s\n", strings.ToUpper(card.MAC.String()))
	}
	if card.Network.MTU > 0 {
		fmt.Fprintf(&text, "mtu=%d\n", card.Network.MTU)
	}
	fmt.Fprintf(&text, "\n[ipv4]\nmethod=manual\naddress1=%s\nnever-default=true\n\n[ipv6]\nmethod=link-local\n",
		prefix(card))
	return text.Bytes()
}

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
// dim-init gave it. Each other card of the node gets its address and, if its hardware address is known, its declared
// name.
func (b *Base) networkd(n *cluster.Node) ([]rendered, error) {
	if !b.version.networkd {
		return nil, nil
	}
	boot := n.Boot()
	files := []rendered{
		b.systemdNetwork("00-dim-boot.network", matchCard(boot, "Name")+"\n[Link]\nUnmanaged=yes\n"),
		b.systemdNetwork("00-dim-boot.link",
			matchCard(boot, "OriginalName")+"\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"),
	}
	if b.version.waitOnline {
		text := "# The root comes over the network: it is online.\n[Service]\nExecStart=\nExecStart=/bin/true\n"
		path := "etc/systemd/system/" + waitOnline + ".d/00-dim-boot.conf"
		files = append(files, b.file(builtin.Networkd, path, []byte(text)))
	}
	for _, card := range n.Interfaces[1:] {
		if card.MAC != nil {
			files = append(files, b.systemdNetwork("10-dim-"+card.Name+".link",
				matchCard(card, "OriginalName")+"\n[Link]\nName="+card.Name+"\nMACAddressPolicy=none\n"))
		}
		if !card.Address.IsValid() {
			continue
		}
		text := matchCard(card, "Name") + "\n"
		if card.Network.MTU > 0 {
			text += fmt.Sprintf("[Link]\nMTUBytes=%d\n\n", card.Network.MTU)
		}
		text += "[Network]\nAddress=" + prefix(card) + "\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n"
		files = append(files, b.systemdNetwork("10-dim-"+card.Name+".network", text))
	}
	return files, nil
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
