package nodeinit

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// export is the word dim.nfs: what is mounted as the root.
type export struct {
	Server netip.AddrPort
	Path   string
}

// params is what the kernel command line, or DHCP option 224, tells dim-init.
type params struct {
	BootMAC   net.HardwareAddr // nil: not known
	Node      string
	Server    netip.Addr
	Root      export
	HTTP      netip.AddrPort
	Interface string       // the boot card's declared name
	IPv6      netip.Prefix // of the boot card, in addition; zero: none
	Router6   netip.Addr   // zero: none

	Init     string
	ReadOnly bool
	Mount    string // mount options to be added at the end
	Debug    bool
	MTU      int
	Push     bool // the server reports switches

	ModuleOptions map[string][]string // by module, from words such as virtio_net.napi_tx=1
	Blacklist     []string            // of modprobe.blacklist=
}

// parseParams reads a command line. If a word occurs more than once, the last one counts. A word of dim-init with an
// invalid value is ignored and listed in problems; words for others are ignored.
func parseParams(line string) (p params, problems []string) {
	for _, word := range splitWords(line) {
		if word == "--" {
			break
		}
		key, value, _ := strings.Cut(word, "=")
		if err := p.set(key, value); err != nil {
			problems = append(problems, fmt.Sprintf("kernel parameter %s: %v", word, err))
		}
	}
	return p, problems
}

func (p *params) set(key, value string) (err error) {
	switch key {
	case "BOOTIF":
		err = assign(&p.BootMAC, value, parseBootIF)
	case "dim.node":
		p.Node = value
	case "dim.server":
		err = assign(&p.Server, value, netip.ParseAddr)
	case "dim.nfs":
		err = assign(&p.Root, value, parseExport)
	case "dim.http":
		err = assign(&p.HTTP, value, netip.ParseAddrPort)
	case "dim.if":
		err = assign(&p.Interface, value, parseInterface)
	case "dim.ip6":
		err = assign(&p.IPv6, value, parseIPv6)
	case "dim.gw6":
		err = assign(&p.Router6, value, netip.ParseAddr)
	case "dim.mount":
		p.Mount = value
	case "dim.mtu":
		err = assign(&p.MTU, value, parseMTU)
	case "dim.push":
		p.Push = true
	case "dim.debug":
		p.Debug = true
	case "init":
		p.Init = value
	case "ro":
		p.ReadOnly = true
	case "rw":
		p.ReadOnly = false
	case "modprobe.blacklist":
		p.Blacklist = append(p.Blacklist, strings.Split(value, ",")...)
	default:
		p.setModule(key, value)
	}
	return err
}

// setModule takes a word of the form MODULE.OPTION=VALUE, as modprobe does.
func (p *params) setModule(key, value string) {
	name, option, ok := strings.Cut(key, ".")
	if !ok || name == "" || option == "" || name == "dim" {
		return
	}
	if p.ModuleOptions == nil {
		p.ModuleOptions = make(map[string][]string)
	}
	if value != "" {
		option += "=" + value
	}
	name = strings.ReplaceAll(name, "-", "_")
	p.ModuleOptions[name] = append(p.ModuleOptions[name], option)
}

// fill takes from other what p lacks.
func (p *params) fill(other params) {
	if p.Node == "" {
		p.Node = other.Node
	}
	if !p.Server.IsValid() {
		p.Server = other.Server
	}
	if p.Root.Path == "" {
		p.Root = other.Root
	}
	if !p.HTTP.IsValid() {
		p.HTTP = other.HTTP
	}
	if p.Interface == "" {
		p.Interface = other.Interface
	}
	if !p.IPv6.IsValid() {
		p.IPv6 = other.IPv6
	}
	if !p.Router6.IsValid() {
		p.Router6 = other.Router6
	}
	p.Push = p.Push || other.Push
}

// How long the kernel caches attributes of files, in seconds.
const (
	pollTime = 3
	pushTime = 3600 // when the server reports switches
)

// mountData returns the options for mount(2). Unlike those of mount.nfs they have the server's address.
func (p *params) mountData(cacheTime int) string {
	port := p.Root.Server.Port()
	data := fmt.Sprintf("vers=3,proto=tcp,mountproto=tcp,nolock,hard,actimeo=%d,nocto,port=%d,mountport=%d,addr=%s",
		cacheTime, port, port, p.Root.Server.Addr())
	if p.Mount != "" {
		data += "," + p.Mount
	}
	return data
}

// mountSource returns the source of the mount, which /proc/mounts shows.
func (p *params) mountSource() string {
	host := p.Root.Server.Addr().String()
	if p.Root.Server.Addr().Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + p.Root.Path
}

// splitWords splits as the kernel does: at blanks that are not between double quotes. The quotes are removed.
func splitWords(line string) []string {
	var words []string
	var b strings.Builder
	quoted, any := false, false
	for _, c := range []byte(line) {
		switch {
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			if any {
				words = append(words, b.String())
			}
			b.Reset()
			any = false
		default:
			b.WriteByte(c)
			any = true
		}
	}
	if any {
		words = append(words, b.String())
	}
	return words
}

func assign[T any](to *T, value string, parse func(string) (T, error)) error {
	v, err := parse(value)
	if err == nil {
		*to = v
	}
	return err
}

// parseBootIF reads pxelinux's form: the hardware type, then the address, 01-52-54-00-4d-00-01.
func parseBootIF(s string) (net.HardwareAddr, error) {
	s = strings.ReplaceAll(s, "-", ":")
	if strings.Count(s, ":") == 6 {
		s = s[strings.IndexByte(s, ':')+1:]
	}
	mac, err := net.ParseMAC(s)
	if err == nil && len(mac) != 6 {
		err = fmt.Errorf("an Ethernet address has 6 bytes, not %d", len(mac))
	}
	return mac, err
}

// parseExport reads ADDR:PORT:PATH.
func parseExport(s string) (export, error) {
	server, path, ok := strings.Cut(s, ":/")
	if !ok {
		return export{}, fmt.Errorf("not of the form ADDR:PORT:/PATH")
	}
	at, err := netip.ParseAddrPort(server)
	if err == nil && strings.ContainsAny(path, ",\x00") {
		err = fmt.Errorf("no comma may be in the path")
	}
	return export{Server: at, Path: "/" + path}, err
}

// parseInterface refuses what the kernel would (net/core/dev.c, dev_valid_name).
func parseInterface(s string) (string, error) {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n%") {
		return "", fmt.Errorf("not a name for a network card")
	}
	return s, nil
}

// parseIPv6 reads ADDR/BITS.
func parseIPv6(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err == nil && (!p.Addr().Is6() || p.Addr().Is4In6()) {
		err = fmt.Errorf("not an IPv6 address")
	}
	return p, err
}

func parseMTU(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && !validMTU(n) {
		err = fmt.Errorf("an MTU is from 576 to 65535")
	}
	return n, err
}

// validMTU reports whether an MTU is usable. RFC 2132 section 5.1 allows 68; NFS needs at least the datagram that RFC
// 791 demands.
func validMTU(n int) bool { return n >= 576 && n <= 65535 }
