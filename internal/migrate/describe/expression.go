package describe

import (
	"fmt"
	"strings"
)

// term is a variable part of an expression: its text, and its value for the first member of a box.
type term struct {
	text string
	from int
}

// variables are the terms for the coordinates of a box and for the numbers in its names. levels are the names of the
// levels if the box is what the taxonomy counts; otherwise the variable i counts it.
func (b *box) variables(levels []string) (values, names []term) {
	dimensions := len(b.family.widths)
	first := b.members[0].numbers
	for d := range b.sizes {
		switch {
		case dimensions == 1 && len(levels) > 0:
			values = append(values, b.cut(d, levels[0], first[0]))
		case len(levels) > 0:
			values = append(values, term{levels[d], first[d]})
		default:
			values = append(values, b.cut(d, "i", 1))
		}
	}
	switch {
	case dimensions != 1:
		return values, values
	case len(levels) > 0:
		return values, []term{{levels[0], first[0]}}
	}
	return values, []term{{"i", 1}}
}

// cut returns a coordinate as part of one number that counts the members.
func (b *box) cut(dimension int, variable string, from int) term {
	stride := b.stride(dimension)
	outermost := true
	for _, s := range b.sizes[:dimension] {
		outermost = outermost && s == 1
	}
	if stride == 1 && outermost {
		return term{variable, from}
	}
	text := variable
	if from != 0 {
		text = fmt.Sprintf("(%s-%d)", variable, from)
	}
	if stride > 1 {
		text += fmt.Sprintf("/%d", stride)
	}
	if !outermost {
		text += fmt.Sprintf("%%%d", b.sizes[dimension])
	}
	return term{"(" + text + ")", 0}
}

// fit returns the affine expression over terms whose value for each member is that of value. constant is set if the
// value is the same for all. It is not ok if there is no such expression.
func (b *box) fit(terms []term, value func(*member) int64) (text string, constant, ok bool) {
	base := value(b.members[0])
	slopes := make([]int64, len(b.sizes))
	for d := range b.sizes {
		if s := b.stride(d); b.sizes[d] > 1 && s < len(b.members) {
			slopes[d] = value(b.members[s]) - base
		}
	}
	for i, m := range b.members {
		want := base
		for d, slope := range slopes {
			want += slope * int64(i/b.stride(d)%b.sizes[d])
		}
		if value(m) != want {
			return "", false, false
		}
	}
	for d, slope := range slopes {
		base -= slope * int64(terms[d].from)
	}
	return affine(terms, slopes, base)
}

// affine writes a sum of products.
func affine(terms []term, slopes []int64, base int64) (text string, constant, ok bool) {
	var plus, minus strings.Builder
	for d, slope := range slopes {
		w := &plus
		if slope < 0 {
			slope, w = -slope, &minus
		}
		switch slope {
		case 0:
			continue
		case 1:
			w.WriteString("+" + terms[d].text)
		default:
			fmt.Fprintf(w, "+%s*%d", terms[d].text, slope)
		}
	}
	constant = plus.Len() == 0 && minus.Len() == 0
	if base > 0 || constant || plus.Len() == 0 {
		text = fmt.Sprint(base) + plus.String()
	} else {
		text = strings.TrimPrefix(plus.String(), "+")
		if base < 0 {
			text += fmt.Sprint(base)
		}
	}
	return text + strings.ReplaceAll(minus.String(), "+", "-"), constant, base >= 0 || plus.Len() > 0
}

// name returns the pattern of the names of the members.
func (b *box) name(terms []term) string {
	var p strings.Builder
	for d, width := range b.family.widths {
		p.WriteString(b.family.literals[d])
		text, constant, _ := affineNumber(b, terms, d)
		switch {
		case constant:
			fmt.Fprintf(&p, "%0*d", width, b.members[0].numbers[d])
		case width > 0:
			fmt.Fprintf(&p, "{%s:0%d}", text, width)
		default:
			p.WriteString("{" + text + "}")
		}
	}
	p.WriteString(b.family.literals[len(b.family.widths)])
	return p.String()
}

// affineNumber is the expression of one number of the names.
func affineNumber(b *box, terms []term, dimension int) (text string, constant, ok bool) {
	if len(b.family.widths) == 1 { // one number counts the members, however many coordinates they have
		return affine(terms, []int64{1}, int64(b.members[0].numbers[0]-terms[0].from))
	}
	return b.fit(terms, func(m *member) int64 { return int64(m.numbers[dimension]) })
}

// notation is how an address is written: the number of its octets, what is between them, and their format.
type notation struct {
	count             int
	separator, format string
}

// octets returns a pattern of the octets of value, or "" if there is none.
func (b *box) octets(terms []term, n notation, value func(*member) int64) string {
	whole, _, follows := b.fit(terms, value)
	var parts []string
	for i := n.count - 1; i >= 0; i-- {
		shift := 8 * i
		octet, constant, ok := b.fit(terms, func(m *member) int64 { return value(m) >> shift & 0xff })
		switch {
		case constant && n.format == "":
			parts = append(parts, octet)
			continue
		case constant:
			parts = append(parts, fmt.Sprintf("%02x", value(b.members[0])>>shift&0xff))
			continue
		case !ok && !follows:
			return ""
		case !ok && i == 0:
			octet = fmt.Sprintf("(%s)%%256", whole)
		case !ok:
			octet = fmt.Sprintf("(%s)/%d%%256", whole, int64(1)<<shift)
		}
		parts = append(parts, "{"+octet+n.format+"}")
	}
	text := strings.Join(parts, n.separator)
	if len(text) > maxPattern {
		return ""
	}
	return text
}

// maxPattern is the limit of package cluster for an attribute with expressions.
const maxPattern = 256

func (b *box) address(terms []term, card int) string {
	return b.octets(terms, notation{4, ".", ""}, func(m *member) int64 { return m.values[card] })
}

// hardwareAddress returns the pattern of the hardware addresses of a card, or "" if they follow no rule.
func (b *box) hardwareAddress(terms []term, card int) string {
	for _, m := range b.members {
		if len(m.Cards[card].MAC) != 6 {
			return ""
		}
	}
	value := func(m *member) (v int64) {
		for _, octet := range m.Cards[card].MAC {
			v = v<<8 | int64(octet)
		}
		return v
	}
	if m := b.members; len(m) == 2 && value(m[1])-value(m[0]) != 1 {
		return "" // any two are on a line
	}
	return b.octets(terms, notation{6, ":", ":02x"}, value)
}
