package boot

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// firmware is what a client's DHCP message tells about the program that sent it.
type firmware int

const (
	ordinary  firmware = iota // a DHCP client of an operating system: no boot file
	pxe                       // loads by TFTP
	httpBoot                  // UEFI HTTP Boot: loads a URL
	ipxe                      // takes the script
	pxelinux                  // reads a pxelinux configuration by itself: SLOF, petitboot, U-Boot
	dimInit                   // our own, in the initramfs
	nothingTo                 // wants to boot, and there is no loader for it
)

// String returns a word for people.
func (f firmware) String() string {
	return [...]string{"DHCP client", "PXE", "UEFI HTTP Boot", "iPXE", "pxelinux", "dim-init", "unsupported firmware"}[f]
}

// arch is one line of the table of architectures.
type arch struct {
	code    uint16 // option 93, IANA "Processor Architecture Types"
	name    string
	kind    firmware
	loaders []string // relative to the package's directory, the first that is there is taken
}

// architectures returns the table. snponly.efi comes before ipxe.efi: it uses the firmware's own driver for the card, which
// has just been seen to work, and is a fifth of the size. Debian's package has no ARM loader; the names are those of other packages.
func architectures() []arch {
	var (
		x64   = []string{"snponly.efi", "ipxe.efi"}
		arm64 = []string{"arm64-efi/snponly.efi", "ipxe-arm64.efi", "arm64-efi/ipxe.efi"}
		ia32  = []string{"i386-efi/snponly.efi", "i386-efi/ipxe.efi"}
	)
	return []arch{
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

// identify tells which firmware asks, and the line of the table that suits it.
func identify(a Asker) (firmware, arch) {
	line := arch{name: "unknown architecture"}
	for _, code := range append(slices.Clone(a.Archs), vendorArch(a.VendorClass)...) {
		if i := slices.IndexFunc(architectures(), func(x arch) bool { return x.code == code }); i >= 0 {
			line = architectures()[i]
			break
		}
	}
	known := line.kind != ordinary
	switch {
	case strings.HasPrefix(a.VendorClass, "dim-init"):
		return dimInit, line
	case a.IPXE:
		return ipxe, line
	case known && line.kind == pxelinux:
		return pxelinux, line
	case strings.HasPrefix(a.VendorClass, "HTTPClient"):
		if line.kind != httpBoot {
			return nothingTo, line
		}
		return httpBoot, line
	case strings.HasPrefix(a.VendorClass, "PXEClient"):
		if line.kind != pxe {
			return nothingTo, line
		}
		return pxe, line
	case known && len(a.Archs) > 0: // firmware that sends no vendor class
		return line.kind, line
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

// loader returns the name of the first loader of the line that is installed, or "".
func (b *Boot) loader(line arch) string {
	for _, name := range line.loaders {
		if fi, err := os.Stat(filepath.Join(b.Loaders, name)); err == nil && fi.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// FindLoaders returns where Options.Loaders lets loaders be looked for, and whether any is there.
func FindLoaders(option string) (dir string, found bool) {
	b := New(Options{Loaders: option})
	return b.Loaders, slices.ContainsFunc(architectures(), func(line arch) bool { return b.loader(line) != "" })
}

// openLoader opens a loader by name. Only names of the table can be asked for, so there is no way out of the directory but
// by the symbolic links in it, which are its owner's (Debian's ipxe.efi is one to /boot).
func (b *Boot) openLoader(name string) (*os.File, fs.FileInfo, error) {
	known := slices.ContainsFunc(architectures(), func(a arch) bool { return slices.Contains(a.loaders, name) })
	if !known {
		return nil, nil, fmt.Errorf("open loader %q: %w", name, fs.ErrNotExist)
	}
	f, err := os.Open(filepath.Join(b.Loaders, name))
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("open loader %q: not a regular file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}
