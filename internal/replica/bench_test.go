package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/recordmerge"
	"dim/internal/replica/lower"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// bigSeed is of the size of an installation with compilers: 90,000 names in 7,200 directories. The first
// changed files of the directories have other content in another edition.
func bigSeed(changed int, edition string) []vfstest.Entry {
	var seed []vfstest.Entry
	for i := range 8 {
		seed = append(seed, d(fmt.Sprintf("top%d", i)))
		for j := range 30 {
			seed = append(seed, d(fmt.Sprintf("top%d/package%d", i, j)))
			for k := range 30 {
				dir := fmt.Sprintf("top%d/package%d/component%d", i, j, k)
				seed = append(seed, d(dir))
				for n := range 11 {
					e := f(fmt.Sprintf("%s/file-number-%d.txt", dir, n*7919+k), "content")
					if n == 0 && changed > 0 {
						changed--
						e.Content = edition
					}
					seed = append(seed, e)
				}
			}
		}
	}
	return seed
}

func bigIndex(b testing.TB) (*replicatest.Memory, image.Version) {
	m := newMemory(b)
	return m, m.Version(b, 1, bigSeed(0, ""))
}

func BenchmarkLoad(b *testing.B) {
	m, v := bigIndex(b)
	for b.Loop() {
		if _, err := lower.Load(v, m.TreeInto, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadOnTopOfAnother(b *testing.B) {
	m, v := bigIndex(b)
	next := m.Version(b, 2, bigSeed(300, "new"))
	base, err := lower.Load(v, m.TreeInto, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := lower.Load(next, m.TreeInto, base); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory reports what a version of 90,000 names takes in memory, and a replica that was read but not
// written to.
func BenchmarkMemory(b *testing.B) {
	m, v := bigIndex(b)
	for b.Loop() {
		before := heap()
		s := newTestSet(b, m)
		if _, err := s.Attach(Spec{Node: "n0", Image: "compute", Version: v}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(heap()-before)/1e6, "MB/version")
		before = heap()
		const n = 2560
		for i := 1; i <= n; i++ {
			r, err := s.Attach(Spec{Node: fmt.Sprint("n", i), Image: "compute", Version: v, Files: benchFiles()})
			if err != nil {
				b.Fatal(err)
			}
			o := &site{Replica: r, Shell: replicatest.NewShell(b, r), t: b}
			o.Names("top1")
		}
		b.ReportMetric(float64(heap()-before)/n, "B/replica")
		runtime.KeepAlive(s)
	}
}

func benchFiles() NodeFiles {
	var list NodeFiles
	for i := range 12 {
		list.List = append(list.List, NodeFile{Path: fmt.Sprintf("top0/package0/node%d", i), Mode: 0o644})
	}
	return list
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func benchReplica(b *testing.B) *site {
	m, v := bigIndex(b)
	s := newTestSet(b, m)
	r, err := s.Attach(Spec{Node: "n01", Image: "compute", Version: v, Files: benchFiles()})
	if err != nil {
		b.Fatal(err)
	}
	return &site{Replica: r, Shell: replicatest.NewShell(b, r), t: b, s: s, m: m}
}

func BenchmarkAttr(b *testing.B) {
	o := benchReplica(b)
	var handles []vfs.Handle
	for i := range 8 {
		for k := range 30 {
			handles = append(handles, o.Handle(fmt.Sprintf("top%d/package%d/component7/file-number-7.txt", i, k)))
		}
	}
	var a vfs.Attr
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Attr(handles[i%len(handles)], &a); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkLookup(b *testing.B) {
	o := benchReplica(b)
	var dirs []vfs.Handle
	for i := range 8 {
		for k := range 30 {
			dirs = append(dirs, o.Handle(fmt.Sprintf("top%d/package%d/component7", i, k)))
		}
	}
	var a vfs.Attr
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Lookup(root, dirs[i%len(dirs)], "file-number-7.txt", &a); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkLayerAttr(b *testing.B) {
	o := benchReplica(b)
	o.WriteFile("top1/own", "x")
	h := o.Handle("top1/own")
	var a vfs.Attr
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Attr(h, &a); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadOfManyFiles reads more small files than the Set keeps open: those of the version, and those that a
// node wrote.
func BenchmarkReadOfManyFiles(b *testing.B) {
	o := benchReplica(b)
	o.WriteFile("own", "x")
	const many = 16384
	var version, own []vfs.Handle
	for i := range many {
		version = append(version, o.Handle(fmt.Sprintf("top%d/package%d/component%d/file-number-%d.txt",
			i%8, i/8%30, i/240%30, i/7200*7919+i/240%30)))
		path := fmt.Sprintf("top%d/package%d/component%d/own-%d", i%8, i/8%30, i/240%30, i)
		o.WriteFile(path, "x")
		own = append(own, o.Handle(path))
	}
	for name, handles := range map[string][]vfs.Handle{"version": version, "own": own} {
		b.Run(name, func(b *testing.B) {
			var a vfs.Attr
			p := make([]byte, 4096)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				h := handles[i%many]
				_, _, err := o.Read(root, h, p, 0)
				if err == nil {
					err = o.Attr(h, &a)
				}
				if err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

func BenchmarkReadDirPlus(b *testing.B) {
	o := benchReplica(b)
	dir := o.Handle("top3/package3/component3")
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := o.ReadDir(root, dir, 0, vfs.WithAttr, func(*vfs.DirEntry) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/name")
}

func BenchmarkCreate(b *testing.B) {
	o := benchReplica(b)
	dir := o.Handle("top1")
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		how := vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}}
		if _, err := o.Create(root, dir, fmt.Sprint("new", i), &how); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan reads a layer of 1,000 files, as the first call after a start does.
func BenchmarkScan(b *testing.B) {
	o := benchReplica(b)
	for i := range 1000 {
		o.WriteFile(fmt.Sprintf("top%d/package%d/own%d", i%8, i%30, i), "x")
	}
	for b.Loop() {
		o.scanned, o.ready, o.Replica.root = false, false, nil
		if err := o.lock(); err != nil {
			b.Fatal(err)
		}
		o.mu.Unlock()
	}
}

// BenchmarkSwitch moves 2,560 replicas, each of which has been used and has a layer, over n paths and back. The
// versions' indexes are in memory and compared, as when the next ring of a rollout follows.
func BenchmarkSwitch(b *testing.B) {
	for _, paths := range []int{1, 300, 7000} {
		b.Run(fmt.Sprintf("paths=%d", paths), func(b *testing.B) { benchSwitch(b, paths) })
	}
}

func benchSwitch(b *testing.B, paths int) {
	m := newMemory(b)
	versions := []image.Version{m.Version(b, 1, bigSeed(0, "")), m.Version(b, 2, bigSeed(paths, "new"))}
	s := newTestSet(b, m, func(o *Options) { o.Dir = filepath.Join(b.TempDir(), "r") })
	var moves []Move
	for i := range 2560 {
		r, err := s.Attach(Spec{Node: fmt.Sprint("n", i), Image: "compute", Version: versions[0], Files: benchFiles()})
		if err != nil {
			b.Fatal(err)
		}
		o := &site{Replica: r, Shell: replicatest.NewShell(b, r), t: b}
		o.WriteFile("top7/own", "x")
		moves = append(moves, Move{Replica: r, Files: benchFiles()})
	}
	i := 0
	for b.Loop() {
		i++
		for k := range moves {
			moves[k].Version = versions[i%2]
		}
		rep, err := s.Switch(context.Background(), moves)
		if err != nil || rep.Replicas != len(moves) || rep.Paths != paths {
			b.Fatalf("%+v, %v", rep, err)
		}
		b.ReportMetric(float64(rep.Took.Microseconds())/1000, "ms-locked")
	}
	os.RemoveAll(s.path)
}

// BenchmarkStartBehind is the start of a server whose 2,500 replicas follow an earlier version. Of each replica one
// file is merged, and one is set aside.
func BenchmarkStartBehind(b *testing.B) {
	const replicas = 2500
	testkit.NeedRoot(b, needsRoot)
	m := newMemory(b)
	one := m.Version(b, 1, []vfstest.Entry{d("etc"), f("etc/motd", "1"), f("etc/passwd", rootUser)})
	two := m.Version(b, 2, []vfstest.Entry{d("etc"), f("etc/motd", "2"), f("etc/passwd", rootUser+alice)})
	dir := b.TempDir()
	specs := make([]Spec, replicas)
	for i := range specs {
		specs[i] = Spec{Node: fmt.Sprint("n", i), Image: "compute", Version: one}
		specs[i].Rules.Merge = recordmerge.Builtin()
	}
	open := func(durability Durability) *Set {
		return testkit.Value(Open(Options{Dir: dir + "/r", Source: m, Durability: durability}))(b)
	}
	for b.Loop() {
		b.StopTimer()
		testkit.Must(b, os.RemoveAll(dir+"/r"))
		s := open(Relaxed)
		all, _ := s.AttachAll(b.Context(), specs)
		for _, r := range all {
			o := replicatest.NewShell(b, r)
			o.WriteFile("etc/motd", "mine")
			o.WriteFile("etc/passwd", rootUser+nodesUser)
		}
		testkit.Must(b, s.Close())
		for i := range specs {
			specs[i].Version = two
		}
		unix.Sync()
		s = open(Synced)
		b.StartTimer()
		_, errs := s.AttachAll(b.Context(), specs)
		b.StopTimer()
		testkit.Must(b, errors.Join(errs...))
		testkit.Must(b, s.Close())
		for i := range specs {
			specs[i].Version = one
		}
		b.StartTimer()
	}
}
