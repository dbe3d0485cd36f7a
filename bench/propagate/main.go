// Propagate measures the time from an edit of a watched master until the nodes of many replicas can read it.
//
// Every replica has a connection from its node's own address. An edit is over when its last file is closed:
// from then on the time runs, until every replica has given the new bytes to real NFS calls, compared one by
// one. A few clients ask at a time, each for its share of the replicas; the time includes their calls. With a
// package of many files, every replica is asked for the last file of it, and some for all files; with a large
// file, every one for its first and last 64 KiB, and one for all of it. A replica shows a version as a whole or
// not at all.
//
// The peer copies the master with rsync into plain directories, a sample of the replicas, as is done where each
// node has a copy of its own. Its time for all replicas is that of the sample times their number: nobody has
// room for all.
//
//	propagate -addr 10.77.0.1:2049 -export /nodes/n%04d -from 10.77.1.0 -nodes 2560 \
//	    -master /srv/master -copies /srv/copies
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/nfs/nfsclient"
	"dim/internal/procstat"
	"dim/internal/vfs"
)

type options struct {
	addr, export   string
	list           string
	from           netip.Addr
	master, copies string
	nodes, sample  int
	pids           []int // of servers
	megabytes      int
}

func main() {
	o := options{}
	from := ""
	flag.StringVar(&o.addr, "addr", "10.77.0.1:2049", "the server's NFS port")
	flag.StringVar(&o.export, "export", "/nodes/n%04d", "what to mount; %04d is the node's number")
	flag.StringVar(&from, "from", "10.77.1.0", "source address of node 0; the others have those that follow")
	flag.StringVar(&o.master, "master", "", "the watched master")
	flag.StringVar(&o.copies, "copies", "", "where the peer keeps its copies")
	flag.StringVar(&o.list, "list", "",
		"file with a line for each replica: the server's NFS port, the node's address, what to mount; "+
			"in place of -addr, -export, -from and -nodes")
	flag.IntVar(&o.nodes, "nodes", 2560, "how many replicas")
	flag.IntVar(&o.sample, "sample", 4, "how many copies the peer has")
	flag.IntVar(&o.megabytes, "megabytes", 400, "size of the large file")
	flag.Func("pid", "the server's process, for its CPU time; may be given several times", o.addProcess)
	flag.Parse()
	var err error
	if o.from, err = netip.ParseAddr(from); err == nil {
		err = run(&o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "propagate: %v\n", err)
		os.Exit(1)
	}
}

func (o *options) addProcess(s string) error {
	pid, err := strconv.Atoi(s)
	o.pids = append(o.pids, pid)
	return err
}

// cpu returns the CPU time that the servers have used so far.
func (o *options) cpu() (sum float64) {
	for _, pid := range o.pids {
		sum += procstat.CPUTime(pid)
	}
	return sum
}

// edit is a change of the master, and how to recognise it in a replica.
type edit struct {
	what  string
	files map[string][]byte // by path
	last  string            // written last
}

func run(o *options) error {
	trees, err := mount(o)
	if err != nil {
		return err
	}
	if err := o.copy(); err != nil { // the peer's copies are there before the first edit, too
		return err
	}
	for _, e := range edits(o) {
		if err := o.propagate(trees, &e); err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
	}
	return nil
}

// node is one replica: where it is served, and who may mount it.
type node struct {
	server string // host:port
	addr   string
	path   string
}

// replicas returns the replicas of -list, or those that the other flags name.
func (o *options) replicas() (list []node, err error) {
	if o.list == "" {
		for i, addr := 0, o.from; i < o.nodes; i, addr = i+1, addr.Next() {
			list = append(list, node{o.addr, addr.String(), fmt.Sprintf(o.export, i)})
		}
		return list, nil
	}
	text, err := os.ReadFile(o.list)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("read %s: %q has not three words", o.list, line)
		}
		list = append(list, node{f[0], f[1], f[2]})
	}
	o.nodes = len(list)
	return list, err
}

func mount(o *options) ([]*nfsclient.Tree, error) {
	list, err := o.replicas()
	if err != nil {
		return nil, err
	}
	var trees []*nfsclient.Tree
	for _, n := range list {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(n.addr)}, Timeout: time.Minute}
		conn, err := d.Dial("tcp", n.server)
		if err != nil {
			return nil, err
		}
		t, err := nfsclient.NewClient(conn).Tree(n.path)
		if err != nil {
			return nil, fmt.Errorf("mount %s from %s: %w", n.path, n.addr, err)
		}
		trees = append(trees, t)
	}
	return trees, nil
}

func edits(o *options) []edit {
	random := rand.NewChaCha8([32]byte{1})
	large := make([]byte, o.megabytes<<20)
	_, _ = random.Read(large)
	pack := edit{what: "a package of 300 files", files: map[string][]byte{}, last: "usr/share/propagate/f299"}
	for i := range 300 {
		content := make([]byte, 8<<10)
		_, _ = random.Read(content)
		pack.files[fmt.Sprintf("usr/share/propagate/f%03d", i)] = content
	}
	line := edit{what: "one line",
		files: map[string][]byte{"etc/motd.propagate": fmt.Appendf(nil, "edited at %v\n", time.Now())},
		last:  "etc/motd.propagate"}
	if o.megabytes == 0 {
		return []edit{line, pack}
	}
	return []edit{line, pack,
		{what: fmt.Sprintf("a file of %d MB", o.megabytes), files: map[string][]byte{"opt/propagate": large},
			last: "opt/propagate"}}
}

func (o *options) propagate(trees []*nfsclient.Tree, e *edit) error {
	if err := e.write(o.master); err != nil {
		return err
	}
	server, asking := o.cpu(), procstat.CPUTime(os.Getpid())
	first, all, err := e.seen(trees)
	if err != nil {
		return err
	}
	server, asking = o.cpu()-server, procstat.CPUTime(os.Getpid())-asking
	for i := 0; i < len(trees); i += max(len(trees)/16, 1) {
		if err := e.whole(trees[i], len(e.files) > 1 || i == 0); err != nil {
			return fmt.Errorf("replica %d: %w", i, err)
		}
	}
	begin := time.Now()
	if err := o.copy(); err != nil {
		return err
	}
	sample := time.Since(begin)
	peer := time.Duration(float64(sample) / float64(o.sample) * float64(o.nodes))
	fmt.Printf("%s, %d replicas: the first after %.3fs, the last after %.3fs\n", e.what, len(trees), first.Seconds(),
		all.Seconds())
	fmt.Printf("  until then %d servers used %.2f s of CPU time, and who asks %.2f s\n", len(o.pids), server, asking)
	fmt.Printf("  rsync to %d copies %.3fs; for %d that would be %.0fs (extrapolated)\n", o.sample, sample.Seconds(),
		o.nodes, peer.Seconds())
	fmt.Printf("  ratio   %s dim/rsync: wall %.5f\n", e.what, all.Seconds()/peer.Seconds())
	return nil
}

// askers is how many replicas are read at a time.
const askers = 8

// seen waits until all replicas have shown the edit; it returns how long the first and the last took.
func (e *edit) seen(trees []*nfsclient.Tree) (first, all time.Duration, err error) {
	begin := time.Now()
	var g errgroup.Group
	for share := range askers {
		g.Go(func() error {
			for i := share; i < len(trees); i += askers {
				if err := await(func() error { return e.check(trees[i], e.last) }); err != nil {
					return fmt.Errorf("replica %d: %w", i, err)
				}
				if i == 0 {
					first = time.Since(begin)
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return first, time.Since(begin), err
}

func (e *edit) write(master string) error {
	put := func(path string) error {
		full := filepath.Join(master, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		return os.WriteFile(full, e.files[path], 0o644)
	}
	for path := range e.files {
		if path != e.last {
			if err := put(path); err != nil {
				return err
			}
		}
	}
	return put(e.last)
}

// await repeats check until it succeeds, for two minutes at most.
func await(check func() error) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if err := check(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// ends is how many bytes are compared at both ends of a large file.
const ends = 64 << 10

var errOther = errors.New("other bytes than were written")

// check compares a file at its ends.
func (e *edit) check(t *nfsclient.Tree, path string) error {
	h, size, err := find(t, path)
	want := e.files[path]
	if err != nil {
		return err
	}
	if size != uint64(len(want)) {
		return errOther
	}
	n := min(len(want), ends)
	if err := compare(t, h, want[:n], 0); err != nil || n == len(want) {
		return err
	}
	return compare(t, h, want[len(want)-n:], len(want)-n)
}

// whole compares every file. It compares the bytes between the ends only if all are wanted.
func (e *edit) whole(t *nfsclient.Tree, all bool) error {
	for path, want := range e.files {
		if err := e.check(t, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		h, _, err := find(t, path)
		for off := 0; err == nil && all && off < len(want); off += ends {
			err = compare(t, h, want[off:min(off+ends, len(want))], off)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func find(t *nfsclient.Tree, path string) (vfs.Handle, uint64, error) {
	h := t.Root()
	var a vfs.Attr
	for name := range strings.SplitSeq(path, "/") {
		next, err := t.Lookup(&vfs.Cred{}, h, name, &a)
		if err != nil {
			return h, 0, err
		}
		h = next
	}
	return h, a.Size, nil
}

func compare(t *nfsclient.Tree, h vfs.Handle, want []byte, off int) error {
	got := make([]byte, len(want))
	for n := 0; n < len(want); {
		m, _, err := t.Read(&vfs.Cred{}, h, got[n:], uint64(off+n))
		if err != nil {
			return err
		}
		if m == 0 {
			return errOther
		}
		n += m
	}
	if !bytes.Equal(got, want) {
		return errOther
	}
	return nil
}

// copy brings the peer's copies up to date.
func (o *options) copy() error {
	for i := range o.sample {
		out, err := exec.Command("rsync", "-aHAX", "--delete", o.master+"/",
			filepath.Join(o.copies, fmt.Sprint(i))+"/").CombinedOutput()
		if err != nil {
			return fmt.Errorf("rsync: %w, %s", err, out)
		}
	}
	return nil
}
