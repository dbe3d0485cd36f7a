// Command switch measures the cost of moving many replicas to another version: the time for which they are
// locked, and the whole time. The limit is a write and fsync of the bytes that the switch adds to the journal,
// on the same disk at the same time.
//
//	go run ./bench/switch -dir /var/tmp     # 1, 300 and 10,000 paths, 64 and 2,560 replicas; needs root
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/vfs"
)

func main() {
	var b bench
	flag.StringVar(&b.dir, "dir", os.TempDir(), "where to work")
	flag.IntVar(&b.files, "files", 20000, "files of the image; a tenth in each directory of a thousand")
	flag.IntVar(&b.rounds, "rounds", 9, "how often to switch there and back")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/switch:", err)
		os.Exit(1)
	}
}

type bench struct {
	dir           string
	files, rounds int
	store         *store.Store
	base          image.Version
	versions      int
}

// paths and replicas are the sizes that are measured, in all combinations.
var (
	paths    = []int{1, 300, 10000}
	replicas = []int{64, 2560}
)

func (b *bench) run() (err error) {
	if b.dir, err = os.MkdirTemp(b.dir, "dim-switch-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.store, err = store.Open(filepath.Join(b.dir, "store"), store.Options{}); err != nil {
		return err
	}
	defer b.store.Close()
	if b.base, err = b.version(0); err != nil {
		return err
	}
	versions := map[int]image.Version{}
	for _, n := range paths {
		if versions[n], err = b.version(n); err != nil {
			return err
		}
	}
	fmt.Println("medians; locked: no replica answers; limit: write and fsync of the journal's bytes; ratios to it")
	fmt.Printf("%8s %8s %10s %10s %10s %10s %10s %8s %8s %10s\n", "paths", "replicas", "locked ms", "all ms", "CPU ms",
		"bytes", "limit ms", "locked", "all", "first ms")
	for _, n := range replicas {
		for _, p := range paths {
			if err := b.measure(p, n, versions[p]); err != nil {
				return err
			}
		}
	}
	return nil
}

// version makes a version in which the first files of the tree are others than in the base.
func (b *bench) version(changed int) (image.Version, error) {
	tree := filepath.Join(b.dir, "tree")
	for i := range b.files {
		dir := fmt.Sprintf("%s/directory-%d", tree, i%1000)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return image.Version{}, err
		}
		text := fmt.Sprint("file ", i)
		if i < changed {
			text = fmt.Sprintf("file %d of %d", i, changed)
		}
		name := fmt.Sprintf("%s/file-%d", dir, i)
		if old, err := os.ReadFile(name); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return image.Version{}, err
		}
	}
	r, err := capture.Run(context.Background(), b.store, capture.Options{
		Image: "bench", Dir: tree, Reserve: func(context.Context) (int, error) { b.versions++; return b.versions, nil },
	})
	return r.Version, err
}

// sample is the cost of one switch.
type sample struct {
	locked, all, cpu, limit time.Duration
	bytes                   int64
}

func (b *bench) measure(paths, n int, to image.Version) error {
	dir := filepath.Join(b.dir, fmt.Sprintf("replicas-%d-%d", paths, n))
	defer os.RemoveAll(dir)
	set, list, err := b.attach(dir, n)
	if err != nil {
		return err
	}
	defer set.Close()
	var samples []sample
	for i := range 2*b.rounds + 2 {
		v := []image.Version{to, b.base}[i%2]
		s, err := b.once(dir, set, list, v)
		if err != nil {
			return err
		}
		samples = append(samples, s)
	}
	first, samples := samples[0], samples[2:]
	ms := func(of func(sample) time.Duration) float64 {
		return float64(middle(samples, of).Microseconds()) / 1000
	}
	locked := ms(func(s sample) time.Duration { return s.locked })
	all := ms(func(s sample) time.Duration { return s.all })
	cpu, limit := ms(func(s sample) time.Duration { return s.cpu }), ms(func(s sample) time.Duration { return s.limit })
	fmt.Printf("%8d %8d %10.2f %10.2f %10.2f %10d %10.2f %8.2f %8.2f %10.2f\n", paths, n, locked, all, cpu,
		samples[len(samples)/2].bytes, limit,
		locked/limit, all/limit, float64(first.all.Microseconds())/1000)
	return nil
}

func middle(list []sample, of func(sample) time.Duration) time.Duration {
	all := make([]time.Duration, len(list))
	for i, s := range list {
		all[i] = of(s)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// attach makes n replicas, each with node files and with a file of its own in its layer, and opens them anew,
// as after a start.
func (b *bench) attach(dir string, n int) (*replica.Set, []*replica.Replica, error) {
	open := func(durability replica.Durability) (*replica.Set, []*replica.Replica, error) {
		set, err := replica.Open(replica.Options{Dir: dir, Source: b.store, Durability: durability})
		if err != nil {
			return nil, nil, err
		}
		var list []*replica.Replica
		for i := range n {
			r, err := set.Attach(replica.Spec{Node: fmt.Sprint("n", i), Image: "bench", Version: b.base,
				Files: nodeFiles(i)})
			if err != nil {
				return nil, nil, err
			}
			list = append(list, r)
		}
		return set, list, nil
	}
	set, list, err := open(replica.Relaxed)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range list {
		if _, err := r.Create(&vfs.Cred{}, r.Root(), "own", &vfs.Create{}); err != nil {
			return nil, nil, err
		}
	}
	if err := set.Close(); err != nil {
		return nil, nil, err
	}
	unix.Sync()
	if set, list, err = open(replica.Synced); err != nil {
		return nil, nil, err
	}
	for _, r := range list { // every node has made a call
		var a vfs.Attr
		if _, err := r.Lookup(&vfs.Cred{}, r.Root(), "own", &a); err != nil {
			return nil, nil, err
		}
	}
	return set, list, nil
}

// nodeFiles are as many as a Debian has.
func nodeFiles(node int) replica.NodeFiles {
	var f replica.NodeFiles
	for i := range 12 {
		text := fmt.Sprintf("node %d, file %d", node, i)
		f.List = append(f.List, replica.NodeFile{
			Path: fmt.Sprintf("directory-%d/node", i), Mode: 0o644, Size: uint64(len(text)),
			Digest: image.Sum([]byte(text)),
		})
	}
	slices.SortFunc(f.List, func(a, b replica.NodeFile) int { return image.ComparePaths(a.Path, b.Path) })
	return f
}

// once switches all replicas, and measures the limit.
func (b *bench) once(dir string, set *replica.Set, list []*replica.Replica, to image.Version) (s sample, err error) {
	moves := make([]replica.Move, len(list))
	for i, r := range list {
		moves[i] = replica.Move{Replica: r, Version: to, Files: nodeFiles(i)}
	}
	before, began, used := journal(dir), time.Now(), usage()
	report, err := set.Switch(context.Background(), moves)
	if err != nil {
		return s, err
	}
	if report.Replicas != len(list) {
		return s, fmt.Errorf("%d of %d replicas were switched", report.Replicas, len(list))
	}
	s.locked, s.all, s.cpu = report.Took, time.Since(began), usage()-used
	if s.bytes = journal(dir) - before; s.bytes < 0 { // it was rewritten
		s.bytes = journal(dir)
	}
	s.limit, err = b.limit(s.bytes)
	return s, err
}

// limit writes so many bytes to the end of a file and waits for the disk.
func (b *bench) limit(n int64) (time.Duration, error) {
	f, err := os.OpenFile(filepath.Join(b.dir, "limit"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	bytes := make([]byte, n)
	began := time.Now()
	if _, err := f.Write(bytes); err != nil {
		return 0, err
	}
	err = f.Sync()
	return time.Since(began), err
}

func usage() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// journal returns the size of the journal of switches.
func journal(dir string) int64 {
	fi, err := os.Stat(filepath.Join(dir, "switches.log"))
	if err != nil {
		return 0
	}
	return fi.Size()
}
