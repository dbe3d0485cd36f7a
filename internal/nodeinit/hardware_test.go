package nodeinit

import (
	"net"
	"testing"

	"dim/internal/kmod"
)

func tables() *kmod.Index {
	return kmod.Parse(kmod.Tables{
		Dep: "k/virtio.ko:\nk/virtio_pci.ko: k/virtio.ko\nk/virtio_net.ko: k/virtio.ko\nk/e1000e.ko:\n" +
			"k/nfs.ko: k/sunrpc.ko\nk/sunrpc.ko:\nk/nfsv3.ko: k/nfs.ko k/sunrpc.ko\n",
		Alias: "alias pci:v00001AF4d* virtio_pci\nalias virtio:d00000001v* virtio_net\nalias pci:v00008086d* e1000e\n",
	})
}

func TestDriversAreThoseOfTheHardwareOnceEach(t *testing.T) {
	tried := make(map[string]bool)
	p := &params{Blacklist: []string{"e1000e"}}
	aliases := []string{"pci:v00001AF4d00001041", "pci:v00008086d00001533"}
	order := drivers(tables(), append(aliases, always[:]...), p, tried)
	compare(t, []string{"virtio", "virtio_pci", "sunrpc", "nfs", "nfsv3"}, order)
	aliases = append(aliases, "virtio:d00000001v00001AF4")
	compare(t, []string{"virtio_net"}, drivers(tables(), append(aliases, always[:]...), p, tried))
	compare(t, []string(nil), drivers(tables(), append(aliases, always[:]...), p, tried))
}

func someCards(names ...string) []card {
	var cards []card
	for i, n := range names {
		cards = append(cards, card{name: n, mac: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}})
	}
	return cards
}

func TestTheBootCardIsTheOneOfTheCommandLine(t *testing.T) {
	cards := someCards("eth0", "eth1")
	compare(t, 2, len(bootCards(cards, &params{})))
	got := bootCards(cards, &params{BootMAC: cards[1].mac})
	compare(t, 1, len(got))
	compare(t, "eth1", got[0].name)
	compare(t, 0, len(bootCards(cards, &params{BootMAC: net.HardwareAddr{9, 9, 9, 9, 9, 9}})))
}

func TestRenames(t *testing.T) {
	for _, c := range []struct {
		what       string
		cards      []string
		boot, want string
		steps      []rename
	}{
		{"its name already", []string{"eth0"}, "eth0", "eth0", []rename{{"eth0", tempName}, {tempName, "eth0"}}},
		{"a free name", []string{"eth0", "eth1"}, "eth1", "boot0", []rename{{"eth1", "boot0"}}},
		{"another card's name", []string{"eth0", "eth1"}, "eth1", "eth0",
			[]rename{{"eth0", tempOtherName}, {"eth1", "eth0"}, {tempOtherName, "eth1"}}},
		{"none declared", []string{"eth0", "eth1"}, "eth1", "", []rename{{"eth1", tempName}, {tempName, "eth1"}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := renames(someCards(c.cards...), c.boot, c.want)
			if len(got) != len(c.steps) {
				t.Fatalf("steps %v, want %v", got, c.steps)
			}
			for i := range got {
				if got[i] != c.steps[i] {
					t.Errorf("step %d = %v, want %v", i, got[i], c.steps[i])
				}
			}
		})
	}
}
