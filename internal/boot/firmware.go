package boot

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// firmware is the kind of program that sent a DHCP message.
type firmware int

const (
	ordinary    firmware = iota // a DHCP client of an operating system: no boot file
	pxe                         // loads by TFTP
	httpBoot                    // UEFI HTTP Boot: loads a URL
	ipxe                        // takes the script
	pxelinux                    // reads a pxelinux configuration by itself: SLOF, petitboot, U-Boot
	dimInit                     // our own, in the initramfs
	unsupported                 // wants to boot, and there is no loader for it
)

// String returns a word for people.
func (f firmware) String() string {
	return [...]string{
		"DHCP client", "PXE", "UEFI HTTP Boot", DetailIPXE, "pxelinux", "dim-init", "unsupported firmware",
	}[f]
}

// class is a class of firmware: one line of the table.
type class struct {
	arch     uint16 // option 93, IANA "Processor Architecture Types"
	name     string
	firmware firmware
	loaders  []string // relative to the directory of the iPXE package; the first that is installed is taken
}

// classes returns the table of firmware classes. It is data, so that more than DHCP answers can be made from it.
// snponly.efi comes before ipxe.efi: it uses the firmware's own driver for the card, which has just been seen to work,
// and is a fifth of the size. Debian's package has no ARM loader; the names are those of other packages.
func classes() []class {
	var (
		x64   = []string{"snponly.efi", "ipxe.efi"}
		arm64 = []string{"arm64-efi/snponly.efi", "ipxe-arm64.efi", "arm64-efi/ipxe.efi"}
		ia32  = []string{"i386-efi/snponly.efi", "i386-efi/ipxe.efi"}
	)
	return []class{
		{0, "BIOS", pxe, []string{"undionly.kpxe"}},
		{6, "UEFI, 32 bits", pxe, ia32},
		{7, "UEFI x86_64", pxe, x64},
		{9, "UEFI x86_64", pxe, x64},
		{11, "UEFI arm64", pxe, arm64},
		{12, "Open Firmware", pxelinux, nil},
		{13, "ePAPR", pxelinux, nil},
		{14, "OPAL", pxelinux, nil},
		{16, "UEFI x86_64 HTTP", httpBoot, []string{"ipxe.efi", "snponly.efi"}},
		{19, "UEFI arm64 HTTP", httpBoot, arm64},
		{21, "U-Boot arm", pxelinux, nil},
		{22, "U-Boot arm64", pxelinux, nil},
	}
}

// Loaders returns the names of all loaders of the table, relative to the directory of the iPXE package.
func Loaders() []string {
	var names []string
	for _, c := range classes() {
		for _, name := range c.loaders {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// identify tells which firmware a client is, and its class.
func identify(c Client) (firmware, class) {
	archs := append(slices.Clone(c.Archs), vendorArch(c.VendorClass)...)
	line := class{name: "no architecture named"}
	if len(archs) > 0 {
		line.name = fmt.Sprintf("architecture %d (option 93), which is not known here", archs[0])
	}
	for _, arch := range archs {
		if i := slices.IndexFunc(classes(), func(x class) bool { return x.arch == arch }); i >= 0 {
			line = classes()[i]
			break
		}
	}
	known := line.firmware != ordinary
	switch {
	case strings.HasPrefix(c.VendorClass, "dim-init"):
		return dimInit, line
	case c.IPXE:
		return ipxe, line
	case known && line.firmware == pxelinux:
		return pxelinux, line
	case strings.HasPrefix(c.VendorClass, "HTTPClient"):
		if line.firmware != httpBoot {
			return unsupported, line
		}
		return httpBoot, line
	case strings.HasPrefix(c.VendorClass, "PXEClient"):
		if line.firmware != pxe {
			return unsupported, line
		}
		return pxe, line
	case known && len(c.Archs) > 0: // firmware that sends no vendor class
		return line.firmware, line
	}
	return ordinary, line
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
