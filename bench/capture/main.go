// Command capture measures captures against the least possible work: copying the tree, reading and hashing it,
// walking it. All figures of one run come from the same tree on the same disk within minutes, interleaved, so
// that their ratios mean something on a machine whose speed does not.
//
//	go run ./bench/capture -dir /var/tmp            # ext4 or whatever is there
//	go run ./bench/capture -dir /var/tmp -xfs       # the same on XFS with reflinks, in an image file; needs root
//	go run ./bench/capture -make /var/tmp/tree      # only the tree, for other measurements
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/store"
)

func main() {
	var b bench
	dir := flag.String("dir", os.TempDir(), "directory to work in; needs room for three trees")
	xfs := flag.Bool("xfs", false, "work on an XFS file system made in a file there")
	flag.IntVar(&b.names, "names", 90_000, "names in the tree")
	flag.Int64Var(&b.bytes, "bytes", 2_000_000_000, "bytes in the tree")
	flag.StringVar(&b.from, "from", "", "copy this tree instead of making one")
	only := flag.String("make", "", "only make the tree, there")
	flag.IntVar(&b.runs, "runs", 3, "how often to capture for the first time")
	flag.IntVar(&b.walks, "walks", 21, "how often to capture again")
	flag.Parse()
	run := func() error { return b.run(*dir, *xfs) }
	if *only != "" {
		run = func() error { return makeTree(*only, b.names, b.bytes) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/capture:", err)
		os.Exit(1)
	}
}

type bench struct {
	names, runs, walks int
	bytes              int64
	from               string
	dir, tree          string
	versions           int
}

func (b *bench) run(dir string, xfs bool) (err error) {
	if b.dir, err = os.MkdirTemp(dir, "dim-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if xfs {
		unmount, err := mountXFS(b.dir, 3*b.bytes+1<<30)
		if err != nil {
			return err
		}
		defer unmount()
		b.dir = filepath.Join(b.dir, "mnt")
	}
	b.tree = filepath.Join(b.dir, "tree")
	if b.from != "" {
		err = command("cp", "-a", "--one-file-system", b.from, b.tree)
	} else {
		err = makeTree(b.tree, b.names, b.bytes)
	}
	if err != nil {
		return err
	}
	if err := syncFS(b.dir); err != nil {
		return err
	}
	if err := b.first(xfs); err != nil {
		return err
	}
	return b.again()
}

// first measures first captures: against cp -a with a sync, or, where files share blocks, against reading and
// hashing: with the tree in memory, and with nothing in memory, as a capture finds a master that nobody has
// just read.
func (b *bench) first(reflink bool) error {
	peer, what := b.copy, "cp -a and sync"
	if reflink {
		peer, what = b.hash, "read and hash"
		if err := b.against("cold: "+what, peer, "cold: first capture", dropCaches); err != nil {
			return err
		}
		if err := b.remove("store", "cache"); err != nil {
			return err
		}
	}
	return b.against(what, peer, "first capture", b.hash)
}

// against measures a peer and first captures in turn, each after prepare. The last capture stays.
func (b *bench) against(what string, peer func() error, capture string, prepare func() error) error {
	var peers, captures []cost
	for i := range b.runs {
		if i > 0 {
			if err := b.remove("store", "cache"); err != nil {
				return err
			}
		}
		if err := prepare(); err != nil {
			return err
		}
		c, err := measure(peer)
		if err != nil {
			return err
		}
		peers = append(peers, c)
		if err := b.remove("copy"); err != nil {
			return err
		}
		if err := prepare(); err != nil {
			return err
		}
		if c, err = b.capture(); err != nil {
			return err
		}
		captures = append(captures, c)
	}
	show(what, peers, nil)
	show(capture, captures, peers)
	return nil
}

// dropCaches empties the page cache.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// remove removes a tree and waits: on ext4, creating files is slower for 5 s after others were removed
// (fs/ext4/ialloc.c, recently_deleted).
func (b *bench) remove(names ...string) error {
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
			return err
		}
	}
	if err := syncFS(b.dir); err != nil {
		return err
	}
	time.Sleep(6 * time.Second)
	return nil
}

func (b *bench) copy() error {
	if err := command("cp", "-a", b.tree, b.dir+"/copy"); err != nil {
		return err
	}
	return syncFS(b.dir)
}

func (b *bench) capture() (c cost, err error) {
	s, err := store.Open(b.dir+"/store", store.Options{})
	if err != nil {
		return c, err
	}
	defer s.Close()
	var r capture.Result
	c, err = measure(func() error {
		r, err = capture.Run(context.Background(), s, b.options())
		return err
	})
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("%d problems, such as %s", len(r.Problems), r.Problems[0])
	}
	if err == nil && !r.Changed {
		err = fmt.Errorf("the first capture made no version")
	}
	c.names, c.bytes = r.Version.Files, r.Version.Bytes
	return c, err
}

func (b *bench) options() capture.Options {
	return capture.Options{
		Image: "bench", Dir: b.tree, CacheDir: b.dir + "/cache",
		Reserve: func(context.Context) (int, error) { b.versions++; return b.versions, nil },
	}
}

// again measures captures of a tree that did not change against a bare walk.
func (b *bench) again() error {
	s, err := store.Open(b.dir+"/store", store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	// reads the files that are too new to be skipped by their time
	if _, err := capture.Run(context.Background(), s, b.options()); err != nil {
		return err
	}
	var walks, captures []cost
	for range b.walks {
		var names uint64
		c, err := measure(func() error { names, err = walk(b.tree); return err })
		if err != nil {
			return err
		}
		c.names = names
		walks = append(walks, c)
		var r capture.Result
		c, err = measure(func() error { r, err = capture.Run(context.Background(), s, b.options()); return err })
		if err != nil {
			return err
		}
		if r.Changed || r.FilesRead > 0 {
			return fmt.Errorf("the tree changed: %d files were read", r.FilesRead)
		}
		captures = append(captures, c)
	}
	show("bare walk", walks, nil)
	show("unchanged capture", captures, walks)
	return nil
}

// cost is the time that something took.
type cost struct {
	wall, cpu    time.Duration
	names, bytes uint64
}

// measure counts the CPU time of this process and its children.
func measure(do func() error) (cost, error) {
	before, start := cpuTime(), time.Now()
	err := do()
	return cost{wall: time.Since(start), cpu: cpuTime() - before}, err
}

func cpuTime() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err == nil {
			sum += u.Utime.Nano() + u.Stime.Nano()
		}
	}
	return time.Duration(sum)
}

func median(list []cost, of func(cost) time.Duration) time.Duration {
	var all []time.Duration
	for _, c := range list {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func wall(c cost) time.Duration { return c.wall }
func cpu(c cost) time.Duration  { return c.cpu }

// show prints medians, and their ratios to those of base.
func show(what string, list, base []cost) {
	w, c := median(list, wall), median(list, cpu)
	fmt.Printf("%-20s %8.3f s wall  %8.3f CPU s", what, w.Seconds(), c.Seconds())
	if base != nil {
		fmt.Printf("   ratio %5.2f wall  %5.2f CPU", w.Seconds()/median(base, wall).Seconds(),
			c.Seconds()/median(base, cpu).Seconds())
	}
	if n := list[0].names; n > 0 {
		fmt.Printf("   %d names", n)
	}
	if n := list[0].bytes; n > 0 {
		fmt.Printf(" %d bytes", n)
	}
	fmt.Printf("   (%d runs)\n", len(list))
}

func command(name string, arg ...string) error {
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, arg, err, out)
	}
	return nil
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func mountXFS(dir string, size int64) (unmount func(), err error) {
	file, mnt := dir+"/xfs.img", dir+"/mnt"
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return nil, err
	}
	if err := command("mkfs.xfs", "-q", "-m", "reflink=1", file); err != nil {
		return nil, err
	}
	if err := command("mount", "-o", "loop", file, mnt); err != nil {
		return nil, err
	}
	return func() {
		if err := command("umount", mnt); err != nil {
			fmt.Fprintln(os.Stderr, "bench/capture:", err)
		}
	}, nil
}
