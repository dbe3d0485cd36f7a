package boot

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"dim/internal/cluster"
)

// firmware is the kind of program that sent a DHCP message.
type firmware int

const (
	ordinary    firmware = iota // a DHCP client of an operating system: no boot file
	pxe                         // loads by TFTP
	httpBoot                    // UEFI HTTP Boot: loads a URL
	ipxe                        // takes the script
	pxelinux                    // reads a pxelinux configuration by itself: SLOF, petitboot, U-Boot
	silent                      // as pxelinux, or the client of an operating system: it does not say which
	dimInit                     // our own, in the initramfs
	unsupported                 // wants to boot, and there is no loader for it
)

// String returns a word for people.
func (f firmware) String() string {
	return [...]string{
		"DHCP client", "PXE", "UEFI HTTP Boot", DetailIPXE, "pxelinux", "DHCP client", "dim-init",
		"unsupported firmware",
	}[f]
}

// identify tells which firmware a client is, and its class. What firmware does not say of itself follows from the image
// of its node.
func identify(c *Client, im *cluster.Image) (firmware, class) {
	way := wayOf(c)
	named := append(slices.Clone(c.Archs), vendorArch(c.VendorClass)...)
	x := classOf(named, way)
	switch {
	case raspberryPi(c.MAC) && x.arch == archBIOS && len(named) > 0:
		x = classOf([]uint16{archRaspberryPi}, way)
	case len(named) == 0:
		x = silentClass(im)
	}
	switch {
	case way == dimInit || way == ipxe:
		return way, x
	case way == pxelinux && (x.name == "" || x.way == pxelinux):
		x.name = cmp.Or(x.name, "firmware that asks for it")
		return pxelinux, x
	case len(named) > 0:
		x.name = cmp.Or(x.name, fmt.Sprintf("architecture %d (option 93), which is not known here", named[0]))
		return cmp.Or(x.way, unsupported), x
	case way == pxe || way == httpBoot:
		return unsupported, class{name: "firmware that names no architecture", advice: adviceUpdate}
	case x.way == pxelinux && (c.VendorClass == "" || c.BOOTP):
		return silent, x
	}
	return ordinary, class{}
}

// wayOf tells from all but the architecture how a client boots; ordinary: it does not say.
func wayOf(c *Client) firmware {
	switch {
	case strings.HasPrefix(c.VendorClass, "dim-init"):
		return dimInit
	case c.IPXE:
		return ipxe
	case strings.HasPrefix(c.VendorClass, "HTTPClient"):
		return httpBoot
	case strings.HasPrefix(c.VendorClass, "PXEClient"):
		return pxe
	case c.WantsConfig || strings.HasPrefix(c.VendorClass, "U-Boot"):
		return pxelinux
	}
	return ordinary
}

// classOf returns the class of firmware that names these architectures and boots in that way. The first architecture
// of that way counts, else the first that is known, with its bytes exchanged if need be. If that one boots in another
// way, and the same firmware is in the table with this way, that class is returned. The zero class is returned if none
// is known.
func classOf(named []uint16, way firmware) class {
	var known []class
	for _, order := range []func(uint16) uint16{func(x uint16) uint16 { return x }, exchanged} {
		for _, arch := range named {
			if i := slices.IndexFunc(classes(), func(x class) bool { return x.arch == order(arch) }); i >= 0 {
				known = append(known, classes()[i])
			}
		}
		if len(known) > 0 {
			break
		}
	}
	if len(known) == 0 {
		return class{}
	}
	for _, list := range [][]class{known, classes()} {
		for _, x := range list {
			if x.way == way && x.family() == known[0].family() {
				return x
			}
		}
	}
	return known[0]
}

// family returns the name of a class without the way in which it boots.
func (x *class) family() string { return strings.Replace(x.name, " HTTP", "", 1) }

// exchanged returns x with its bytes exchanged: some firmware sends it in the order of its processor.
func exchanged(x uint16) uint16 { return x<<8 | x>>8 }

// silentClass returns the class of firmware that names no architecture, on a node of an image.
func silentClass(im *cluster.Image) class {
	if im.Arch == "amd64" {
		return class{} // firmware of PCs names it
	}
	for _, x := range classes() {
		if x.way == pxelinux && x.processor == im.Arch {
			return x
		}
	}
	return class{}
}

// vendorArch reads the architecture out of "PXEClient:Arch:00007:UNDI:003016", for ROMs that send no option 93.
func vendorArch(class string) []uint16 {
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok {
		return nil
	}
	digits, _, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return nil
	}
	return []uint16{uint16(n)}
}

// raspberryPi reports whether a card is one of a Raspberry Pi, whose boot ROM calls itself a BIOS. These are the blocks
// of addresses that the IEEE has assigned to its makers.
func raspberryPi(mac net.HardwareAddr) bool {
	return len(mac) == 6 && slices.Contains([]string{
		"\xb8\x27\xeb", "\xdc\xa6\x32", "\xe4\x5f\x01", "\xd8\x3a\xdd", "\x2c\xcf\x67", "\x28\xcd\xc1", "\x88\xa2\x9e",
	}, string(mac[:3]))
}

// mismatch returns why an image cannot run on a machine with firmware of a class, "" if it can or that is not known.
func (x *class) mismatch(im *cluster.Image) string {
	if x.processor == "" || x.processor == im.Arch {
		return ""
	}
	return fmt.Sprintf("its firmware is %s (%s), and its image %s is for %s: give it another image, or correct its MAC",
		x.name, x.processor, im.Name, im.Arch)
}

// noLoader returns why there is no loader for a class of firmware, and what to do.
func (x *class) noLoader(f firmware) string {
	if f != unsupported {
		return fmt.Sprintf("there is no loader for %s, %s: install one of %s, see dim serve --loaders",
			f, x.name, strings.Join(x.loaders, ", "))
	}
	return fmt.Sprintf("there is no loader for %s: %s", x.name, cmp.Or(x.advice, adviceUpdate))
}
