package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// setShape is a form in which other tools name nodes, and what dim calls the same.
type setShape struct {
	pattern string                // of the whole text
	hint    func([]string) string // given the groups of the match; "" for a text that is not meant after all
}

// setShapes are the forms that people bring along, the most specific first.
func setShapes() []setShape {
	const (
		name   = `([A-Za-z][\w.-]*?)`
		number = `(\d{1,9})`
	)
	write := func(format string, groups ...int) func([]string) string {
		return func(m []string) string {
			args := make([]any, len(groups))
			for i, g := range groups {
				args[i] = m[g]
			}
			return "write " + fmt.Sprintf(format, args...)
		}
	}
	sameName := func(m []string) string { // n01-n04, n01:n04
		if m[1] != m[3] {
			return ""
		}
		return fmt.Sprintf("write %s[%s-%s]", m[1], m[2], m[4])
	}
	return []setShape{
		{`@?(?i:all|everything|\*|%all)`, write("@* for all nodes")},
		{`[,;\s]*([^,;\s].*?)\s*[,;]+\s*`, write("'%s' without a separator at its end", 1)},
		{`[,;\s]+([^,;\s].*)`, write("'%s' without a separator before it", 1)},
		{`(.*[^,\s])\s*,(?:\s*,)+\s*(.*)`, write("'%s,%s' with one comma", 1, 2)},
		{`@?(?i:all|everything)\s*[,!\s]\s*-?([A-Za-z@][\w\[\],.-]*)`, write("'@*!%s' for all others", 1)},
		{name + number + `\s*[-:]\s*` + name + number, sameName},
		{name + number + `\+` + number, nextNodes},
		{name + `\{` + number + `\.\.` + number + `\}`, write("%s[%s-%s]", 1, 2, 3)},
		{name + `\[` + number + `(?:\.\.|:)` + number + `\]`, write("%s[%s-%s]", 1, 2, 3)},
		{name + `\{([\w,]+)\}`, write("%s[%s]", 1, 2)},
		{`(\w+)\s*=\s*` + number, write("%s%s for a position in the taxonomy", 1, 2)},
		{`([^@|]+)@(\w[\w.-]*)`, write("'%s&@%s' for what is in both", 1, 2)},
		{`@(\w[\w.-]*)@(\w[\w.-]*)`, write("'@%s&@%s' for what is in both", 1, 2)},
		{`@(\w+):(\w[\w.-]*)`, write("@%s: groups are those of the description", 2)},
		{`(?:group|g)[:=](\w[\w.-]*)`, write("@%s", 1)},
		{`([^|;]+?)\s*(?:\|\||\||;|\+)\s*([^|;&]+)`, write("'%s,%s' for both together", 1, 2)},
		{`(.*?)[\s,]*\s?-([A-Za-z@][^,]*)`, without},
		{`(?:not |~|!|\^)([A-Za-z@][\w\[\],-]*)`, write("'@*!%s' for all others", 1)},
		{`(?:\^|<|@)?(/[\w./-]+\w)`, write("\"$(cat %s)\" for the names in a file", 1)},
		{`[~/^].*|.*(?:\.\*|\$|\\[dw]).*`, fixed(
			"regular expressions are not supported: write a range such as n[01-04], a group such as @cell, or @*")},
		{`.*[*?].*`, fixed("wild cards are not supported: write a range such as n[01-04], or @* for all nodes")},
		{`.*[()].*`, fixed("parentheses are not supported: operators are applied from left to right")},
	}
}

func fixed(hint string) func([]string) string { return func([]string) string { return hint } }

// nextNodes is for n01+3: n01 and the next three.
func nextNodes(m []string) string {
	first, err1 := strconv.Atoi(m[2])
	more, err2 := strconv.Atoi(m[3])
	if err1 != nil || err2 != nil {
		return ""
	}
	return fmt.Sprintf("write %s[%s-%0*d]", m[1], m[2], len(m[2]), first+more)
}

// without is for n[01-04],-n03: all but n03.
func without(m []string) string {
	if m[1] == "" {
		m[1] = "@*"
	}
	if last := m[1][len(m[1])-1]; last != ']' && last != '*' && !(last >= '0' && last <= '9') {
		return "" // a name with a hyphen
	}
	return fmt.Sprintf("write '%s!%s' to leave nodes out", m[1], m[2])
}

// setHint returns what to write instead of a text that is no node set of this cluster; "" if that is not known.
func (c *Cluster) setHint(set string) string {
	set = strings.TrimSpace(set)
	if len(set) > maxExpression {
		return ""
	}
	if hint := c.nodeHint(set); hint != "" {
		return hint
	}
	for _, s := range setShapes() {
		m := regexp.MustCompile(`^(?:` + s.pattern + `)$`).FindStringSubmatch(set)
		if m == nil {
			continue
		}
		if hint := s.hint(m); hint != "" {
			return hint
		}
	}
	return ""
}

// nodeHint names the node whose address, hardware address or name with a domain a text is.
func (c *Cluster) nodeHint(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		if n, _, ok := c.NodeByAddress(a); ok {
			return fmt.Sprintf("%s is the address of %s", text, n.Name)
		}
		return "nodes are named, not addressed; dim node ls lists their addresses"
	}
	if mac, err := net.ParseMAC(text); err == nil {
		if n, _, ok := c.NodeByMAC(mac); ok {
			return fmt.Sprintf("%s is the MAC of %s", text, n.Name)
		}
		return "no node has this MAC; dim node unknown lists machines that are not in the description"
	}
	if short, _, ok := strings.Cut(text, "."); ok {
		if n, ok := c.Node(NodeName(short)); ok {
			return fmt.Sprintf("write %s: names are without the domain", n.Name)
		}
	}
	return ""
}
