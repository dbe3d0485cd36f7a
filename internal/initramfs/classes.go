package initramfs

import (
	"fmt"
	"slices"
	"strings"

	"dim/internal/kmod"
)

// The classes of modules in every initramfs, by the path of their files. A node's card is not known when the initramfs
// is built, and one image boots different machines: therefore it has the drivers of all cards.
var (
	wantedDirs = [...]string{
		"kernel/drivers/net/ethernet/",
		"kernel/drivers/net/phy/", // requested by the drivers at run time; not in modules.dep
		"kernel/drivers/net/mdio/",
		"kernel/drivers/net/vmxnet3/",
		"kernel/drivers/net/hyperv/",
		"kernel/drivers/pci/controller/", // the cards' buses, if they are modules
	}
	unwantedDirs = [...]string{
		"kernel/drivers/net/ethernet/mellanox/mlxsw/",     // the chips of switches
		"kernel/drivers/net/ethernet/marvell/prestera/",   // likewise
		"kernel/drivers/net/ethernet/microchip/sparx5/",   // likewise
		"kernel/drivers/net/ethernet/microchip/lan966x/",  // likewise
		"kernel/drivers/net/ethernet/mellanox/mlxbf_gige", // a card's own management port
	}
	wantedNames = [...]string{
		"virtio_net", "virtio_pci", "virtio_mmio", "hv_vmbus", "pci_hyperv", "xen_netfront", "vmd", "af_packet",
	}
	// unwantedDeps are modules on which only cards depend that no node boots from.
	unwantedDeps = [...]string{"pcmcia", "parport", "usbcore", "usbnet", "can_dev"}
	// required must be built in or modules.
	required = [...]string{"nfs", "nfsv3", "sunrpc", "lockd"}
)

// chooseModules returns the set of modules for the initramfs, closed under dependencies.
func chooseModules(ix *kmod.Index, extra []string) (map[string]bool, error) {
	chosen := make(map[string]bool)
	add := func(name string) {
		for _, n := range ix.LoadOrder(name) {
			chosen[n] = true
		}
	}
	for _, name := range ix.Names() {
		if wanted(ix, name) {
			add(name)
		}
	}
	for _, name := range required {
		if _, ok := ix.Path(name); !ok && !ix.Builtin(name) && name != "lockd" && name != "sunrpc" {
			return nil, fmt.Errorf(
				"choose modules: the kernel has no module %s, nor is it built in: it cannot mount an NFS root", name)
		}
		add(name)
	}
	for _, name := range extra {
		found := ix.Lookup(name)
		if len(found) == 0 && !ix.Builtin(name) {
			return nil, fmt.Errorf("choose modules: the description names %s, which this kernel does not have", name)
		}
		for _, n := range found {
			add(n)
		}
	}
	return chosen, nil
}

// wanted reports whether a module belongs to the classes.
func wanted(ix *kmod.Index, name string) bool {
	file, _ := ix.Path(name)
	// Modules of other packages are in updates/, extra/ or weak-updates/, with the same path below.
	if i := strings.Index(file, "drivers/"); i > 0 {
		file = "kernel/" + file[i:]
	}
	has := func(dir string) bool { return strings.HasPrefix(file, dir) }
	if !slices.ContainsFunc(wantedDirs[:], has) && !slices.Contains(wantedNames[:], name) {
		return false
	}
	if slices.ContainsFunc(unwantedDirs[:], has) {
		return false
	}
	unwantedDep := func(n string) bool { return slices.Contains(unwantedDeps[:], n) }
	return !slices.ContainsFunc(ix.LoadOrder(name), unwantedDep)
}
