package nodeinit

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// card is one network card as the kernel shows it.
type card struct {
	name    string
	mac     net.HardwareAddr
	carrier bool
}

// always are loaded whatever the hardware is.
var always = [...]string{"nfs", "nfsv3", "af_packet"}

// drivers returns the modules that the devices ask for, in load order, without those already tried.
func drivers(ix *kmod.Index, modaliases, names []string, p *Params, tried map[string]bool) []string {
	var want []string
	for _, a := range modaliases {
		want = append(want, ix.Lookup(a)...)
	}
	for _, n := range names {
		want = append(want, ix.Lookup(n)...)
	}
	var order []string
	for _, w := range want {
		if slices.Contains(p.Blacklist, w) {
			continue
		}
		for _, n := range ix.LoadOrder(w) {
			if !tried[n] {
				tried[n] = true
				order = append(order, n)
			}
		}
	}
	return order
}

// bootCards returns the cards that the node may boot from: the one with the address of the command line, or without one
// all that there are.
func bootCards(cards []card, p *Params) []card {
	if p.BootMAC == nil {
		return cards
	}
	for _, c := range cards {
		if bytes.Equal(c.mac, p.BootMAC) {
			return []card{c}
		}
	}
	return nil
}

// rename is one step of giving cards their names.
type rename struct{ from, to string }

// The names that cards have on the way: the boot card from a name to the same name, another one that gives its
// name up to the boot card.
const (
	passing      = "dimboot"
	passingOther = "dimother"
)

// renames returns the steps after which the card has the name want by user space's wish: the kernel notes that
// (name_assign_type 4, NET_NAME_RENAMED), and udev's policy "keep" then leaves the name alone. Another card of
// that name gets the boot card's old one.
func renames(cards []card, boot, want string) []rename {
	if want == "" || boot == want {
		return []rename{{boot, passing}, {passing, boot}}
	}
	if slices.ContainsFunc(cards, func(c card) bool { return c.name == want }) {
		return []rename{{want, passingOther}, {boot, want}, {passingOther, boot}}
	}
	return []rename{{boot, want}}
}

func describe(cards []card) string {
	if len(cards) == 0 {
		return "there is no network card"
	}
	var b strings.Builder
	b.WriteString("the cards here are")
	for _, c := range cards {
		fmt.Fprintf(&b, " %s (%s)", c.name, c.mac)
	}
	return b.String()
}
