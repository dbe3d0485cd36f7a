package nodeinit

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Export is the word dim.nfs: what is mounted as the root.
type Export struct {
	Server netip.AddrPort
	Path   string
}

// Params is what the kernel command line, or DHCP option 224, tells dim-init.
type Params struct {
	BootMAC   net.HardwareAddr // nil: not known
	Node      string
	Server    netip.Addr
	Root      Export
	HTTP      netip.AddrPort
	Interface string // the boot card's declared name

	Init     string
	ReadOnly bool
	Mount    string // options to be added at the end
	Debug    bool
	MTU      int
	Push     bool // the server tells of switches

	ModuleOptions map[string][]string // by module, of words like virtio_net.napi_tx=1
	Blacklist     []string            // of modprobe.blacklist=
}

// ParseParams reads a command line. Of a word that is there more than once the last counts. A word that is not
// understood becomes a problem in plain words and is left out; words of others are passed over.
func ParseParams(line string) (Params, []string) {
	var p Params
	var problems []string
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

func (p *Params) set(key, value string) (err error) {
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

// setModule takes words of the form MODULE.OPTION=VALUE, as modprobe does.
func (p *Params) setModule(key, value string) {
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

// fill takes from other what p does not have: the words of DHCP option 224 where there was no command line.
func (p *Params) fill(other Params) {
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
	p.Push = p.Push || other.Push
}

// For how long, in seconds, the kernel takes what it knows of a file for true: when it asks by itself, and when it is told.
const (
	pollTime = 3
	pushTime = 3600
)

// mountData returns the options for mount(2), which, unlike mount.nfs, wants the server's address among them.
func (p *Params) mountData(cacheTime int) string {
	port := p.Root.Server.Port()
	data := fmt.Sprintf("vers=3,proto=tcp,mountproto=tcp,nolock,hard,actimeo=%d,nocto,port=%d,mountport=%d,addr=%s",
		cacheTime, port, port, p.Root.Server.Addr())
	if p.Mount != "" {
		data += "," + p.Mount
	}
	return data
}

// mountSource returns what /proc/mounts will show.
func (p *Params) mountSource() string {
	host := p.Root.Server.Addr().String()
	if p.Root.Server.Addr().Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + p.Root.Path
}

// splitWords splits like the kernel: at blanks that are not between double quotes, which are taken away.
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
func parseExport(s string) (Export, error) {
	server, path, ok := strings.Cut(s, ":/")
	if !ok {
		return Export{}, fmt.Errorf("not of the form ADDR:PORT:/PATH")
	}
	at, err := netip.ParseAddrPort(server)
	if err == nil && strings.ContainsAny(path, ",\x00") {
		err = fmt.Errorf("no comma may be in the path")
	}
	return Export{Server: at, Path: "/" + path}, err
}

// parseInterface refuses what the kernel would (net/core/dev.c, dev_valid_name).
func parseInterface(s string) (string, error) {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n%") {
		return "", fmt.Errorf("not a name for a network card")
	}
	return s, nil
}

func parseMTU(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && !validMTU(n) {
		err = fmt.Errorf("an MTU is from 576 to 65535")
	}
	return n, err
}

// validMTU bounds by RFC 2132 section 5.1 (68), but for NFS to be of use by RFC 791's least datagram.
func validMTU(n int) bool { return n >= 576 && n <= 65535 }
