package migrate

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"dim/internal/migrate/describe"
)

// token is a word, a text in quotes, or one of "{};,".
type token struct {
	text string
	line int
}

// tokens splits a file as dhcpd does.
func tokens(data string) (list []token, err error) {
	line := 1
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '#':
			for i < len(data) && data[i] != '\n' {
				i++
			}
		case strings.IndexByte("{};,", c) >= 0:
			list = append(list, token{string(c), line})
			i++
		case c == '"':
			end := strings.IndexByte(data[i+1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("%d: a quote is not closed", line)
			}
			text := data[i+1 : i+1+end]
			list = append(list, token{text, line})
			line += strings.Count(text, "\n")
			i += end + 2
		default:
			end := i
			for end < len(data) && strings.IndexByte("{};,\"# \t\r\n", data[end]) < 0 {
				end++
			}
			list = append(list, token{data[i:end], line})
			i = end
		}
	}
	return list, nil
}

// scope is what applies to the declarations in a block.
type scope struct {
	subnet  netip.Prefix
	routers []netip.Addr
	dns     []netip.Addr
	shared  string // the name of the shared network
	host    *describe.Node
}

// maxDepth is the number of blocks within blocks up to which a file is read.
const maxDepth = 32

// dhcpdParser reads one dhcpd.conf.
type dhcpdParser struct {
	*reader
	list []token
}

// dhcpd reads dhcpd.conf(5).
func (r *reader) dhcpd(f File) error {
	list, err := tokens(strings.TrimPrefix(string(f.Data), "\ufeff"))
	p := &dhcpdParser{reader: r, list: list}
	if err == nil {
		err = p.block(&scope{}, 0)
	}
	if err == nil && len(p.list) > 0 {
		err = fmt.Errorf("%d: \"}\" without \"{\"", p.list[0].line)
	}
	if err != nil {
		return fmt.Errorf("read %s:%w", f.Name, err)
	}
	return nil
}

// block reads statements up to the end of the block, whose brace it leaves.
func (p *dhcpdParser) block(s *scope, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%d: more than %d blocks within blocks", p.list[0].line, maxDepth)
	}
	for len(p.list) > 0 && p.list[0].text != "}" {
		end := 0
		for end < len(p.list) && strings.IndexByte("{};", p.list[end].single()) < 0 {
			end++
		}
		if end == len(p.list) || p.list[end].text == "}" {
			return fmt.Errorf("%d: the statement has no end", p.list[0].line)
		}
		words, ending := p.list[:end], p.list[end]
		p.list = p.list[end+1:]
		if ending.text == ";" {
			if len(words) > 0 {
				p.statement(s, words)
			}
			continue
		}
		if err := p.declaration(s, append(words[:len(words):len(words)], ending), depth); err != nil {
			return err
		}
	}
	return nil
}

// single returns the only byte of a token of one byte, and 0 of others.
func (t token) single() byte {
	if len(t.text) == 1 {
		return t.text[0]
	}
	return 0
}

// declaration reads a block and what it declares. words ends with the brace.
func (p *dhcpdParser) declaration(outer *scope, words []token, depth int) error {
	inner, first := *outer, words[0]
	kind := strings.ToLower(first.text)
	switch {
	case kind == "host" && len(words) > 2:
		inner.host = &describe.Node{Name: words[1].text, Place: p.at(first.line)}
	case kind == "subnet" && len(words) > 4:
		a, err := netip.ParseAddr(words[1].text)
		k, ok := subnet(a, words[3].text)
		if err != nil || !ok {
			p.note(first.line, "the subnet %s is not carried over: it is not an IPv4 subnet", words[1].text)
		}
		inner.subnet = k
	case kind == "subnet6" && len(words) > 2:
		k, err := netip.ParsePrefix(words[1].text)
		if err != nil || !k.Addr().Is6() {
			p.note(first.line, "the subnet %s is not carried over: it is not an IPv6 subnet", words[1].text)
			break
		}
		p.site.Subnets6 = append(p.site.Subnets6, describe.Subnet6{Prefix: k.Masked(), Place: p.at(first.line)})
	case kind == "shared-network" && len(words) > 2:
		inner.shared = words[1].text
	case kind == "group" || kind == "pool" || kind == "pool6":
	default:
		p.note(first.line, "%q and what is in it are not carried over: there is nothing like it here", first.text)
		inner.host = &describe.Node{}
	}
	if err := p.block(&inner, depth+1); err != nil {
		return err
	}
	if len(p.list) == 0 {
		return fmt.Errorf("%d: the block %q is not closed", first.line, first.text)
	}
	p.list = p.list[1:]
	p.finish(kind, outer, &inner, first.line)
	return nil
}

// finish carries over what a block has declared.
func (p *dhcpdParser) finish(kind string, outer, inner *scope, line int) {
	switch kind {
	case "host":
		if outer.host == nil && inner.host != nil {
			p.site.Nodes = append(p.site.Nodes, *inner.host)
		}
	case "pool", "pool6", "group", "shared-network", "subnet6":
	case "subnet":
		if !inner.subnet.IsValid() {
			return
		}
		n := describe.Network{Name: inner.shared, Subnet: inner.subnet, DNS: inner.dns, Place: p.at(line)}
		for _, a := range inner.routers {
			if inner.subnet.Contains(a) {
				n.Gateway = a
				break
			}
		}
		p.addNetwork(n)
	}
}

// dhcpdDone makes cards of hosts with names NAME-CARD, if there is a host NAME.
func (r *reader) dhcpdDone() {
	known := map[string]bool{}
	for _, n := range r.site.Nodes {
		known[n.Name] = true
	}
	hosts, nodes := r.site.Nodes, map[string]int{}
	r.site.Nodes = nil
	var cards []describe.Node
	for _, h := range hosts {
		if _, card := splitCard(h.Name, known); card != "" {
			cards = append(cards, h)
			continue
		}
		if i, ok := nodes[h.Name]; ok && addFamily(&r.site.Nodes[i], &h) {
			continue
		}
		nodes[h.Name] = len(r.site.Nodes)
		r.site.Nodes = append(r.site.Nodes, h)
	}
	for _, h := range cards {
		name, card := splitCard(h.Name, known)
		i, ok := nodes[name]
		switch {
		case isPower(card):
			r.site.Note(h.Place, "the host %s is not carried over: power is not managed here", h.Name)
		case !ok || len(h.Cards) == 0:
			r.site.Note(h.Place, "the host %s is not carried over: it is a card of %s, which is not a node",
				h.Name, name)
		default:
			h.Cards[0].Name = card
			r.addCard(i, h.Cards[0])
		}
	}
}

// addFamily adds the address of a host to the node of the same name, which another file has with its address of the
// other family: a configuration of dhcpd is for one. It reports whether they can be one node.
func addFamily(n, h *describe.Node) bool {
	if len(n.Cards) == 0 || len(h.Cards) == 0 {
		return false
	}
	card, more := &n.Cards[0], &h.Cards[0]
	if card.Address.IsValid() && more.Address.IsValid() || card.Address6.IsValid() && more.Address6.IsValid() ||
		card.MAC != nil && more.MAC != nil && !bytes.Equal(card.MAC, more.MAC) {
		return false
	}
	if more.Address.IsValid() {
		card.Address = more.Address
	}
	if more.Address6.IsValid() {
		card.Address6 = more.Address6
	}
	if card.MAC == nil {
		card.MAC = more.MAC
	}
	return true
}

// statement reads a statement without a block.
func (p *dhcpdParser) statement(s *scope, words []token) {
	var texts []string
	for _, w := range words {
		if w.text != "," {
			texts = append(texts, w.text)
		}
	}
	if len(texts) == 0 {
		return
	}
	line, keyword, rest := words[0].line, strings.ToLower(texts[0]), texts[1:]
	if keyword == "option" && len(rest) > 0 {
		keyword, rest = "option "+strings.ToLower(rest[0]), rest[1:]
	}
	if p.network(s, keyword, rest) || p.host(s, line, keyword, rest) {
		return
	}
	if why, ok := dhcpdStatements()[keyword]; !ok || why != "" {
		if !ok {
			why = "there is nothing like it here"
		}
		p.note(line, "%s is not carried over: %s", strings.Join(texts, " "), why)
	}
}

// network reads statements about networks, and reports whether this is one.
func (p *dhcpdParser) network(s *scope, keyword string, rest []string) bool {
	switch keyword {
	case "option routers":
		s.routers = addresses(rest)
	case "option domain-name-servers":
		s.dns = addresses(rest)
	case "option domain-name":
		if len(rest) == 1 && p.site.Domain == "" {
			p.site.Domain = rest[0]
		}
	case "next-server":
		if a := addresses(rest); len(a) == 1 && !p.site.Server.Address.IsValid() {
			p.site.Server.Address = a[0]
		}
	default:
		return false
	}
	return true
}

func addresses(texts []string) (list []netip.Addr) {
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil && a.Is4() {
			list = append(list, a)
		}
	}
	return list
}

// host reads statements about a host, and reports whether this is one.
func (p *dhcpdParser) host(s *scope, line int, keyword string, rest []string) bool {
	if s.host == nil || len(rest) == 0 {
		return false
	}
	n := s.host
	if len(n.Cards) == 0 {
		n.Cards = []describe.Card{{Place: p.at(line)}}
	}
	card := &n.Cards[0]
	switch keyword {
	case "hardware":
		mac, ok := parseMAC(rest[len(rest)-1])
		if rest[0] != "ethernet" || !ok {
			p.note(line, "the hardware address of host %s is not carried over: it is not one of Ethernet", n.Name)
			return true
		}
		card.MAC = mac
	case "fixed-address":
		list := addresses(rest)
		if len(list) == 0 {
			p.note(line, "the address of host %s is not carried over: %s is a name", n.Name, rest[0])
			return true
		}
		card.Address = list[0]
		if len(rest) > 1 {
			p.note(line, "further addresses of host %s are not carried over: a card has one", n.Name)
		}
	case "fixed-address6":
		a, err := netip.ParseAddr(rest[0])
		if err != nil || !a.Is6() {
			p.note(line, "the IPv6 address of host %s is not carried over: %s is none", n.Name, rest[0])
			return true
		}
		card.Address6 = a
	case "option host-name":
		if rest[0] != n.Name {
			p.note(line, "the host %s gets the name %s, which is its option host-name", n.Name, rest[0])
			n.Name = rest[0]
		}
	default:
		return false
	}
	return true
}

// dhcpdStatements are statements that are left out, with the reasons; "": it needs no note.
func dhcpdStatements() map[string]string {
	const boots = "image servers tell each firmware what it boots"
	const ranges = "only declared nodes get addresses"
	const lease = "nodes keep their addresses for as long as they are declared"
	return map[string]string{
		"filename": boots, "server-name": boots, "allow": "", "deny": "", "ignore": "",
		"option tftp-server-name": boots, "option bootfile-name": boots,
		"range": ranges, "range6": ranges, "include": "give the file to the import, too",
		"host-identifier":           "nodes are known by their hardware addresses",
		"option dhcp6.name-servers": "write the addresses to dns=\"…\" of <network>",
		"default-lease-time":        "", "max-lease-time": "", "min-lease-time": lease,
		"authoritative": "", "ddns-update-style": "", "log-facility": "", "use-host-decl-names": "",
		"option subnet-mask": "", "option broadcast-address": "", "one-lease-per-client": "", "get-lease-hostnames": "",
	}
}
