// Mirror measures push on a real kernel's NFS client. A User Mode Linux guest mounts its replica twice: with a
// long cache and the resident process that is notified of switches, and with a cache of 3 seconds. The first is
// compared with the second, and with rsync.
//
//	-part mirror   time from an edit of a watched master until the guest reads the new bytes
//	-part push     number of calls that the guest makes, idle and busy
//
// Times run from the close of the edited file until the guest has answered that it has read the new bytes. They
// include the answer.
//
//	mirror -part mirror -bin bin -agent agentd -master /srv/master -dir /var/tmp/x
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

type options struct {
	part, bin, agent, master, dir string
	edits                         int
	lasts                         time.Duration
}

func main() {
	o := options{}
	flag.StringVar(&o.part, "part", "mirror", "what to measure: mirror or push")
	flag.StringVar(&o.bin, "bin", "bin", "directory of dim and dim-init-amd64")
	flag.StringVar(&o.agent, "agent", "", "the guest's init, e2e/agentd")
	flag.StringVar(&o.master, "master", "", "the master; it is edited")
	flag.StringVar(&o.dir, "dir", "", "where to work")
	flag.IntVar(&o.edits, "edits", 100, "how many edits")
	flag.DurationVar(&o.lasts, "lasts", 30*time.Second, "for how long calls are counted")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintf(os.Stderr, "mirror: %v\n", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	s, err := raise(ctx, o)
	if err != nil {
		return err
	}
	defer s.down()
	switch o.part {
	case "mirror":
		return s.mirror(ctx, o)
	case "push":
		return s.calls(o)
	}
	return fmt.Errorf("there is no part %s", o.part)
}

// random has the same seed in every run.
func random() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
