package boot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxCommandLine is COMMAND_LINE_SIZE - 1 of the kernel on x86 and arm64 (arch/x86/include/asm/setup.h).
const maxCommandLine = 2047

// initramfsName is what the initramfs is called in the loader; the kernel's EFI stub asks the loader for the file of
// that name.
const initramfsName = "initramfs"

// words returns the node's own words: the table "Written by the server" of docs/reference/kernel-parameters.md, without
// initrd.
func (t *Target) words() []string {
	w := []string{
		"BOOTIF=01-" + strings.ReplaceAll(t.card.MAC.String(), ":", "-"),
		"dim.node=" + string(t.Node.Name),
		"dim.server=" + t.addr.String(),
		fmt.Sprintf("dim.nfs=%s:/nodes/%s", netip.AddrPortFrom(t.addr, t.self.Ports.NFS), t.Node.Name),
		"dim.http=" + netip.AddrPortFrom(t.addr, t.self.Ports.HTTP).String(),
	}
	if t.card.MAC == nil {
		w = w[1:]
	}
	if t.card.Name != "" {
		w = append(w, "dim.if="+t.card.Name)
	}
	if t.card.Address6.IsValid() {
		w = append(w, fmt.Sprintf("dim.ip6=%v/%d", t.card.Address6, t.card.Network.Subnet6.Bits()))
	}
	if t.card.Gateway6.IsValid() {
		w = append(w, "dim.gw6="+t.card.Gateway6.String())
	}
	if t.Node.Image.Push {
		w = append(w, "dim.push")
	}
	return w
}

// CommandLine returns the kernel's command line, with the words that the image needs. Words of the description come
// last; one that begins with '-' removes a word of ours. A word that means something in the loader's own language is an
// error: that language has no way to quote it.
func (t *Target) CommandLine(image ...string) (string, error) {
	line := append([]string{"initrd=" + initramfsName}, t.words()...)
	line = append(append(line, "fstab=no", "quiet"), image...)
	forInit := false
	for _, w := range strings.Fields(t.Node.Image.Kernel.Append) {
		if w == "||" || w == "&&" || w[0] == '#' || strings.Contains(w, "${") {
			return "", fmt.Errorf("the kernel parameter %q of image %s cannot be passed on by the loader",
				w, t.Node.Image.Name)
		}
		forInit = forInit || w == "--"
		if away, ok := strings.CutPrefix(w, "-"); ok && !forInit {
			line = slices.DeleteFunc(line, func(x string) bool { return x == away })
			continue
		}
		line = append(line, w)
	}
	s := strings.Join(line, " ")
	if len(s) > maxCommandLine {
		return "", fmt.Errorf("the kernel command line of %s has %d bytes, and kernels take %d",
			t.Node.Name, len(s), maxCommandLine)
	}
	return s, nil
}
