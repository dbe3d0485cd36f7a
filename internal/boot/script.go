package boot

import (
	"fmt"
	"strings"

	"dim/internal/image"
)

// backOff is the end of every script: it waits and then fetches the script anew, because what failed may have been
// replaced in the meantime. The wait is 2, 4, … 64 s, then 32 and 64 in turns, for ever. It outlives the script, as a
// setting of iPXE. Some nodes wait from 3 s on, so that nodes that failed together drift apart; iPXE has no random
// numbers.
const backOff = `
:again
isset ${dim-wait} || set dim-wait:int32 %d
echo DIM: %s: trying again in ${dim-wait} s
sleep ${dim-wait} ||
iseq ${dim-wait} %d && set dim-wait:int32 %d || inc dim-wait ${dim-wait}
imgfree
chain --replace --autofree %s ||
echo DIM: %s: cannot fetch the boot script from %s: ${errno}
goto again
`

// bootScript loads the kernel and the initramfs and starts them.
const bootScript = `#!ipxe
echo DIM: %[1]s boots image %[2]s from %[3]s
imgfree
kernel --name vmlinuz %[4]s %[5]s || goto no-kernel
initrd --name %[7]s %[6]s || goto no-initramfs
boot ||
echo DIM: %[1]s: the kernel does not start: ${errno}
goto again

:no-kernel
echo DIM: %[1]s: cannot fetch the kernel: ${errno}
goto again

:no-initramfs
echo DIM: %[1]s: cannot fetch the initramfs: ${errno}
goto again
`

// Script returns the boot script of a node: it loads the kernel and the initramfs by their digests, and starts the
// kernel with a command line. When that fails, the script waits and fetches the script anew.
func (t *Target) Script(commandLine string, kernel, initramfs image.Digest) string {
	return fmt.Sprintf(bootScript, t.Node.Name, t.Node.Image.Name, t.addr,
		t.url("/boot/kernel/"+kernel.String()), commandLine,
		t.url("/boot/initramfs/"+initramfs.String()), initramfsName) + t.retry()
}

// ErrorScript returns the script of a node that cannot boot: it says why, waits and fetches the script anew.
func (t *Target) ErrorScript(err error) string {
	return fmt.Sprintf("#!ipxe\necho DIM: %s cannot boot: %s\n", t.Node.Name, plain(err.Error())) + t.retry()
}

// retry returns the end of a script. Waits are powers of two from 2 or 3 s on, depending on the node.
func (t *Target) retry() string {
	first := 2 + t.Node.Index%2
	return fmt.Sprintf(backOff, first, t.Node.Name, first*32, first*16, t.url("/boot/ipxe"), t.Node.Name, t.http())
}

// plain makes one line out of any text, in which iPXE finds nothing to interpret.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '$' || r == '#' || r == '&' || r == '|':
			return '.'
		case r < ' ' || r > '~':
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}

// configName is the pxelinux configuration that DHCP names. U-Boot asks for others beside it, which are the same.
const configName = "pxelinux.cfg/default"

// PXELinuxConfig returns the configuration for firmware that loads a kernel by itself, with paths of TFTP.
func (t *Target) PXELinuxConfig(commandLine string, kernel, initramfs image.Digest) string {
	return fmt.Sprintf("default dim\nlabel dim\n  kernel /boot/kernel/%s\n  initrd /boot/initramfs/%s\n  append %s\n",
		kernel, initramfs, commandLine)
}
