package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// output runs a command of the head.
func output(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.300s", name, err, out)
	}
	return nil
}

// rsync copies from a daemon.
type rsync struct {
	n      *network
	o      *options
	daemon *exec.Cmd
}

func newRsync(n *network, o *options) *rsync { return &rsync{n: n, o: o} }

func (r *rsync) close() {
	if r.daemon != nil {
		end(r.daemon)
	}
}

func (*rsync) name() string { return "rsync" }

func (r *rsync) prepare() error {
	if r.daemon != nil {
		return nil
	}
	conf := filepath.Join(r.o.dir, "rsyncd.conf")
	text := fmt.Sprintf("uid = root\ngid = root\nuse chroot = no\n[tree]\npath = %s\nread only = yes\n", r.o.master)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	var err error
	r.daemon, err = r.n.start(r.n.head, "rsync", "--daemon", "--no-detach", "--config="+conf, "--port=8730")
	time.Sleep(300 * time.Millisecond) // until it listens
	return err
}

func (r *rsync) transfer() (took, cpu time.Duration, err error) {
	before := cpuTime(r.daemon.Process.Pid)
	took, cpu, err = r.n.everywhere(func(i int) []string {
		return []string{"rsync", "-aHAX", "--numeric-ids", "--delete", "rsync://" + r.n.address(0) + ":8730/tree/",
			filepath.Join(r.o.dir, fmt.Sprintf("rsync-%d/", i))}
	})
	return took, cpu + cpuTime(r.daemon.Process.Pid) - before, err
}

// casync brings an archive, in chunks over HTTP, into a directory that it takes as its seed.
type casync struct {
	n *network
	o *options
}

func newCasync(n *network, o *options) *casync { return &casync{n, o} }

func (*casync) name() string { return "casync" }

func (c *casync) prepare() error {
	return output("casync", "make", "--store="+filepath.Join(c.o.dir, "tree.castr"),
		filepath.Join(c.o.dir, "tree.caidx"), c.o.master)
}

func (c *casync) transfer() (took, cpu time.Duration, err error) {
	before := cpuTime(c.n.web)
	url := "http://" + c.n.address(0) + ":8000/"
	took, cpu, err = c.n.everywhere(func(i int) []string {
		return []string{"casync", "extract", "--store=" + url + "tree.castr", url + "tree.caidx",
			filepath.Join(c.o.dir, fmt.Sprintf("casync-%d", i))}
	})
	return took, cpu + cpuTime(c.n.web) - before, err
}

// ostree pulls a commit into a repository, and checks nothing out.
type ostree struct {
	n    *network
	o    *options
	made bool
}

func newOstree(n *network, o *options) *ostree { return &ostree{n: n, o: o} }

func (*ostree) name() string { return "ostree" }

func (t *ostree) repo(i int) string {
	return "--repo=" + filepath.Join(t.o.dir, fmt.Sprintf("ostree-%d", i))
}

func (t *ostree) prepare() error {
	head := "--repo=" + filepath.Join(t.o.dir, "ostree")
	if !t.made {
		t.made = true
		if err := output("ostree", head, "init", "--mode=archive"); err != nil {
			return err
		}
		for i := range t.n.servers {
			if err := output("ostree", t.repo(i), "init", "--mode=bare"); err != nil {
				return err
			}
			url := "http://" + t.n.address(0) + ":8000/ostree"
			if err := output("ostree", t.repo(i), "remote", "add", "--no-gpg-verify", "head", url); err != nil {
				return err
			}
		}
	}
	return output("ostree", head, "commit", "-b", "compute", "--tree=dir="+t.o.master)
}

func (t *ostree) transfer() (took, cpu time.Duration, err error) {
	before := cpuTime(t.n.web)
	took, cpu, err = t.n.everywhere(func(i int) []string {
		return []string{"ostree", t.repo(i), "pull", "head", "compute"}
	})
	return took, cpu + cpuTime(t.n.web) - before, err
}
