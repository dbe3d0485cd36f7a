package nodeinit

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// card is one network card.
type card struct {
	name    string
	mac     net.HardwareAddr
	carrier bool
	speed   int // in Mbit/s; 0: the driver does not tell
}

// linkText says that a card has a link, and how fast it is: "the boot card eth0 (52:…:01) has a link, 1000 Mb/s".
// Package timeline reads the speed from it.
func (c *card) linkText() string {
	text := fmt.Sprintf("the boot card %s (%s) has a link", c.name, c.mac)
	if c.speed > 0 {
		text += fmt.Sprintf(", %d Mb/s", c.speed)
	}
	return text
}

// always are the modules that are loaded whatever the hardware is.
var always = [...]string{"nfs", "nfsv3", "af_packet"}

// drivers returns the modules of the given modaliases and names, in load order. It leaves out modules that were tried
// before and adds the others to tried.
func drivers(ix *kmod.Index, names []string, p *params, tried map[string]bool) []string {
	var order []string
	for _, name := range names {
		for _, module := range ix.Lookup(name) {
			if slices.Contains(p.Blacklist, module) {
				continue
			}
			for _, n := range ix.LoadOrder(module) {
				if !tried[n] {
					tried[n] = true
					order = append(order, n)
				}
			}
		}
	}
	return order
}

// bootCards returns the cards that the node may boot from: the one with the address of the command line, or all if
// there is no such address.
func bootCards(cards []card, p *params) []card {
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

// Temporary names: of the boot card when it already has its name, and of another card that has the boot card's name.
const (
	tempName      = "dimboot"
	tempOtherName = "dimother"
)

// renames returns the steps that give the boot card the name want, or its present name if want is "". There is always a
// step: after a rename by user space (name_assign_type 4, NET_NAME_RENAMED) udev's policy "keep" leaves the name alone.
// Another card that has the name gets the boot card's old one.
func renames(cards []card, boot, want string) []rename {
	if want == "" || boot == want {
		return []rename{{boot, tempName}, {tempName, boot}}
	}
	if slices.ContainsFunc(cards, func(c card) bool { return c.name == want }) {
		return []rename{{want, tempOtherName}, {boot, want}, {tempOtherName, boot}}
	}
	return []rename{{boot, want}}
}

func describeCards(cards []card) string {
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
