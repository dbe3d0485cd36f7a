// Lab raises a whole cluster on this machine for developers, in a network namespace, and takes it down again:
//
//	lab demo      boot two diskless machines from one server and change the master under them
//	lab master D  install the demonstration's master into the directory D, unless it is there
//
// Both need root. What the demonstration makes is removed at the end, whatever happens.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "demo":
		return demo(ctx)
	case len(args) > 0 && args[0] == "master":
		return master(ctx, args[1:])
	}
	return fmt.Errorf("usage: lab demo | lab master DIR [PACKAGE …] (lab master --help tells more)")
}
