package nodeinit

import (
	"fmt"
	"strings"
)

// note is a file below /run, which is gone with the next boot.
type note struct{ path, text string }

// notes are what dim-init leaves to the node: word to the managers of networks that the boot card is not theirs,
// since taking it down, even for a moment, takes the root away; and the facts of the boot. ifupdown has no
// such place: its own file comes from the node's files.
func notes(p *Params, card string, l Lease) []note {
	return []note{
		{"systemd/network/00-dim-boot.network", "# The root file system is mounted over this card.\n" +
			"[Match]\nName=" + card + "\n\n[Link]\nUnmanaged=yes\n"},
		{"NetworkManager/conf.d/00-dim-boot.conf", "# The root file system is mounted over this card.\n" +
			"[keyfile]\nunmanaged-devices=interface-name:" + card + "\n"},
		{"dim/boot", facts(p, card, l)},
	}
}

// facts is in the form of os-release(5), to be read by shells and people.
func facts(p *Params, card string, l Lease) string {
	var dns []string
	for _, d := range l.DNS {
		dns = append(dns, d.String())
	}
	var b strings.Builder
	for _, f := range []struct{ key, value string }{
		{"NODE", p.Node}, {"INTERFACE", card}, {"ADDRESS", l.Address.String()}, {"ROOT", p.mountSource()},
		{"HTTP", p.HTTP.String()}, {"DHCP_SERVER", l.Server.String()}, {"DNS", strings.Join(dns, " ")}, {"DOMAIN", l.Domain},
	} {
		fmt.Fprintf(&b, "%s=%q\n", f.key, f.value)
	}
	return b.String()
}
