// Command dim-init is the /init of the initramfs of diskless nodes (package nodeinit). The kernel also runs it as
// /sbin/modprobe, and it starts itself as the resident process.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"dim/internal/nodeinit"
)

func main() {
	if filepath.Base(os.Args[0]) == "modprobe" {
		if err := nodeinit.Modprobe(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "modprobe:", err)
			os.Exit(1)
		}
		return
	}
	if filepath.Base(os.Args[0]) == nodeinit.ResidentName {
		if err := nodeinit.RunResident(os.Args[1:]); err != nil {
			fmt.Println(err) // the process that started it reads this
			os.Exit(1)
		}
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr,
			"dim-init: this is the /init of a diskless node; it only runs as process 1 of an initramfs")
		os.Exit(2)
	}
	nodeinit.Main(os.Args[1:])
}
