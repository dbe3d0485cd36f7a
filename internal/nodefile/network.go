package nodefile

import (
	"bytes"
	"fmt"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
)

// The boot card carries the root. It was set up before the distribution started, and must stay as it is until the
// machine is off: whoever takes it down, gives it another address or another name, stops the node.

func (b *Base) findIfupdown() error {
	var err error
	b.found.interfaces, b.found.ifupdown, err = b.read("etc/network/interfaces")
	if err != nil || !b.found.ifupdown {
		return err
	}
	r, err := b.replaced("", "etc/network/interfaces", nil)
	b.found.interfacesFile = r.File
	return err
}

// interfaces makes /etc/network/interfaces for ifupdown (Debian, Alpine): the loopback as the master has it, the boot card untouched, the node's
// other cards with the addresses of the description. All else the master has, files it includes among them, is about the master's cards,
// or about bridges and bonds on top of the boot card; it becomes comments.
func (b *Base) interfaces(n *cluster.Node) ([]rendered, error) {
	if !b.found.ifupdown {
		return nil, nil
	}
	loopback, rest := splitInterfaces(string(b.found.interfaces))
	var text bytes.Buffer
	fmt.Fprintf(&text, "# interfaces(5) of node %s, made from the cluster description.\n\n", n.Name)
	text.WriteString(loopback)
	fmt.Fprintf(&text, "\n# The root comes through %s: it is up, and nothing may take it down.\niface %[1]s inet manual\n", n.Boot().Name)
	for _, card := range n.Interfaces[1:] {
		if !card.Address.IsValid() {
			continue
		}
		// allow-hotplug, not auto: networking.service does not fail when the card is missing.
		fmt.Fprintf(&text, "\nallow-hotplug %s\niface %[1]s inet static\n\taddress %s\n", card.Name, prefix(card))
		if card.Network.MTU > 0 {
			fmt.Fprintf(&text, "\tmtu %d\n", card.Network.MTU)
		}
	}
	if rest != "" {
		text.WriteString("\n# Left out on nodes, from the master's file:\n" + rest)
	}
	r := b.file(builtin.Ifupdown, "etc/network/interfaces", text.Bytes())
	r.Mode, r.UID, r.GID = b.found.interfacesFile.Mode, b.found.interfacesFile.UID, b.found.interfacesFile.GID
	return []rendered{r}, nil
}

func prefix(card *cluster.Interface) string {
	return fmt.Sprintf("%v/%d", card.Address, card.Network.Subnet.Bits())
}

// splitInterfaces parts an interfaces(5) file into the stanzas of the loopback and, as comments, everything else that is not a comment.
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

// logicalLines yields lines, each ending in a line end, those that end in a backslash together with the next.
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

// startsStanza reports whether a word at the beginning of a line of interfaces(5) starts something new; other
// words are options of the stanza above.
func startsStanza(word string) bool {
	switch word {
	case "iface", "mapping", "auto", "source", "source-directory", "template", "rename", "no-auto-down", "no-scripts":
		return true
	}
	return strings.HasPrefix(word, "allow-")
}

func (b *Base) findNetworkManager() (err error) {
	b.found.networkManager, err = b.has("etc/NetworkManager")
	return err
}

// networkManager makes NetworkManager leave the boot card alone, and resolv.conf, which it would empty: it knows of no name
// servers when the card they were learned through is not its own. The node's other cards get a connection.
func (b *Base) networkManager(n *cluster.Node) ([]rendered, error) {
	if !b.found.networkManager {
		return nil, nil
	}
	match := "interface-name:" + n.Boot().Name
	if mac := n.Boot().MAC; mac != nil {
		match = "mac:" + mac.String()
	}
	// Either would do; the first is lost when another file sets the same key, the second is not known to versions before 1.12.
	text := fmt.Sprintf("# The root of node %s comes through %s.\n[main]\ndns=none\n\n[keyfile]\nunmanaged-devices+=%s\n\n[device-dim-boot]\nmatch-device=%[3]s\nmanaged=0\n",
		n.Name, n.Boot().Name, match)
	files := []rendered{b.file(builtin.NetworkManager, "etc/NetworkManager/conf.d/00-dim-boot.conf", []byte(text))}
	for _, card := range n.Interfaces[1:] {
		if !card.Address.IsValid() {
			continue
		}
		r := b.file(builtin.NetworkManager, "etc/NetworkManager/system-connections/dim-"+card.Name+".nmconnection", connection(card))
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
	fmt.Fprintf(&text, "\n[ipv4]\nmethod=manual\naddress1=%s\nnever-default=true\n\n[ipv6]\nmethod=link-local\n", prefix(card))
	return text.Bytes()
}

func (b *Base) findNetworkd() error {
	var err error
	b.found.networkd, err = b.has("usr/lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd", "usr/lib/systemd/systemd-udevd", "lib/systemd/systemd-udevd")
	if err != nil {
		return err
	}
	b.found.waitOnline, err = b.has("usr/lib/systemd/system/"+waitOnline, "lib/systemd/system/"+waitOnline)
	return err
}

// waitOnline waits until the cards that networkd manages are up. Where it manages none it waits for two minutes and fails.
const waitOnline = "systemd-networkd-wait-online.service"

// networkd makes systemd-networkd leave the boot card alone, and udev keep the name that dim-init gave it. The node's other cards
// get their declared names, where their hardware addresses are known, and their addresses.
func (b *Base) networkd(n *cluster.Node) ([]rendered, error) {
	if !b.found.networkd {
		return nil, nil
	}
	boot := n.Boot()
	files := []rendered{
		b.systemdNetwork("00-dim-boot.network", matchCard(boot, "Name")+"\n[Link]\nUnmanaged=yes\n"),
		b.systemdNetwork("00-dim-boot.link", matchCard(boot, "OriginalName")+"\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"),
	}
	if b.found.waitOnline {
		text := "# The root comes over the network: it is online.\n[Service]\nExecStart=\nExecStart=/bin/true\n"
		files = append(files, b.file(builtin.Networkd, "etc/systemd/system/"+waitOnline+".d/00-dim-boot.conf", []byte(text)))
	}
	for _, card := range n.Interfaces[1:] {
		if card.MAC != nil {
			files = append(files, b.systemdNetwork("10-dim-"+card.Name+".link", matchCard(card, "OriginalName")+"\n[Link]\nName="+card.Name+"\nMACAddressPolicy=none\n"))
		}
		if !card.Address.IsValid() {
			continue
		}
		text := matchCard(card, "Name") + "\n"
		if card.Network.MTU > 0 {
			text += fmt.Sprintf("[Link]\nMTUBytes=%d\n\n", card.Network.MTU)
		}
		files = append(files, b.systemdNetwork("10-dim-"+card.Name+".network", text+"[Network]\nAddress="+prefix(card)+"\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n"))
	}
	return files, nil
}

func (b *Base) systemdNetwork(name, text string) rendered {
	return b.file(builtin.Networkd, "etc/systemd/network/"+name, []byte(text))
}

// matchCard writes a [Match] section: by hardware address where that is known, else by name. VLANs and bridges have the hardware address of the
// card below, hence the type.
func matchCard(card *cluster.Interface, nameKey string) string {
	if card.MAC == nil {
		return fmt.Sprintf("[Match]\n%s=%s\n", nameKey, card.Name)
	}
	return fmt.Sprintf("[Match]\nMACAddress=%v\nType=ether\n", card.MAC)
}
