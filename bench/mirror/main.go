// Mirror measures what push is for, on a real kernel's NFS client: a User Mode Linux guest has its replica
// mounted twice, with a long cache and the process that is told of switches, and with a cache of 3 seconds. The
// first is compared with the second, and with rsync.
//
//	-part mirror   how long an edit of a watched master takes until the guest reads the new bytes
//	-part push     how many calls the guest makes, idle and busy
//
// Times are taken here: from the close of the edited file until the guest has answered that it has read what
// was written, so they have the guest's answer in them.
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

// random is the same in every run.
func random() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
