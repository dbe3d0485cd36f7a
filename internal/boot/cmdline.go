package boot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxCommandLine is COMMAND_LINE_SIZE - 1 of the kernel on x86 and arm64 (arch/x86/include/asm/setup.h).
const maxCommandLine = 2047

// initramfsName is what the initramfs is called in the loader; the kernel's EFI stub asks the loader for the file of that name.
const initramfsName = "initramfs"

// words returns the node's own words: the table "Written by the server" of docs/reference/kernel-parameters.md, without initrd.
func (p *place) words() []string {
	w := []string{
		"BOOTIF=01-" + strings.ReplaceAll(p.card.MAC.String(), ":", "-"),
		"dim.node=" + string(p.node.Name),
		"dim.server=" + p.addr.String(),
		fmt.Sprintf("dim.nfs=%s:/nodes/%s", netip.AddrPortFrom(p.addr, p.self.Ports.NFS), p.node.Name),
		"dim.http=" + netip.AddrPortFrom(p.addr, p.self.Ports.HTTP).String(),
	}
	if p.card.MAC == nil {
		w = w[1:]
	}
	if p.card.Name != "" {
		w = append(w, "dim.if="+p.card.Name)
	}
	if p.node.Image.Push {
		w = append(w, "dim.push")
	}
	return w
}

// commandLine returns the kernel's command line. Words of the description come last; one that begins with '-' takes a word
// of ours away. The loader's own language has words too, and no way to quote them: those are refused.
func (p *place) commandLine() (string, error) {
	line := append([]string{"initrd=" + initramfsName}, p.words()...)
	line = append(line, "fstab=no", "quiet")
	forInit := false
	for _, w := range strings.Fields(p.node.Image.Kernel.Append) {
		if w == "||" || w == "&&" || w[0] == '#' || strings.Contains(w, "${") {
			return "", fmt.Errorf("the kernel parameter %q of image %s cannot be passed on by the loader", w, p.node.Image.Name)
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
		return "", fmt.Errorf("the kernel command line of %s has %d bytes, and kernels take %d", p.node.Name, len(s), maxCommandLine)
	}
	return s, nil
}
