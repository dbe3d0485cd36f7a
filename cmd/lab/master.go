package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dim/internal/lab"
)

const masterUsage = `usage: lab master [--offline "PACKAGE …"] DIR [PACKAGE …]

Installs an ordinary Debian 12 into DIR: the master of the demonstration and of the tests that want a whole
distribution, with the PACKAGEs in addition. Those of --offline are not installed: they lie in DIR/srv/repo with all
that they need, for apt to install without a network. Prints the absolute path of DIR.

DIR.packages says what was asked for. A DIR that was made for the same is left as it is; any other is made anew.

    DIM_LAB_MASTER=$(go run ./cmd/lab master .lab/master) DIM_E2E=1 go test -run Boot ./e2e
`

func master(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("master", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, masterUsage) }
	offline := flags.String("offline", "", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return errors.New("master: no DIR")
	}
	dir, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return err
	}
	spec := lab.MasterSpec{Dir: dir, Packages: flags.Args()[1:], Offline: strings.Fields(*offline), Log: os.Stderr}
	if err := lab.EnsureMaster(ctx, spec); err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}
