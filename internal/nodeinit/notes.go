package nodeinit

import (
	"fmt"
	"strings"
)

// note is a file below /run, which is gone with the next boot.
type note struct{ path, text string }

// why is the first line of every note.
const why = "# Written by dim-init: the root file system is mounted over this card.\n"

// notes are what dim-init leaves to the node: the facts of the boot, and word to whatever manages networks in the image
// that the boot card is to be left as it is, at the start and at the end. Taking it down, even for a moment, takes
// the root away: the boot stops, or a shutdown hangs. All managers look in /run before or besides /etc, so the
// image need not be touched.
func notes(p *Params, card string, l Lease) []note {
	// An empty ExecStop= takes the unit's own away: ifdown would end the root before the node is down.
	keep := why + "[Service]\nExecStop=\n"
	return []note{
		{"dim/boot", facts(p, card, l)},
		// systemd-networkd: of all .network files that match, the first by name counts. Not Unmanaged=yes:
		// systemd-networkd-wait-online wants one managed card and would wait for two minutes.
		{"systemd/network/00-dim-boot.network", why + "[Match]\nName=" + card + "\n\n[Network]\nKeepConfiguration=yes\n" +
			"LinkLocalAddressing=ipv6\n"},
		{"NetworkManager/conf.d/00-dim-boot.conf", why + "[keyfile]\nunmanaged-devices=interface-name:" + card + "\n"},
		// ifupdown: what is in its table of states is not brought up again, by no name that the image has for it.
		{"network/ifstate", card + "=" + card + "\n"},
		{"network/ifstate." + card, card + "\n"},
		{"systemd/system/networking.service.d/dim.conf", keep},
		{"systemd/system/ifup@" + card + ".service.d/dim.conf", keep},
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
