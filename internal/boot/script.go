package boot

import (
	"context"
	"fmt"
	"strings"
)

// backOff is the part of every script that waits and then fetches the script anew: what failed may have been replaced in the
// meantime. It waits for 2, 4, … 64 s, then for 32 and 64 in turns, for ever; the wait outlives the script, as a setting of iPXE. Nodes that
// failed together drift apart by the second that is added for some. iPXE has no random numbers.
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

// script returns the boot script for a node. There is always one: when the node cannot boot, one that says why, waits and
// tries again.
func (b *Boot) script(ctx context.Context, p place) string {
	kernel, initramfs, err := b.assets(ctx, p)
	var line string
	if err == nil {
		line, err = p.commandLine()
	}
	if err != nil {
		b.Log.Warn("node cannot boot", "node", p.node.Name, "err", err)
		b.stuck(p, StageScript, err.Error())
		return waitScript(p, err)
	}
	b.told(p, "")
	return fmt.Sprintf(bootScript, p.node.Name, p.node.Image.Name, p.addr,
		p.url("/boot/kernel/"+kernel.Digest.String()), line,
		p.url("/boot/initramfs/"+initramfs.Digest.String()), initramfsName) + retry(p)
}

// waitScript says why the node cannot boot.
func waitScript(p place, err error) string {
	return fmt.Sprintf("#!ipxe\necho DIM: %s cannot boot: %s\n", p.node.Name, plain(err.Error())) + retry(p)
}

// retry returns the end of a script. Waits are powers of two from 2 or 3 s on, depending on the node.
func retry(p place) string {
	first := 2 + p.node.Index%2
	return fmt.Sprintf(backOff, first, p.node.Name, first*32, first*16, p.url("/boot/ipxe"), p.node.Name, p.http())
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

// configName is the pxelinux configuration that DHCP names; U-Boot asks for others beside it, which are the same.
const configName = "pxelinux.cfg/default"

// pxelinuxConfig returns the configuration for firmware that loads a kernel by itself, with paths of TFTP.
func (b *Boot) pxelinuxConfig(ctx context.Context, p place) (string, error) {
	kernel, initramfs, err := b.assets(ctx, p)
	var line string
	if err == nil {
		line, err = p.commandLine()
	}
	if err != nil {
		b.Log.Warn("node cannot boot", "node", p.node.Name, "err", err)
		b.stuck(p, StageScript, err.Error())
		return "", err
	}
	b.told(p, "pxelinux")
	return fmt.Sprintf("default dim\nlabel dim\n  kernel /boot/kernel/%s\n  initrd /boot/initramfs/%s\n  append %s\n",
		kernel.Digest, initramfs.Digest, line), nil
}
