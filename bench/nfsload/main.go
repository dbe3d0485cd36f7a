// Nfsload makes the NFS calls of many diskless nodes, and prints what they cost the server.
//
// Every node has a connection of its own and keeps several calls in flight. Whatever a node reads is compared
// with a local copy of the exported tree, byte by byte. Servers are compared by the CPU time
// that they use (from /proc), because wall time on a machine that runs both sides says little.
//
//	nfsload -addr 127.0.0.1:2049 -export /tree -local /srv/tree -pid 4711 -mode boot -nodes 64
//	nfsload -addr 10.77.0.1:2049 -export /nodes/n%03d -from 10.77.1.0 -local /srv/tree -pid 4711 -mode boot -nodes 64
//
// Modes:
//
//	mix     LOOKUP, GETATTR and ACCESS in equal parts, of random names
//	walk    every directory by READDIRPLUS, twice: names a second for the first and for the second time
//	large   files above 1 MiB, whole, in READs of 1 MiB
//	small   files up to 64 KiB, whole: LOOKUP, GETATTR, READ
//	own     the same for files that the node wrote before
//	create  CREATE, WRITE of 4 KiB, COMMIT, in a directory of the node's own
//	names   RENAME and REMOVE of files made before
//	limit   the same without a server, in the directory -local: rename or unlink, then fsync of the directory
//	sync    WRITE of 4 KiB, FILE_SYNC
//	first   READDIRPLUS of the root
//	boot    what a node does when it boots; see internal/bootload for the proportions
//	changes its CREATE, WRITE, COMMIT, RENAME and REMOVE without a server, in the directory -local, each synced
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"dim/internal/bootload"
)

// options are the command line.
type options struct {
	addr, mountAddr string
	export          string
	from            netip.Addr // not valid: the kernel's choice
	local           string
	scratch         string
	mode            string
	pid             int
	nodes           int
	inFlight        int
	calls           int
	megabytes       int
	seed            uint64
	constant        bool

	wait    time.Duration
	dirs    []string  // of modes limit and changes
	buffers sync.Pool // a megabyte for each comparison under way
}

func main() {
	var o options
	flag.StringVar(&o.addr, "addr", "127.0.0.1:2049", "the server's NFS port")
	flag.StringVar(&o.mountAddr, "mount-addr", "", "its MOUNT port, when that is another one")
	flag.StringVar(&o.export, "export", "/tree", "what to mount; %d (or %03d) is the node's number")
	flag.Func("from", "source address of node 0; the others have those that follow (default: the kernel's choice)",
		o.setFrom)
	flag.StringVar(&o.local, "local", "", "a local copy of the tree, to compare with and to choose files from")
	flag.StringVar(&o.scratch, "scratch", "",
		"directory of the export below which nodes make directories of their own; empty is the root")
	flag.StringVar(&o.mode, "mode", "mix",
		"mix, walk, large, small, own, create, names, limit, sync, first, boot, changes")
	flag.BoolVar(&o.constant, "constant", false,
		"the server's answers are constant: count what is read, and compare nothing")
	flag.IntVar(&o.pid, "pid", 0, "the server's process, to read its CPU time")
	flag.IntVar(&o.nodes, "nodes", 4, "how many nodes at once")
	flag.IntVar(&o.inFlight, "in-flight", 8, "calls in flight per node")
	flag.IntVar(&o.calls, "calls", 100000, "calls in all (mix, small, own, create, names, sync)")
	flag.IntVar(&o.megabytes, "megabytes", 2000, "bytes to read in all (large)")
	flag.DurationVar(&o.wait, "wait", 0, "for how long to try to mount, when the server does not answer yet")
	flag.Uint64Var(&o.seed, "seed", 1, "of all random choices")
	flag.Parse()
	if o.mountAddr == "" {
		o.mountAddr = o.addr
	}
	if err := run(&o); err != nil {
		fmt.Fprintf(os.Stderr, "nfsload: %v\n", err)
		os.Exit(1)
	}
}

func (o *options) setFrom(s string) (err error) {
	o.from, err = netip.ParseAddr(s)
	return err
}

func run(o *options) error {
	switch o.mode {
	case "limit":
		return limit(o, (*node).victims, (*node).names)
	case "changes":
		return limit(o, func(*node) error { return nil }, (*node).bootChanges)
	}
	mode, ok := modes[o.mode]
	if !ok {
		return fmt.Errorf("mode %s: there is no such mode", o.mode)
	}
	sample, err := chooseFiles(o)
	if err != nil {
		return err
	}
	nodes, err := startNodes(o, sample)
	defer closeNodes(nodes)
	if err != nil {
		return err
	}
	if mode.prepare != nil {
		if err := each(nodes, func(n *node) error { return mode.prepare(n) }); err != nil {
			return fmt.Errorf("prepare %s: %w", o.mode, err)
		}
	}
	for pass := range max(mode.passes, 1) {
		m := newMeter()
		m.begin(o.pid)
		err := each(nodes, func(n *node) error { n.Meter = m.Meter; return mode.run(n) })
		m.end(o.pid)
		if err != nil {
			return fmt.Errorf("%s: %w", o.mode, err)
		}
		m.report(os.Stdout, fmt.Sprintf("%s.%d", o.mode, pass+1), len(nodes))
	}
	return nil
}

// mode is one kind of load. prepare is not measured.
type mode struct {
	passes  int
	prepare func(*node) error
	run     func(*node) error
}

var modes = map[string]mode{
	"mix":    {prepare: (*node).lookupSample, run: (*node).mix},
	"walk":   {passes: 2, run: (*node).walk},
	"large":  {prepare: (*node).lookupSample, run: (*node).large},
	"small":  {prepare: (*node).lookupSample, run: (*node).small},
	"own":    {prepare: (*node).writeOwn, run: (*node).readOwn},
	"create": {prepare: (*node).makeOwn, run: (*node).createFiles},
	"names":  {prepare: (*node).makeVictims, run: (*node).renameAndRemove},
	"sync":   {prepare: (*node).makeOwn, run: (*node).syncWrites},
	"first":  {run: (*node).first},
	"boot":   {prepare: (*node).makeOwn, run: func(n *node) error { return n.Boot(bootload.Sample(n.sample)) }},
}

// timeout ends a run that hangs.
const timeout = 20 * time.Minute
