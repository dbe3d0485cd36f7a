package nodefile

import (
	"bytes"
	"fmt"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
)

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
// unconfigured, and the node's other interfaces as they are declared. The rest of the master's file, including its
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
	for _, l := range linksOf(n)[1:] {
		writeStanza(&text, &l)
	}
	if rest != "" {
		text.WriteString("\n# Left out on nodes, from the master's file:\n" + rest)
	}
	r := b.file(builtin.Ifupdown, "etc/network/interfaces", text.Bytes())
	own := &b.version.interfacesFile
	r.Mode, r.UID, r.GID = own.Mode, own.UID, own.GID
	return []rendered{r}, nil
}

// writeStanza writes an interface. VLANs and bonds are made by ip(8), because ifupdown needs further packages for them.
func writeStanza(text *bytes.Buffer, l *link) {
	made := l.VLAN != 0 || l.Bond != ""
	if !made && len(l.addresses) == 0 {
		return // a card of a bond, or one that nothing is known of
	}
	start := "allow-hotplug" // not auto: networking.service would fail if the card is missing
	if made {
		start = "auto"
	}
	fmt.Fprintf(text, "\n%s %s\n", start, l.Name)
	if len(l.addresses) == 0 {
		fmt.Fprintf(text, "iface %s inet manual\n", l.Name)
		writeOptions(text, l)
		fmt.Fprintf(text, "\tup ip link set %s up\n", l.Name)
	}
	for i, a := range l.addresses {
		method := "inet"
		if a.Addr().Is6() {
			method = "inet6"
		}
		fmt.Fprintf(text, "iface %s %s static\n\taddress %v\n", l.Name, method, a)
		if i == 0 {
			writeOptions(text, l)
		}
	}
	if len(l.addresses) > 0 { // the routes of all addresses, once the last one is there
		for _, command := range l.routes() {
			fmt.Fprintf(text, "\tup %s || true\n", command)
		}
	}
	for _, a := range l.own() {
		fmt.Fprintf(text, "\tdown ip %srule del from %v lookup %d || true\n", family(a), a, l.table)
	}
}

// writeOptions writes what makes an interface.
func writeOptions(text *bytes.Buffer, l *link) {
	for _, command := range l.create() {
		fmt.Fprintf(text, "\tpre-up %s || true\n", command)
	}
	if l.connected() {
		fmt.Fprintf(text, "\tpre-up echo connected > /sys/class/net/%s/mode || true\n", l.Name)
	}
	if l.MTU > 0 {
		fmt.Fprintf(text, "\tmtu %d\n", l.MTU)
	}
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
