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

// passing is the name that a card has on the way from a name to the same name.
const passing = "dimboot"

// renames returns the steps after which the card has the name want by user space's wish: the kernel notes that
// (name_assign_type 4, NET_NAME_RENAMED), and udev's policy "keep" then leaves the name alone. Another card of
// that name gets the next free one.
func renames(cards []card, boot, want string) []rename {
	if want == "" {
		want = boot
	}
	taken := make(map[string]bool)
	for _, c := range cards {
		taken[c.name] = true
	}
	var steps []rename
	if boot != want && taken[want] {
		steps = append(steps, rename{want, freeName(want, taken)})
	}
	if boot == want {
		steps = append(steps, rename{boot, passing})
		boot = passing
	}
	return append(steps, rename{boot, want})
}

// freeName counts on from a name that is taken: eth0 gives eth1, or the next that is free.
func freeName(name string, taken map[string]bool) string {
	stem := strings.TrimRight(name, "0123456789")
	for i := 1; ; i++ {
		digits := fmt.Sprint(i)
		n := stem[:min(len(stem), 15-len(digits))] + digits
		if !taken[n] && n != name {
			return n
		}
	}
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
