package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// smallMaster makes a small root with the files that the tests use.
func smallMaster(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tree(t, dir, map[string]string{
		"etc/motd": "one\n", "etc/hostname": "golden\n", "etc/gone": "soon\n", "etc/mode": "m\n",
		"etc/ssh/ssh_host_key": "master's\n", "usr/bin/": "", "usr/lib/data": "d\n",
		"root/": "", "tmp/": "", "var/log/": "", "srv/a/b/c": "deep\n",
	})
	return dir
}

func TestARealKernelMountsAReplica(t *testing.T) {
	needLab(t)
	master := smallMaster(t)
	posix := build(t, "dim/e2e/posix")
	posixSeeds(t, posix, filepath.Join(master, "srv/half"))
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	put := map[string]string{"bin/posix": posix, "bin/busybox": "/bin/busybox"}
	n1, n2 := startGuest(t, c, "n01", put), startGuest(t, c, "n02", put)

	t.Run("it sees the master's files and its own node files", func(t *testing.T) {
		if got := n1.read("/mnt/root/etc/motd"); got != "one\n" {
			t.Errorf("motd: %q", got)
		}
		for _, g := range []struct {
			g    guest
			want string
		}{{n1, "n01\n"}, {n2, "n02\n"}} {
			if got := g.g.read("/mnt/root/etc/hostname"); got != g.want {
				t.Errorf("hostname: %q, want %q", got, g.want)
			}
		}
	})
	t.Run("a file system behaves as POSIX says", func(t *testing.T) {
		n1.posix("/mnt/root/srv/half", "-seeds", "half")
	})
	t.Run("what one node writes, the other does not see", func(t *testing.T) {
		n1.write("/mnt/root/etc/only-n01", "x")
		n1.write("/mnt/root/etc/motd", "n01's own\n")
		n2.dropCaches()
		if n2.stat("/mnt/root/etc/only-n01").Exists {
			t.Error("n02 sees n01's file")
		}
		if got := n2.read("/mnt/root/etc/motd"); got != "one\n" {
			t.Errorf("n02's motd: %q", got)
		}
	})
	t.Run("a shared path is read-only", func(t *testing.T) {
		err := n1.call("WriteFile", agent.WriteFileArgs{Path: "/mnt/root/usr/x", Mode: 0o644}, &agent.None{})
		if err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("write under /usr: %v", err)
		}
	})
	t.Run("nobody mounts another's replica", func(t *testing.T) {
		err := n2.call("Mount",
			agent.MountArgs{Source: "10.77.0.1:/nodes/n01", Dir: "/mnt/other", Type: "nfs", Options: nfsOptions},
			&agent.None{})
		if err == nil {
			t.Error("n02 mounts n01's replica")
		}
	})
	t.Run("killed and restarted under open files, nothing is lost", func(t *testing.T) { testServerKilled(t, c, n1) })
	t.Run("killed again and again while names change, no acknowledged change is lost", func(t *testing.T) {
		testNamesUnderKills(t, c, n2)
	})
	t.Run("a switch under open, mapped and running files", func(t *testing.T) { testSwitch(t, c, n1, n2, master) })
	t.Run("files that are open outlive a server that restarts after the switch", func(t *testing.T) {
		testSwitchAndRestart(t, c, n2, master)
	})
}

// posixSeeds makes the files that the cases of e2e/posix start from, in a directory of a master.
func posixSeeds(t *testing.T, posix, dir string, args ...string) {
	t.Helper()
	testkit.Must(t, os.MkdirAll(dir, 0o755))
	if out, err := exec.Command(posix,
		append([]string{dir, "-seeds", "make"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("make the seeds: %v\n%s", err, out)
	}
}

// posix runs the cases of e2e/posix in a directory of a guest.
func (g guest) posix(dir string, args ...string) {
	g.t.Helper()
	var out agent.Output
	testkit.Must(g.t, g.call("Run",
		agent.RunArgs{Argv: append([]string{"/bin/posix", dir, "-nfs", "-v"}, args...), Timeout: 8 * time.Minute},
		&out))
	g.t.Logf("%s", out.Text)
	if out.Exit != 0 || !strings.Contains(out.Text, " passed, 0 failed") {
		g.t.Errorf("posix %v ended with %d", args, out.Exit)
	}
}

// restart kills the server and starts it again.
func restart(t *testing.T, c *lab.Cluster) {
	t.Helper()
	c.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	testkit.Must(t, c.Start(ctx))
}

func testServerKilled(t *testing.T, c *lab.Cluster, g guest) {
	own := g.open("/mnt/root/srv/own", os.O_CREATE|os.O_RDWR)
	image := g.open("/mnt/root/srv/a/b/c", os.O_RDONLY)
	g.writeAt(own, 0, "acknowledged")
	before := g.stat("/mnt/root/srv/own")
	restart(t, c)
	g.dropCaches()
	if got := g.readAt(own, 0, 100); got != "acknowledged" {
		t.Errorf("own file after the restart: %q", got)
	}
	if got := g.readAt(image, 0, 100); got != "deep\n" {
		t.Errorf("the image's file after the restart: %q", got)
	}
	g.writeAt(own, 12, ", and on")
	g.dropCaches()
	if got := g.read("/mnt/root/srv/own"); got != "acknowledged, and on" {
		t.Errorf("own file written on: %q", got)
	}
	if after := g.stat("/mnt/root/srv/own"); after.Ino != before.Ino {
		t.Errorf("file id %d became %d", before.Ino, after.Ino)
	}
	// The server is killed several times during writes. Each acknowledged write must be there.
	const rounds = 5
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			var n int
			text := fmt.Sprintf("%06d\n", i)
			if err := g.call("WriteAt", agent.WriteArgs{ID: own, Offset: int64(100 + 7*i), Data: []byte(text), Sync: 1},
				&n); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range rounds {
		time.Sleep(150 * time.Millisecond)
		restart(t, c)
	}
	testkit.Must(t, <-done)
	g.dropCaches()
	text := g.read("/mnt/root/srv/own")
	for i := range 200 {
		if want := fmt.Sprintf("%06d\n", i); len(text) < 107+7*i || text[100+7*i:107+7*i] != want {
			t.Fatalf("record %d is lost", i)
		}
	}
}

// testNamesUnderKills makes, renames and removes files while the server is killed. When a server is killed
// between a change and its reply, the client sends the call again, and the new server finds the change made.
// NFSv3 cannot tell the two apart, so "not found" is no failure of a rename or removal. The test compares the
// names afterwards.
func testNamesUnderKills(t *testing.T, c *lab.Cluster, g guest) {
	const files = 120
	testkit.Must(t, g.call("Mkdir", agent.PathArgs{Path: "/mnt/root/srv/names"}, &agent.None{}))
	done := make(chan error, 1)
	go func() {
		for i := range files {
			made, moved := fmt.Sprintf("/mnt/root/srv/names/made%d", i), fmt.Sprintf("/mnt/root/srv/names/moved%d", i)
			err := g.call("WriteFile", agent.WriteFileArgs{Path: made, Data: []byte(made), Mode: 0o644}, &agent.None{})
			if err == nil && i%2 == 0 {
				err = ignoreNotFound(g.call("Rename", agent.PathArgs{Path: made, To: moved}, &agent.None{}))
			}
			if err == nil && i%4 == 0 {
				err = ignoreNotFound(g.call("Remove", agent.PathArgs{Path: moved}, &agent.None{}))
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		restart(t, c)
	}
	testkit.Must(t, <-done)
	restart(t, c)
	g.dropCaches()
	for i := range files {
		made, moved := fmt.Sprintf("/mnt/root/srv/names/made%d", i), fmt.Sprintf("/mnt/root/srv/names/moved%d", i)
		at := map[bool]string{true: moved, false: made}[i%2 == 0]
		switch there := g.stat(at).Exists; {
		case there != (i%4 != 0):
			t.Errorf("%s: there %v", at, there)
		case there && g.read(at) != made:
			t.Errorf("%s holds %q", at, g.read(at))
		}
		if i%2 == 0 && g.stat(made).Exists {
			t.Errorf("%s was renamed and is there", made)
		}
	}
}

func ignoreNotFound(err error) error {
	if err != nil && strings.Contains(err.Error(), "no such file") {
		return nil
	}
	return err
}

// pattern returns n bytes in which each line has the word and its offset.
func pattern(word string, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %08d\n", word, b.Len())
	}
	return b.String()[:n]
}

func testSwitch(t *testing.T, c *lab.Cluster, n1, n2 guest, master string) {
	const size = 1 << 20
	busybox, err := os.ReadFile("/bin/busybox")
	testkit.Must(t, err)
	tree(t, master, map[string]string{"opt/busybox": string(busybox), "opt/data": pattern("old", size),
		"etc/two": "2\n"})
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	testkit.Eventually(t, "the second version shows", func() bool { return n2.stat("/mnt/root/opt/busybox").Exists })

	file := n2.open("/mnt/root/opt/data", os.O_RDONLY)
	var mapping, proc int
	testkit.Must(t, n2.call("Map", agent.RangeArgs{ID: file, Length: size}, &mapping))
	testkit.Must(t, n2.call("Start", agent.RunArgs{Argv: []string{"/mnt/root/opt/busybox", "sleep", "600"}}, &proc))
	n1.write("/mnt/root/etc/mode", "n01's own\n")                 // the master changes it later: set aside
	n1.write("/mnt/root/etc/ssh/ssh_host_key", "n01's own key\n") // keep: stays
	ids := map[string]uint64{}
	for _, p := range []string{"/opt", "/etc", "/opt/data", "/etc/motd", "/etc/mode"} {
		ids[p] = n2.stat("/mnt/root" + p).Ino
	}
	dirTime := n2.stat("/mnt/root/etc").Ctime

	// One switch with every kind of change. The program is replaced as a package manager does it.
	tree(t, master, map[string]string{
		"opt/busybox.new": string(busybox) + "\n", "opt/data.new": pattern("new", size),
		"etc/motd": "two\n", "etc/added": "a\n", "etc/ssh/ssh_host_key": "master's second\n",
	})
	testkit.Must(t,
		os.Rename(filepath.Join(master, "opt/busybox.new"), filepath.Join(master, "opt/busybox")),
		os.Rename(filepath.Join(master, "opt/data.new"), filepath.Join(master, "opt/data")),
		os.Remove(filepath.Join(master, "etc/gone")), os.Chmod(filepath.Join(master, "etc/mode"), 0o600))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")

	testkit.Eventually(t, "the changed file shows", func() bool { return n2.read("/mnt/root/etc/motd") == "two\n" })
	testkit.Eventually(t, "the new file shows", func() bool { return n2.stat("/mnt/root/etc/added").Exists })
	testkit.Eventually(t, "the removed file is gone", func() bool { return !n2.stat("/mnt/root/etc/gone").Exists })
	testkit.Eventually(t, "the mode shows", func() bool { return n2.stat("/mnt/root/etc/mode").Mode&0o777 == 0o600 })
	testkit.Eventually(t, "the new data shows", func() bool {
		return strings.HasPrefix(n2.read("/mnt/root/opt/data"), "new ")
	})

	for range 2 { // from the cache, and from the server
		if got := n2.readAt(file, 0, size); got != pattern("old", size) {
			t.Errorf("the open file does not keep its bytes: it starts with %q", got[:min(20, len(got))])
		}
		var data []byte
		testkit.Must(t, n2.call("ReadMap", agent.RangeArgs{ID: mapping, Length: size}, &data))
		if string(data) != pattern("old", size) {
			t.Error("the mapped file does not keep its bytes")
		}
		n2.dropCaches()
	}
	var code int
	testkit.Must(t, n2.call("Finish", proc, &code))
	if code != -int(syscall.SIGTERM) {
		t.Errorf("the running program ended with %d, want SIGTERM's -15", code)
	}
	for _, p := range []string{"/opt", "/etc", "/etc/mode"} {
		if got := n2.stat("/mnt/root" + p).Ino; got != ids[p] {
			t.Errorf("%s: the id changed, but its content did not", p)
		}
	}
	for _, p := range []string{"/opt/data", "/etc/motd"} {
		if got := n2.stat("/mnt/root" + p).Ino; got == ids[p] {
			t.Errorf("%s: the content changed, but its id did not", p)
		}
	}
	if got := n2.stat("/mnt/root/etc").Ctime; got <= dirTime {
		t.Errorf("the ctime of /etc did not grow")
	}
	testkit.Eventually(t, "the master wins over n01's own /etc/mode", func() bool {
		return n1.read("/mnt/root/etc/mode") == "m\n"
	})
	if got := n1.read("/mnt/root/etc/ssh/ssh_host_key"); got != "n01's own key\n" {
		t.Errorf("a kept path was replaced: %q", got)
	}
	testkit.Eventually(t, "a kept path that n02 never wrote follows the master", func() bool {
		return n2.read("/mnt/root/etc/ssh/ssh_host_key") == "master's second\n"
	})
}

func testSwitchAndRestart(t *testing.T, c *lab.Cluster, g guest, master string) {
	file := g.open("/mnt/root/opt/data", os.O_RDONLY)
	tree(t, master, map[string]string{"opt/data": pattern("third", 1<<20)})
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	restart(t, c)
	g.dropCaches()
	if got := g.readAt(file, 1<<19, 4096); got != pattern("new", 1<<20)[1<<19:1<<19+4096] {
		t.Errorf("the open file does not keep its bytes over a switch and a restart")
	}
	testkit.Eventually(t, "the third version shows", func() bool {
		return strings.HasPrefix(g.read("/mnt/root/opt/data"), "third ")
	})
}

func TestAFullDiskGivesENOSPCUntilThereIsRoom(t *testing.T) {
	needLab(t)
	dir := t.TempDir()
	image := filepath.Join(t.TempDir(), "disk")
	for _, cmd := range [][]string{
		{"truncate", "-s", "200M", image}, {"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	c := startCluster(t, dir, smallMaster(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	g := startGuest(t, c, "n01", nil)
	g.write("/mnt/root/srv/before", "kept")

	fill := filepath.Join(dir, "fill")
	_ = exec.Command("dd", "if=/dev/zero", "of="+fill, "bs=1M", "oflag=dsync").Run() // until the disk is full
	_ = exec.Command("sh", "-c", "yes >> "+fill).Run()
	err := g.call("WriteFile", agent.WriteFileArgs{Path: "/mnt/root/srv/big", Data: make([]byte, 4<<20), Mode: 0o644},
		&agent.None{})
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("write to a full disk: %v, want ENOSPC", err)
	}
	g.dropCaches()
	if got := g.read("/mnt/root/srv/before"); got != "kept" {
		t.Errorf("a file of before: %q", got)
	}
	if got := g.read("/mnt/root/etc/motd"); got != "one\n" {
		t.Errorf("the image's file: %q", got)
	}
	testkit.Must(t, os.Remove(fill))
	g.write("/mnt/root/srv/after", "room again")
	if got := g.read("/mnt/root/srv/after"); got != "room again" {
		t.Errorf("a file of after: %q", got)
	}
}

// A machine that is not in the description is refused by every protocol.
func TestUnknownMachinesAreRefused(t *testing.T) {
	needLab(t)
	c := startCluster(t, t.TempDir(), smallMaster(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	testkit.Must(t, c.Net.AddAddr(netip.MustParsePrefix("10.77.0.99/24")))
	dial := func() net.Conn {
		var conn net.Conn
		testkit.Must(t, c.Net.Do(func() (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, 0, 99)}}
			conn, err = d.DialContext(t.Context(), "tcp", "10.77.0.1:80")
			return err
		}))
		return conn
	}
	for _, path := range []string{"/boot/ipxe", "/boot/kernel/x", "/"} {
		conn := dial()
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
		reply := make([]byte, 512)
		n, _ := conn.Read(reply)
		conn.Close()
		if n != 0 {
			t.Errorf("GET %s from a stranger: %q", path, reply[:n])
		}
	}
}
