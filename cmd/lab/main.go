// Lab runs a whole cluster on this machine, in a network namespace, for developers:
//
//	lab demo      boot two diskless machines from one server, and change the master while they run
//	lab master D  install the demonstration's master into directory D, unless it exists
//
// Both need root. The demonstration removes everything that it made, whether it succeeds or fails.
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
		return masterCommand(ctx, args[1:])
	}
	return fmt.Errorf("usage: lab demo | lab master DIR [PACKAGE …] (for details: lab master --help)")
}
