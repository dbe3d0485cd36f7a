// Posix checks with real system calls that a mounted directory behaves as POSIX and Linux specify.
//
//	posix DIR [-nfs] [-forgets] [-run TEXT] [-ops N] [-seed N] [-seeds make|use|half] [-v]
//
// It needs root: cases act as several users. It prints one line for each case that fails and "N passed, N
// failed" at the end. It exits with 1 if a case failed, or if there was none. DIR may be on a local disk (the
// reference), on FUSE or on NFS. With -nfs it skips what NFSv3 cannot do, and with -v it prints what it skips
// and why. With -seeds make it creates the files that the cases start from and leaves them there for a later
// run with -seeds use or half; meanwhile they may have become part of a version.
//
// It is one process with goroutines, because a fork is slow in User Mode Linux. Users are threads: a goroutine
// locks itself to its thread and sets the ids with raw system calls, which in Linux apply to the thread. The
// thread ends with the goroutine.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// config is the parsed command line.
type config struct {
	dir     string
	nfs     bool
	forgets bool
	v       bool
	only    string
	ops     int
	seed    uint64
	seeds
}

func run(args []string, stdout, stderr io.Writer) int {
	var c config
	fl := flag.NewFlagSet("posix", flag.ContinueOnError)
	fl.SetOutput(stderr)
	fl.BoolVar(&c.nfs, "nfs", false, "leave out what NFSv3 cannot do")
	fl.BoolVar(&c.forgets, "forgets", false,
		"the NFS server keeps nothing of a file that was removed; a replica does, for a while")
	fl.BoolVar(&c.v, "v", false, "name every case")
	fl.StringVar(&c.only, "run", "", "only cases whose name contains this `text`")
	fl.IntVar(&c.ops, "ops", 2000, "steps of the random input and output test")
	fl.Uint64Var(&c.seed, "seed", 1, "seed of the random tests")
	fl.StringVar((*string)(&c.seeds), "seeds", "",
		"`make` the seeds of the cases and run none; use what such a run has left; half: use, with half of it changed")
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		c.dir, args = args[0], args[1:]
	}
	if err := fl.Parse(args); err != nil {
		return 2
	}
	if c.dir == "" {
		c.dir = fl.Arg(0)
	}
	if c.dir == "" {
		fmt.Fprintln(stderr,
			"usage: posix DIR [-nfs] [-forgets] [-run TEXT] [-ops N] [-seed N] [-seeds make|use|half] [-v]")
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "posix: needs root: cases act as several users")
		return 2
	}
	unix.Umask(0)
	passed, failed, err := runAll(c, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "posix:", err)
		return 2
	}
	fmt.Fprintf(stdout, "%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return 1
	}
	return 0
}
