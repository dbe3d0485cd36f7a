package nodefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
	"dim/internal/image"
)

// hostname returns /etc/hostname.
func (b *Base) hostname(n *cluster.Node) ([]rendered, error) {
	return []rendered{b.file(builtin.Hostname, "etc/hostname", []byte(string(n.Name)+"\n"))}, nil
}

// machineID returns /etc/machine-id if systemd or D-Bus needs one: nodes with the master's id would have the same DHCP
// identifiers, and their journals would be mixed up. The id depends on the names of cluster and node only.
func (b *Base) machineID(n *cluster.Node) ([]rendered, error) {
	needed, err := b.has("etc/machine-id", "usr/lib/systemd/systemd", "lib/systemd/systemd", "usr/bin/dbus-daemon")
	if !needed || err != nil {
		return nil, err
	}
	id := sha256.Sum256([]byte("dim machine-id\x00" + b.cluster.Name + "\x00" + string(n.Name)))
	id[6] = id[6]&0x0f | 0x40 // machine-id(5) has the form of a version 4 UUID
	id[8] = id[8]&0x3f | 0x80
	text := []byte(hex.EncodeToString(id[:16]) + "\n")
	files := []rendered{b.file(builtin.MachineID, "etc/machine-id", text)}
	// Otherwise it is a link to the first one.
	if e, ok, err := b.entry("var/lib/dbus/machine-id"); err != nil {
		return nil, err
	} else if ok && e.Type == image.Regular {
		files = append(files, b.file(builtin.MachineID, "var/lib/dbus/machine-id", text))
	}
	for i := range files {
		files[i].Mode = 0o444
	}
	return files, nil
}

// resolvConf returns /etc/resolv.conf if the node has name servers. If the version has a link to
// systemd-resolved's file, it returns configuration of resolved instead. A link to NetworkManager's file is replaced,
// because NetworkManager is configured to leave DNS alone. Other links stay.
func (b *Base) resolvConf(n *cluster.Node) ([]rendered, error) {
	if len(n.DNS) == 0 {
		return nil, nil
	}
	e, linked, err := b.entry("etc/resolv.conf")
	linked = linked && e.Type == image.Symlink
	switch {
	case err != nil:
		return nil, err
	case linked && strings.Contains(e.Target, "systemd/resolve/"):
		const path = "etc/systemd/resolved.conf.d/00-dim-boot.conf"
		text := fmt.Sprintf("# The card that the root comes through is not networkd's.\n"+
			"[Resolve]\nDNS=%s\nDomains=%s\n",
			addresses(n.DNS), b.cluster.Domain)
		return []rendered{b.file(builtin.ResolvConf, path, []byte(text))}, nil
	case linked && !(b.version.networkManager && strings.Contains(e.Target, "NetworkManager/")):
		return nil, nil
	}
	var text bytes.Buffer
	if b.cluster.Domain != "" {
		fmt.Fprintf(&text, "search %s\n", b.cluster.Domain)
	}
	for _, a := range n.DNS {
		fmt.Fprintf(&text, "nameserver %v\n", a)
	}
	return []rendered{b.file(builtin.ResolvConf, "etc/resolv.conf", text.Bytes())}, nil
}

func addresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

// addHosts adds /etc/hosts, which is the same for all nodes: the cluster's machines, then the lines of the master's
// file about other machines.
func (b *Base) addHosts() error {
	master, _, err := b.read("etc/hosts")
	if err != nil {
		return err
	}
	r, err := b.replacement(builtin.Hosts, "etc/hosts", b.machines.withOthers(master))
	b.common = append(b.common, r)
	return err
}

// Machines are the lines of /etc/hosts about the machines of a cluster. They are the same for all versions of all
// images, and thousands. They are not changed after NewMachines.
type Machines struct {
	cluster   *cluster.Cluster
	text      bytes.Buffer
	names     map[string]bool
	addresses map[netip.Addr]bool
}

// NewMachines returns the machines of a cluster.
func NewMachines(c *cluster.Cluster) *Machines {
	h := &Machines{cluster: c, names: map[string]bool{}, addresses: map[netip.Addr]bool{}}
	for _, s := range c.Servers {
		h.names[string(s.Name)] = true
	}
	for _, n := range c.Nodes {
		h.names[string(n.Name)] = true
	}
	h.text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	h.text.WriteString("\n# Servers\n")
	for _, s := range c.Servers {
		h.addMachine(string(s.Name), s.Interfaces)
	}
	h.text.WriteString("\n# Nodes\n")
	for _, n := range c.Nodes {
		h.addMachine(string(n.Name), n.Interfaces)
	}
	return h
}

// Of reports whether the machines are those of c.
func (h *Machines) Of(c *cluster.Cluster) bool { return h.cluster == c }

// addMachine adds the addresses of a machine, but not those of a card with the name of another machine.
func (h *Machines) addMachine(machine string, cards []*cluster.Interface) {
	for name, card := range cluster.HostNames(machine, cards) {
		if !card.Address.IsValid() && !card.Address6.IsValid() {
			continue
		}
		if name != machine {
			if h.names[name] {
				continue
			}
			h.names[name] = true
		}
		for _, a := range []netip.Addr{card.Address, card.Address6} {
			if !a.IsValid() {
				continue
			}
			h.addresses[a] = true
			h.text.WriteString(a.String())
			h.text.WriteByte('\t')
			if h.cluster.Domain != "" {
				h.text.WriteString(name + "." + h.cluster.Domain + " ")
			}
			h.text.WriteString(name + "\n")
		}
	}
}

// withOthers returns /etc/hosts with the lines of the master's file about other machines: not the loopback, not the
// master itself (Debian's installer calls it 127.0.1.1), not a machine of the cluster.
func (h *Machines) withOthers(master []byte) []byte {
	text := bytes.NewBuffer(slices.Clone(h.text.Bytes()))
	heading := "\n# From the master\n"
	for line := range strings.Lines(string(master)) {
		entry, _, _ := strings.Cut(line, "#")
		fields := strings.Fields(entry)
		if len(fields) < 2 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalMulticast() {
			continue
		}
		_, _, ours := h.cluster.NodeByAddress(a)
		if ours || h.addresses[a] || slices.ContainsFunc(fields[1:], h.isOurs) {
			continue
		}
		text.WriteString(heading + strings.TrimRight(line, "\r\n") + "\n")
		heading = ""
	}
	return text.Bytes()
}

// isOurs reports whether a name is of a machine of the cluster, with its domain or without.
func (h *Machines) isOurs(name string) bool {
	return h.names[strings.TrimSuffix(name, "."+h.cluster.Domain)]
}
