package boot

import "slices"

// class is a class of firmware: one line of the table.
type class struct {
	arch      uint16 // option 93, IANA "Processor Architecture Types"
	name      string
	processor string   // the arch of images that it can boot; "": none
	way       firmware // pxe, httpBoot, pxelinux or unsupported
	loaders   []string // relative to the directory of the iPXE package; the first that is installed is taken
	advice    string   // of unsupported: why, and what to do
}

// Architectures that have a meaning of their own.
const (
	archBIOS        = 0
	archRaspberryPi = 41
)

// Sentences for firmware without a loader.
const (
	adviceNone    = "no image of this cluster can run on its processor"
	adviceUpdate  = "update the firmware, or boot the node by PXE or UEFI HTTP"
	advicePXE     = "let the firmware boot by PXE instead of HTTP"
	adviceRPi     = "install UEFI firmware or U-Boot on its SD card or flash"
	adviceRetired = "the code is retired: update the firmware"
)

// classes returns the table of firmware classes: every architecture that IANA lists. It is data, so that DHCP answers,
// the reference page and configurations of other DHCP servers are made from it.
//
// snponly.efi comes before ipxe.efi: it uses the firmware's own driver for the card, which has just been seen to work,
// and is a fifth of the size. Debian's package has no ARM loader; the names are those of other packages. The first
// editions of RFC 4578 exchanged 7 and 9, so that both are x86_64.
func classes() []class {
	const amd64, arm64, ppc64le = "amd64", "arm64", "ppc64le"
	var (
		x64   = []string{"snponly.efi", "ipxe.efi"}
		x64h  = []string{"ipxe.efi", "snponly.efi"}
		aa64  = []string{"arm64-efi/snponly.efi", "ipxe-arm64.efi", "arm64-efi/ipxe.efi"}
		ia32  = []string{"i386-efi/snponly.efi", "i386-efi/ipxe.efi"}
		undi  = []string{"undionly.kpxe"}
		other = func(arch uint16, name string) class { return class{arch, name, "", unsupported, nil, adviceNone} }
		old   = func(arch uint16, name string) class { return class{arch, name, "", unsupported, nil, adviceRetired} }
	)
	return []class{
		{0, "BIOS", amd64, pxe, undi, ""},
		old(1, "NEC PC-98"),
		other(2, "Itanium"),
		old(3, "DEC Alpha"),
		old(4, "Arc x86"),
		old(5, "Intel Lean Client"),
		{6, "UEFI, 32 bits", amd64, pxe, ia32, ""},
		{7, "UEFI x86_64", amd64, pxe, x64, ""},
		old(8, "EFI Xscale"),
		{9, "UEFI x86_64", amd64, pxe, x64, ""},
		other(10, "UEFI arm, 32 bits"),
		{11, "UEFI arm64", arm64, pxe, aa64, ""},
		{12, "Open Firmware", ppc64le, pxelinux, nil, ""},
		{13, "ePAPR", ppc64le, pxelinux, nil, ""},
		{14, "OPAL", ppc64le, pxelinux, nil, ""},
		{15, "UEFI HTTP, 32 bits", amd64, httpBoot, ia32, ""},
		{16, "UEFI x86_64 HTTP", amd64, httpBoot, x64h, ""},
		{17, "UEFI x86_64 HTTP", amd64, httpBoot, x64h, ""},
		other(18, "UEFI arm HTTP, 32 bits"),
		{19, "UEFI arm64 HTTP", arm64, httpBoot, aa64, ""},
		{20, "BIOS HTTP", "", unsupported, nil, advicePXE},
		other(21, "U-Boot arm, 32 bits"),
		{22, "U-Boot arm64", arm64, pxelinux, nil, ""},
		other(23, "U-Boot arm HTTP, 32 bits"),
		{24, "U-Boot arm64 HTTP", arm64, httpBoot, aa64, ""},
		other(25, "UEFI RISC-V, 32 bits"),
		other(26, "UEFI RISC-V HTTP, 32 bits"),
		other(27, "UEFI RISC-V, 64 bits"),
		other(28, "UEFI RISC-V HTTP, 64 bits"),
		other(29, "UEFI RISC-V, 128 bits"),
		other(30, "UEFI RISC-V HTTP, 128 bits"),
		other(31, "s390 basic"),
		other(32, "s390 extended"),
		other(33, "UEFI MIPS, 32 bits"),
		other(34, "UEFI MIPS, 64 bits"),
		other(35, "UEFI Sunway, 32 bits"),
		other(36, "UEFI Sunway, 64 bits"),
		other(37, "UEFI LoongArch, 32 bits"),
		other(38, "UEFI LoongArch HTTP, 32 bits"),
		other(39, "UEFI LoongArch, 64 bits"),
		other(40, "UEFI LoongArch HTTP, 64 bits"),
		{archRaspberryPi, "Raspberry Pi", arm64, unsupported, nil, adviceRPi},
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
