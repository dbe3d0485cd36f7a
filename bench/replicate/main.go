// Replicate measures how long versions take from a head to its image servers, what that sends, and the CPU time.
//
// The head and each server are processes in network namespaces of their own, joined by a bridge. The peers bring the
// same tree over the same links to the same number of machines: rsync from a daemon, casync and ostree over HTTP. Each
// changes what it had before. What they do before they transfer (casync make, ostree commit; a capture) is not counted.
// The peers' tools end before all is on the disk, so the time until that is printed too.
//
// Time runs from the moment at which the head has the version until the last server has it. Bytes are those that head
// and servers received, headers included; those that the head sent are printed, too, because servers also send to each
// other. CPU time is that of both ends.
//
//	replicate -dim bin/dim -master /srv/master -dir /var/tmp/x
//
// The master is changed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

type options struct {
	dim, master, dir string
	servers          int
	megabytes        int
	quick            bool
}

func main() {
	o := options{}
	flag.StringVar(&o.dim, "dim", "bin/dim", "the program")
	flag.StringVar(&o.master, "master", "", "the master; it is changed")
	flag.StringVar(&o.dir, "dir", "", "where to work")
	flag.IntVar(&o.servers, "servers", 4, "how many image servers")
	flag.IntVar(&o.megabytes, "megabytes", 400, "size of the large file")
	flag.BoolVar(&o.quick, "quick", false, "compare with rsync alone")
	serve := flag.String("serve", "", "only serve this directory over HTTP, at the address that is the argument")
	flag.Parse()
	var err error
	if *serve != "" {
		err = http.ListenAndServe(flag.Arg(0), http.FileServer(http.Dir(*serve)))
	} else {
		err = run(&o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "replicate: %v\n", err)
		os.Exit(1)
	}
}

// edit is a change of the master.
type edit struct {
	what string
	make func(master string) error
}

func edits(megabytes int) []edit {
	random := rand.NewChaCha8([32]byte{1})
	noise := func(n int) []byte {
		b := make([]byte, n)
		_, _ = random.Read(b)
		return b
	}
	database := func(master string) string { return filepath.Join(master, "var/lib/replicate.db") }
	return []edit{
		{"the first image", func(string) error { return nil }},
		{"one line", func(master string) error {
			f, err := os.OpenFile(filepath.Join(master, "etc/motd"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = fmt.Fprintf(f, "edited at %v\n", time.Now())
			return err
		}},
		{"300 files of 8 KiB", func(master string) error {
			dir := filepath.Join(master, "usr/share/replicate")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for i := range 300 {
				if err := os.WriteFile(fmt.Sprintf("%s/f%03d", dir, i), noise(8<<10), 0o644); err != nil {
					return err
				}
			}
			return nil
		}},
		{fmt.Sprintf("a new file of %d MB", megabytes), func(master string) error {
			if err := os.MkdirAll(filepath.Dir(database(master)), 0o755); err != nil {
				return err
			}
			return os.WriteFile(database(master), noise(megabytes<<20), 0o644)
		}},
		{fmt.Sprintf("1 %% of its pages, %d of 4 KiB", megabytes<<20/4096/100), func(master string) error {
			f, err := os.OpenFile(database(master), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			pages := megabytes << 20 / 4096
			for i := range pages / 100 {
				at := int64(i*100+i*37%100) * 4096
				if _, err := f.WriteAt(noise(4096), at); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

func run(o *options) error {
	n, err := newNetwork(o.servers)
	if err != nil {
		return err
	}
	defer n.close()
	if err := removeDevices(o.master); err != nil {
		return err
	}
	d, err := newCluster(n, o)
	defer d.close()
	if err != nil {
		return err
	}
	r := newRsync(n, o)
	defer r.close()
	tools := []tool{d, r}
	if !o.quick {
		tools = append(tools, newCasync(n, o), newOstree(n, o))
	}
	web, err := n.start(n.head, os.Args[0], "-serve", o.dir, n.address(0)+":8000")
	if err != nil {
		return err
	}
	n.web, n.dir = web.Process.Pid, o.dir
	defer end(web)
	for _, e := range edits(o.megabytes) {
		if err := e.make(o.master); err != nil {
			return err
		}
		compare(n, e.what, tools)
	}
	return nil
}

// removeDevices removes what ostree cannot store.
func removeDevices(master string) error {
	return filepath.WalkDir(master, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !d.Type().IsRegular() && d.Type()&fs.ModeSymlink == 0 {
			return os.Remove(path)
		}
		return err
	})
}

// tool brings the master to all servers.
type tool interface {
	name() string
	// prepare does what comes before the transfer.
	prepare() error
	// transfer brings the master to all servers. It returns when the transfer began and ended, and its CPU time.
	transfer() (took, cpu time.Duration, err error)
}

// compare prints what each tool needs for an edit.
func compare(n *network, what string, tools []tool) {
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\n%s to %d servers  (load %.4s)\n", what, len(n.servers), load)
	var ours result
	for i, t := range tools {
		r, err := measure(n, t)
		if err != nil {
			fmt.Printf("  %-7s failed: %v\n", t.name(), err)
			continue
		}
		fmt.Printf("  %-7s %8.3f s, on the disk after %8.3f s, %12d bytes, %12d from the head, CPU %7.2f s\n",
			t.name(), r.took.Seconds(), r.durable.Seconds(), r.bytes, r.head, r.cpu.Seconds())
		if i == 0 {
			ours = r
			continue
		}
		fmt.Printf("  ratio   dim/%s: time %.4f, until it is on the disk %.4f, bytes %.4f, CPU %.4f\n", t.name(),
			ours.took.Seconds()/r.took.Seconds(), ours.durable.Seconds()/r.durable.Seconds(),
			float64(ours.bytes)/float64(r.bytes), ours.cpu.Seconds()/r.cpu.Seconds())
	}
}

type result struct {
	took, cpu time.Duration
	durable   time.Duration // until the file system was synced; only dim and ostree do that themselves
	bytes     uint64        // received by all
	head      uint64        // sent by the head
}

func measure(n *network, t tool) (r result, err error) {
	if err := t.prepare(); err != nil {
		return r, err
	}
	if err := n.sync(); err != nil {
		return r, err
	}
	all, head, err := n.bytes()
	if err != nil {
		return r, err
	}
	if r.took, r.cpu, err = t.transfer(); err != nil {
		return r, err
	}
	r.bytes, r.head, err = n.bytes()
	r.bytes, r.head = r.bytes-all, r.head-head
	begin := time.Now()
	err = errors.Join(err, n.sync())
	r.durable = r.took + time.Since(begin)
	return r, err
}
