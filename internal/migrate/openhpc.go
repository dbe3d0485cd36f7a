package migrate

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dim/internal/migrate/describe"
)

// openhpcState is the variables of a recipe, those of arrays as "c_name[0]".
type openhpcState struct {
	variables map[string]openhpcValue
}

// openhpcValue is a value and its place.
type openhpcValue struct {
	text string
	at   describe.Place
}

// maxVariable is the length in bytes up to which a value is read.
const maxVariable = 4096

var (
	assignment = regexp.MustCompile(`^(?:export\s+|local\s+|declare\s+(?:-\w+\s+)*)?([A-Za-z_]\w*)(?:\[(\d{1,6})\])?=`)
	computed   = regexp.MustCompile(`^(?:export\s+)?(c_(?:name|ip|mac|bmc|ipoib))(?:\[[^\]]*\])?\+?=`)
)

// openhpc reads the assignments of input.local or of recipe.sh. Everything else in them is left alone.
func (r *reader) openhpc(f File) error {
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(f.Data), "\ufeff")) {
		n++
		rest := strings.TrimSpace(line)
		for rest != "" && rest[0] != '#' {
			m := assignment.FindStringSubmatch(rest)
			if m == nil {
				if c := computed.FindStringSubmatch(rest); c != nil {
					r.leave(r.at(n), "write a line "+c[1]+"[0]=… for each node", "%s, which the shell computes,", c[1])
				}
				break
			}
			name := m[1]
			if m[2] != "" {
				name += "[" + strconv.Itoa(wholeNumber(m[2])) + "]"
			}
			var err error
			if rest, err = r.openhpcAssign(name, rest[len(m[0]):], n); err != nil && openhpcNeeds(name) {
				r.leave(r.at(n), err.Error(), "%s", name)
			}
		}
	}
	return nil
}

// openhpcNeeds reports whether a variable may be one that is carried over.
func openhpcNeeds(name string) bool {
	first, _, _ := strings.Cut(name, "_")
	return slices.Contains([]string{"c", "sms", "internal", "ipoib", "num", "eth", "compute", "CHROOT", "kargs"}, first)
}

// openhpcAssign sets a variable to the word, or the words in parentheses, at the start of a text. It returns the rest.
func (r *reader) openhpcAssign(name, text string, line int) (rest string, err error) {
	w := shellWords{lookup: func(name string) string { return r.openhpcs.variables[name].text }}
	list, isArray := strings.CutPrefix(text, "(")
	if !isArray {
		value, rest, err := w.word(text)
		if err == nil {
			r.openhpcs.variables[name] = openhpcValue{value, r.at(line)}
		}
		return strings.TrimLeft(rest, " \t;"), err
	}
	for i := 0; ; i++ {
		if list = strings.TrimLeft(list, " \t"); strings.HasPrefix(list, ")") {
			return strings.TrimLeft(list[1:], " \t;"), nil
		}
		value, after, err := w.word(list)
		switch {
		case err != nil:
			return "", err
		case len(after) == len(list):
			return "", errors.New("the array is not on one line")
		}
		r.openhpcs.variables[fmt.Sprintf("%s[%d]", name, i)] = openhpcValue{value, r.at(line)}
		list = after
	}
}

// openhpcGet returns a variable, "" if it is not set.
func (r *reader) openhpcGet(name string) (string, describe.Place) {
	v := r.openhpcs.variables[name]
	return v.text, v.at
}

// openhpcDone makes nodes of the variables.
func (r *reader) openhpcDone() {
	r.openhpcSite()
	prefix, _ := r.openhpcGet("compute_prefix")
	if prefix == "" {
		prefix, _ = r.openhpcGet("nodename_prefix")
	}
	text, at := r.openhpcGet("num_computes")
	count, _ := strconv.Atoi(text)
	elements := r.openhpcElements()
	for _, i := range elements {
		element := func(array string) (string, describe.Place) {
			return r.openhpcGet(array + "[" + strconv.Itoa(i) + "]")
		}
		name, place := element("c_name")
		if _, addressPlace := element("c_ip"); name == "" {
			name, place = prefix+strconv.Itoa(i+1), addressPlace
		}
		r.openhpcNode(describe.Node{Name: name, Place: place}, element)
	}
	if text != "" && count != len(elements) {
		r.site.Note(at, "num_computes is %d, but %d nodes have a name or an address", count, len(elements))
	}
}

// openhpcElements returns the numbers of the nodes that have a name or an address.
func (r *reader) openhpcElements() (list []int) {
	for name := range r.openhpcs.variables {
		array, index, found := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		if found && (array == "c_name" || array == "c_ip") {
			list = append(list, wholeNumber(index))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// openhpcSite takes what is not about one node.
func (r *reader) openhpcSite() {
	if d, _ := r.openhpcGet("domain_name"); d != "" {
		r.site.Domain = d
	}
	if name, at := r.openhpcGet("sms_name"); name != "" && r.site.Server.Name == "" {
		r.site.Server.Name, r.site.Server.Place = r.short(name), at
	}
	for _, k := range [][3]string{{"sms_ip", "internal_netmask"}, {"sms_ipoib", "ipoib_netmask"}} {
		text, at := r.openhpcGet(k[0])
		mask, _ := r.openhpcGet(k[1])
		a, subnet, ok := addressAndNetwork(text, mask)
		if text == "" || k[0] == "sms_ipoib" && !r.openhpcIPoIB() {
			continue
		}
		if !ok {
			r.leave(at, "it has no valid network: check "+k[1], "the address %s=%s of the server", k[0], text)
			continue
		}
		n := describe.Network{Subnet: subnet, Place: at}
		if k[0] == "sms_ip" {
			if !r.site.Server.Address.IsValid() {
				r.site.Server.Address, r.site.Server.Place = a, at
			}
			gateway, _ := r.openhpcGet("ipv4_gateway")
			n.Gateway, _ = netip.ParseAddr(gateway)
			servers, _ := r.openhpcGet("dns_servers")
			n.DNS = addresses(strings.FieldsFunc(servers, isSeparator))
		}
		r.addNetwork(n)
	}
	if chroot, _ := r.openhpcGet("CHROOT"); strings.HasPrefix(chroot, "/") {
		chroot = path.Clean(chroot)
		r.openhpcs.variables["CHROOT"] = openhpcValue{text: chroot}
		r.site.Images = append(r.site.Images, describe.Image{Name: chrootName(chroot), Master: "dir:" + chroot})
	}
	for _, k := range [][2]string{
		{"bmc_username", "power is not managed here"}, {"ntp_server", "configure it in the master"},
		{"slurm_node_config", "see dim cluster export --format slurm"},
	} {
		if text, at := r.openhpcGet(k[0]); text != "" {
			r.leave(at, k[1], "%s", k[0])
		}
	}
}

func (r *reader) openhpcIPoIB() bool {
	on, _ := r.openhpcGet("enable_ipoib")
	return on == "1"
}

// chrootName returns the name of an image whose root is a chroot: /opt/ohpc/admin/images/rocky8.4 is rocky8.4.
func chrootName(dir string) string {
	name := path.Base(dir)
	if name == "rootfs" || name == "rootimg" {
		name = path.Base(path.Dir(dir))
	}
	return name
}

// openhpcNode adds a node with its cards.
func (r *reader) openhpcNode(n describe.Node, element func(string) (string, describe.Place)) {
	if on, _ := r.openhpcGet("enable_kargs"); on == "1" {
		n.Append, _ = r.openhpcGet("kargs")
	}
	if chroot, _ := r.openhpcGet("CHROOT"); strings.HasPrefix(chroot, "/") {
		n.Image = chrootName(chroot)
	}
	boot := describe.Card{Place: n.Place}
	boot.Name, _ = r.openhpcGet("eth_provision")
	address := func(array string) (a netip.Addr, at describe.Place) {
		text, at := element(array)
		a, err := netip.ParseAddr(text)
		if text != "" && err != nil {
			r.leave(at, "it is not one", "the address %q of node %s", text, n.Name)
		}
		return a, at
	}
	if a, at := address("c_ip"); a.IsValid() {
		boot.Address, boot.Place = a, at
	}
	if text, at := element("c_mac"); text != "" {
		var ok bool
		if boot.MAC, ok = parseMAC(text); !ok {
			r.leave(at, "it is not one", "the hardware address %q of node %s", text, n.Name)
		}
	}
	n.Cards = []describe.Card{boot}
	if r.openhpcIPoIB() {
		if a, at := address("c_ipoib"); a.IsValid() {
			n.Cards = append(n.Cards, describe.Card{Name: "ib0", Address: a, Place: at, InfiniBand: true})
		}
	}
	r.site.Nodes = append(r.site.Nodes, n)
}
