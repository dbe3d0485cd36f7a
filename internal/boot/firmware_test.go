package boot

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"dim/internal/testkit"
)

var update = flag.Bool("update", false, "write the reference page")

func TestTheTableOfFirmwareIsThatOfIANA(t *testing.T) {
	var page strings.Builder
	page.WriteString(referenceHead)
	for i, x := range classes() {
		if int(x.arch) != i {
			t.Errorf("line %d of the table has the code %d", i, x.arch)
		}
		if (x.way == unsupported) != (x.advice != "") || (x.way == pxe || x.way == httpBoot) != (len(x.loaders) > 0) {
			t.Errorf("%s: it has either a loader or a sentence that says why not: %+v", x.name, x)
		}
		gets := map[firmware]string{
			pxe: "by TFTP: ", httpBoot: "by HTTP: ", pxelinux: "a pxelinux configuration", unsupported: "nothing: ",
		}[x.way]
		for i, name := range x.loaders {
			gets += []string{"", " or "}[min(i, 1)] + "`" + name + "`"
		}
		fmt.Fprintf(&page, "| %d | %s | %s | %s |\n", x.arch, x.name, cmp.Or(x.processor, "none"), gets+x.advice)
	}
	const path = "../../docs/reference/firmware.md"
	if *update {
		testkit.Must(t, os.WriteFile(path, []byte(page.String()), 0o644))
	}
	if want := testkit.Value(os.ReadFile(path))(t); string(want) != page.String() {
		t.Errorf("%s is not up to date: run make docs", path)
	}
}

const referenceHead = `# Firmware

A node's firmware says with DHCP option 93 what it is. The codes are those of IANA's registry
"Processor Architecture Types". This page is generated from the table that DIM's DHCP server uses:
which image a firmware can boot, and what it gets. Of several loaders, the first one that is
installed is taken (see ` + "`dim serve --loaders`" + `).

- Firmware that names two codes is served by the first one that boots in the way that the vendor
  class says (` + "`PXEClient` or `HTTPClient`" + `).
- A code with its bytes in the wrong order is understood. So is one that is only in the vendor
  class.
- Firmware of a node whose image is for another processor gets no loader. ` + "`dim status`" + ` says so.
- Firmware that sends neither code nor vendor class, such as that of PowerVM and SLOF, is served by
  the image of its node: a ppc64le or arm64 node gets the address of the TFTP server and the name of
  a pxelinux configuration. So is a client that requests option 209, or calls itself U-Boot.
- The kernel arguments of the description do not reach a kernel that SLOF loads. SLOF does not start
  a kernel whose virtual and physical addresses differ, such as Debian's ` + "`vmlinux`" + `: in the
  master, give the headers of the ELF file equal ones, from 0x08000000 on.
- The boot ROM of a Raspberry Pi says that it is a BIOS. It is recognized by its MAC.

| code | firmware | arch of its image | gets |
|---|---|---|---|
`
