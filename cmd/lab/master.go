package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dim/internal/lab/master"
)

const masterUsage = `usage: lab master [--offline "PACKAGE …"] DIR [PACKAGE …]

Installs an ordinary Debian 12 into DIR, and the PACKAGEs in addition: the master of the demonstration and of the tests
that need a whole distribution. The packages of --offline are not installed. They are put into DIR/srv/repo with their
dependencies, so that apt can install them without a network. Prints the absolute path of DIR.

The file DIR.packages says for which packages DIR was made. If DIR was made for the same packages, nothing is done;
otherwise it is made again.

    DIM_LAB_MASTER=$(go run ./cmd/lab master .lab/master) DIM_E2E=1 go test -run Boot ./e2e
`

func masterCommand(ctx context.Context, args []string) error {
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
		return errors.New("master: DIR is missing")
	}
	dir, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return err
	}
	var log bytes.Buffer
	p := newProgress(os.Stderr, time.Now())
	spec := master.Spec{
		Dir: dir, Packages: flags.Args()[1:], Offline: strings.Fields(*offline), Log: &log, Progress: p.update,
	}
	if err := p.during(ctx, func() error { return master.Ensure(ctx, spec) }); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(log.Bytes()))
	}
	fmt.Println(dir)
	return nil
}
