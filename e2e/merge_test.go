package e2e

import (
	"os"
	"testing"

	"dim/internal/testkit"
)

// A running kernel sees the merged file, under a new id, and a process that has the node's own one open keeps that.
// Another kernel, whose node has changed nothing, sees the master's.
func TestARealKernelSeesAMergedFile(t *testing.T) {
	needLab(t)
	const (
		before = "root:x:0:0:root:/root:/bin/sh\n"
		own    = before + "localuser:x:1000:1000::/home/localuser:/bin/sh\n"
		alice  = "alice:x:1000:1000::/home/alice:/bin/sh\n"
		passwd = "/mnt/root/etc/passwd"
	)
	master := smallMaster(t)
	tree(t, master, map[string]string{"etc/passwd": before})
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	n1, n2 := startGuest(t, c, "n01", nil), startGuest(t, c, "n02", nil)
	n1.write(passwd, own)
	open := n1.open(passwd, os.O_RDONLY)
	id := n1.stat(passwd).Ino

	tree(t, master, map[string]string{"etc/passwd": before + alice})
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	testkit.Eventually(t, "n01 shows the merged file", func() bool { return n1.read(passwd) == own+alice })
	testkit.Eventually(t, "n02 shows the master's file", func() bool { return n2.read(passwd) == before+alice })
	if n1.stat(passwd).Ino == id {
		t.Error("the merged file has the id of the node's own")
	}
	for range 2 { // from the cache, and from the server
		if got := n1.readAt(open, 0, len(own)); got != own {
			t.Errorf("the open file does not keep its bytes: %q", got)
		}
		n1.dropCaches()
	}
	restart(t, c)
	if got := n1.readAt(open, 0, len(own)); got != own {
		t.Errorf("after a restart of the server the open file is %q", got)
	}

	dim(t, c, "rollout", "undo")
	testkit.Eventually(t, "n01 shows its own file again", func() bool { return n1.read(passwd) == own })
	testkit.Eventually(t, "n02 shows the first version", func() bool { return n2.read(passwd) == before })
}
