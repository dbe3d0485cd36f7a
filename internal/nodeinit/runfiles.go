package nodeinit

import (
	"fmt"
	"strings"
)

// runFile is a file below /run.
type runFile struct{ path, text string }

// header is the first line of configuration files.
const header = "# Written by dim-init: the root file system is mounted over this card.\n"

// runFiles returns the files that dim-init leaves to the node: the facts of the boot, and configuration that makes the
// image's network managers leave the boot card alone, at the start and at shutdown. If one took the card down, even for
// a moment, the root would be gone: the boot would stop, or the shutdown hang. All of them read /run before or besides
// /etc, so the image need not be changed.
func runFiles(p *params, card string, l lease) []runFile {
	// An empty ExecStop= removes the unit's own: ifdown would end the root before the node is down.
	noStop := header + "[Service]\nExecStop=\n"
	return []runFile{
		{"dim/boot", facts(p, card, l)},
		// systemd-networkd applies the first .network file that matches. Not Unmanaged=yes:
		// systemd-networkd-wait-online needs one managed card and would wait for two minutes.
		{"systemd/network/00-dim-boot.network", header + "[Match]\nName=" + card +
			"\n\n[Network]\nKeepConfiguration=yes\nLinkLocalAddressing=ipv6\n"},
		{"NetworkManager/conf.d/00-dim-boot.conf", header +
			"[keyfile]\nunmanaged-devices=interface-name:" + card + "\n"},
		// ifupdown does not bring up what its table of states has, whatever the image calls it.
		{"network/ifstate", card + "=" + card + "\n"},
		{"network/ifstate." + card, card + "\n"},
		{"systemd/system/networking.service.d/dim.conf", noStop},
		{"systemd/system/ifup@" + card + ".service.d/dim.conf", noStop},
	}
}

// facts returns the facts of the boot in the form of os-release(5), for shells and people.
func facts(p *params, card string, l lease) string {
	var dns []string
	for _, d := range l.DNS {
		dns = append(dns, d.String())
	}
	var b strings.Builder
	for _, f := range []struct{ key, value string }{
		{"NODE", p.Node}, {"INTERFACE", card}, {"ADDRESS", l.Address.String()}, {"ROOT", p.mountSource()},
		{"HTTP", p.HTTP.String()}, {"DHCP_SERVER", l.Server.String()}, {"DNS", strings.Join(dns, " ")},
		{"DOMAIN", l.Domain},
	} {
		fmt.Fprintf(&b, "%s=%q\n", f.key, f.value)
	}
	return b.String()
}
