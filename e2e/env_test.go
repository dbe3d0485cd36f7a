package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/internal/lab"
	"dim/internal/testkit"
)

// needLab skips tests that were not asked for.
func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("DIM_E2E") == "" {
		t.Skip("whole-system test: needs root and packages; run `make e2e`")
	}
	if os.Getuid() != 0 {
		t.Fatal("DIM_E2E is set, but this is not root")
	}
}

var (
	serverAddr = netip.MustParsePrefix("10.77.0.1/24")
	nodeAddrs  = map[string]netip.Prefix{
		"n01": netip.MustParsePrefix("10.77.0.11/24"),
		"n02": netip.MustParsePrefix("10.77.0.12/24"),
		"n03": netip.MustParsePrefix("10.77.0.13/24"),
	}
)

const nfsOptions = "vers=3,proto=tcp,mountproto=tcp,nolock,hard,actimeo=3,nocto," +
	"port=2049,mountport=2049,addr=10.77.0.1,mountaddr=10.77.0.1"

// startCluster starts the server of examples/small.xml with the given master, and stops it when the test ends.
func startCluster(t *testing.T, dir, master string) *lab.Cluster {
	t.Helper()
	xml, err := filepath.Abs("../examples/small.xml")
	if err != nil {
		t.Fatal(err)
	}
	return startClusterAs(t, dir, master, xml)
}

// startClusterAs is startCluster with another description of the same machines.
func startClusterAs(t *testing.T, dir, master, xml string) *lab.Cluster {
	t.Helper()
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := lab.Up(ctx, lab.ClusterSpec{
		Name: fmt.Sprintf("dim-e2e-%d", os.Getpid()), Dir: dir, Bin: bin, Master: master,
		MasterAt:    "/srv/dim/masters/compute",
		Description: xml, Server: "head", Address: serverAddr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.ServerLog())
			t.Logf("the server's log:\n%s", log[max(0, len(log)-8000):])
		}
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// dim runs a dim command that must succeed.
func dim(t *testing.T, c *lab.Cluster, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := c.Dim(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// build builds a static program of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, msg)
	}
	return out
}

// guest is a User Mode Linux guest in the role of a node.
type guest struct {
	*lab.UML
	t *testing.T
}

// startGuest boots a guest in the role of the node name and mounts the node's replica on /mnt/root. put has
// further files of the guest, by path.
func startGuest(t *testing.T, c *lab.Cluster, name string, put map[string]string) guest {
	t.Helper()
	g := bootGuest(t, c, name, put)
	g.mount("/nodes/"+name, "/mnt/root", nfsOptions)
	return g
}

// bootGuest is startGuest without the mount.
func bootGuest(t *testing.T, c *lab.Cluster, name string, put map[string]string) guest {
	t.Helper()
	return powerOn(t, c, lab.UMLSpec{Name: name, Put: put})
}

// powerOn is bootGuest with more properties of the machine.
func powerOn(t *testing.T, c *lab.Cluster, spec lab.UMLSpec) guest {
	t.Helper()
	spec.Net, spec.Dir, spec.Init, spec.Addr = c.Net, t.TempDir(), build(t, "dim/e2e/agentd"), nodeAddrs[spec.Name]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	u, err := lab.StartUML(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of %s:\n%s", spec.Name, u.Tail(30))
		}
		u.Kill()
	})
	return guest{u, t}
}

func (g guest) mount(export, dir, options string) {
	g.t.Helper()
	testkit.Must(g.t, g.call("Mount",
		agent.MountArgs{Source: "10.77.0.1:" + export, Dir: dir, Type: "nfs", Options: options}, &agent.None{}))
}

// call calls the guest's agent, with a time limit: an NFS mount that hangs must not block the test.
func (g guest) call(method string, args, reply any) error {
	select {
	case call := <-g.Agent.Go("Agent."+method, args, reply, nil).Done:
		return call.Error
	case <-time.After(10 * time.Minute):
		return fmt.Errorf("%s %+v: no answer from the guest; console:\n%s", method, args, g.Tail(10))
	}
}

func (g guest) open(path string, flags int) int {
	g.t.Helper()
	var id int
	testkit.Must(g.t, g.call("Open", agent.OpenArgs{Path: path, Flags: flags, Mode: 0o644}, &id))
	return id
}

func (g guest) readAt(id int, off int64, n int) string {
	g.t.Helper()
	var data []byte
	testkit.Must(g.t, g.call("ReadAt", agent.RangeArgs{ID: id, Offset: off, Length: n}, &data))
	return string(data)
}

func (g guest) writeAt(id int, off int64, text string) {
	g.t.Helper()
	var n int
	testkit.Must(g.t, g.call("WriteAt", agent.WriteArgs{ID: id, Offset: off, Data: []byte(text), Sync: 1}, &n))
}

func (g guest) read(path string) string {
	g.t.Helper()
	var data []byte
	testkit.Must(g.t, g.call("ReadFile", path, &data))
	return string(data)
}

func (g guest) write(path, text string) {
	g.t.Helper()
	testkit.Must(g.t, g.call("WriteFile", agent.WriteFileArgs{Path: path, Data: []byte(text), Mode: 0o644},
		&agent.None{}))
}

func (g guest) stat(path string) agent.Stat {
	g.t.Helper()
	var s agent.Stat
	testkit.Must(g.t, g.call("Stat", path, &s))
	return s
}

func (g guest) dropCaches() {
	g.t.Helper()
	testkit.Must(g.t, g.call("DropCaches", agent.None{}, &agent.None{}))
}

// tree writes files, given by path and content, into dir. A path that ends in / is a directory.
func tree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		full := filepath.Join(dir, path)
		if strings.HasSuffix(path, "/") {
			testkit.Must(t, os.MkdirAll(full, 0o755))
			continue
		}
		testkit.Must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		testkit.Must(t, os.WriteFile(full, []byte(text), 0o755))
	}
}
