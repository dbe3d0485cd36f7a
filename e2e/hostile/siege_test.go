package hostile

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/lab"
	"dim/internal/lab/netns"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

const (
	liveNodes    = 64              // n01 to n64 work
	hostileNodes = 16              // n65 to n80 attack
	serverAt     = "10.77.0.1"     // by all attacks
	peakMemory   = 300 << 20       // bytes that the server may use during the attack
	defaultTime  = 5 * time.Second // of the attack
	restTime     = 3 * time.Second // before and after it
	nodePause    = 100 * time.Millisecond
)

const siegeDescription = `<cluster name="siege">
  <network name="boot" subnet="10.77.0.0/24"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <taxonomy><level name="node" from="1" to="80"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
</cluster>
`

// siege is a server process under attack, with nodes that work meanwhile.
type siege struct {
	*lab.Cluster
	data string
	big  vfs.Handle // a large file of the hostile node n65

	mu     sync.Mutex
	at     phase
	phases [phaseCount]figures
}

// phase is a part of the test.
type phase int

const (
	calmBefore    phase = iota
	otherAttacked       // the attackers attack another server: the control
	attacked            // they attack the server of the nodes
	calmAfter
	phaseCount int = iota
)

func (p phase) String() string { return [...]string{"before", "control", "attack", "after"}[p] }

// figures are what was measured in one phase.
type figures struct {
	calls  []time.Duration
	peak   int64         // of the server's memory
	length time.Duration // of the attackers' work
	cpu    time.Duration // that the attackers used
}

// part returns the time that so many percent of the calls took at most. The calls are sorted.
func (f *figures) part(percent int) time.Duration {
	return f.calls[(len(f.calls)-1)*percent/100].Round(10 * time.Microsecond)
}

// controlTime is the length of each of the two controls.
func controlTime(attack time.Duration) time.Duration { return min(attack/2, 2*time.Minute) }

// TestAServerUnderAttackServesItsNodes lets hostile nodes and strangers attack all services, while nodes work. The
// attack lasts DIM_HOSTILE_TIME, by default some seconds. The figures are logged.
//
// The attackers use the same processors as the server, so what nodes see during an attack is not the server's doing
// alone. Therefore the same attackers also attack a second server, which has no nodes at work: that is the control. It
// comes before and after the attack, because other programs may use the machine, too.
func TestAServerUnderAttackServesItsNodes(t *testing.T) {
	if os.Getenv("DIM_E2E") == "" && os.Getenv("DIM_HOSTILE_TIME") == "" {
		t.Skip("whole-system test: run `make e2e`, or set DIM_HOSTILE_TIME to the length of the attack, such as 10m")
	}
	testkit.NeedRoot(t, "network namespaces")
	length := defaultTime
	if text := os.Getenv("DIM_HOSTILE_TIME"); text != "" {
		length = testkit.Value(time.ParseDuration(text))(t)
	}
	bin := buildServer(t)
	s, other := startSiege(t, bin, "siege"), startSiege(t, bin, "sink")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := 1; i <= liveNodes; i++ {
		n := s.node(t, i)
		wg.Go(func() { s.work(ctx, t, n) })
	}
	wg.Go(func() { s.watchMemory(ctx) })
	time.Sleep(restTime)
	s.enter(otherAttacked)
	s.measure(t, other, controlTime(length))
	s.enter(attacked)
	done := s.measure(t, s, length)
	s.enter(otherAttacked)
	s.measure(t, other, controlTime(length))
	s.enter(calmAfter)
	time.Sleep(restTime)
	cancel()
	wg.Wait()
	s.report(t, length, done)
	s.check(t)
}

// enter begins a phase.
func (s *siege) enter(p phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = p
}

// measure lets the attackers attack a server.
func (s *siege) measure(t *testing.T, victim *siege, length time.Duration) (done string) {
	t.Helper()
	done, cpu := victim.attackers(t, length)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phases[s.at].length += length
	s.phases[s.at].cpu += cpu
	return done
}

// Variables of the environment by which the process of the attackers gets what it needs.
const (
	netVariable    = "DIM_SIEGE_NET"    // the network namespace
	bigVariable    = "DIM_SIEGE_HANDLE" // the handle of the large file, in hexadecimal digits
	lengthVariable = "DIM_SIEGE_LENGTH" // of the attack
)

// attackers runs the attack in a process of its own with a low priority: attackers have processors of their own, and
// the figures are to be those of the server.
func (s *siege) attackers(t *testing.T, length time.Duration) (done string, cpu time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19",
		os.Args[0], "-test.run=^TestAttackers$", "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), netVariable+"="+s.Net.Name, bigVariable+"="+hex.EncodeToString(s.big.Bytes()),
		lengthVariable+"="+length.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the attackers: %v\n%s", err, out)
	}
	_, done, _ = strings.Cut(string(out), "attacks: ")
	done, _, _ = strings.Cut(done, "\n")
	return done, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// TestAttackers is the process of the attackers.
func TestAttackers(t *testing.T) {
	if os.Getenv(netVariable) == "" {
		t.Skip("a part of TestAServerUnderAttackServesItsNodes")
	}
	big, ok := vfs.MakeHandle(testkit.Value(hex.DecodeString(os.Getenv(bigVariable)))(t))
	if !ok {
		t.Fatal("not a handle")
	}
	a := &attackers{net: &netns.Net{Name: os.Getenv(netVariable)}, big: big}
	length := testkit.Value(time.ParseDuration(os.Getenv(lengthVariable)))(t)
	t.Logf("attacks: %v", a.attack(t.Context(), length))
}

// buildServer builds dim, and returns the directory with it.
func buildServer(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "dim"), "dim/cmd/dim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build dim: %v\n%s", err, out)
	}
	return bin
}

// startSiege starts a server in a network namespace of its own, with the addresses of all nodes and strangers.
func startSiege(t *testing.T, bin, name string) *siege {
	t.Helper()
	dir := t.TempDir()
	master, xml := filepath.Join(dir, "master"), filepath.Join(dir, "cluster.xml")
	testkit.Must(t, os.MkdirAll(filepath.Join(master, "etc"), 0o755), os.MkdirAll(filepath.Join(master, "srv"), 0o755),
		os.WriteFile(filepath.Join(master, "etc/motd"), []byte("hello\n"), 0o644),
		os.WriteFile(filepath.Join(master, "srv/big"), make([]byte, 8<<20), 0o644),
		os.WriteFile(xml, []byte(siegeDescription), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := lab.Up(ctx, lab.ClusterSpec{
		Name: fmt.Sprint("dim-", name, "-", os.Getpid()), Dir: filepath.Join(dir, "lab"), Bin: bin, Master: master,
		MasterAt: "/srv/master", Description: xml, Server: "head", Address: netip.MustParsePrefix("10.77.0.1/24"),
	})
	testkit.Must(t, err)
	s := &siege{Cluster: c, data: filepath.Join(dir, "lab", "data")}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.ServerLog())
			t.Logf("the end of the server's log:\n%s", log[max(0, len(log)-8000):])
		}
		testkit.Must(t, c.Down())
	})
	s.ip(t, "link", "add", "wire", "type", "veth", "peer", "name", "outside")
	s.ip(t, "link", "set", "wire", "up", "master", c.Net.Bridge)
	s.ip(t, "link", "set", "outside", "up")
	for i := 1; i <= liveNodes+hostileNodes; i++ {
		testkit.Must(t, c.Net.AddAddr(netip.PrefixFrom(address(i), 24)))
	}
	for _, a := range strangers() {
		testkit.Must(t, c.Net.AddAddr(netip.PrefixFrom(a, 24)))
	}
	if _, err := c.Dim(t.Context(), "image", "capture", "compute", "--rollout", "now"); err != nil {
		t.Fatal(err)
	}
	hostile := s.node(t, liveNodes+1)
	s.big = hostile.find(t, "srv", "big")
	return s
}

func (s *siege) ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := s.Net.Command(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v %s", args, err, out)
	}
}

// address returns the address of a node by its number.
func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + i)}) }

// strangers returns addresses that the description does not name.
func strangers() (list []netip.Addr) {
	for i := range 4 {
		list = append(list, netip.AddrFrom4([4]byte{10, 77, 0, byte(200 + i)}))
	}
	return list
}

// liveNode is a node with its root mounted.
type liveNode struct {
	*nfsclient.Tree
	motd vfs.Handle
}

func (s *siege) node(t *testing.T, i int) *liveNode {
	t.Helper()
	conn := testkit.Value(dial(t.Context(), s.Net, address(i), superuserPort(2049)))(t)
	c := nfsclient.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	n := &liveNode{Tree: testkit.Value(c.Tree(fmt.Sprintf("/nodes/n%02d", i)))(t)}
	n.motd = n.find(t, "etc", "motd")
	return n
}

func (n *liveNode) find(t *testing.T, path ...string) vfs.Handle {
	t.Helper()
	h, a := n.Root(), vfs.Attr{}
	for _, name := range path {
		h = testkit.Value(n.Lookup(root, h, name, &a))(t)
	}
	return h
}

// work makes calls as a node does that works, and notes how long each takes.
func (s *siege) work(ctx context.Context, t *testing.T, n *liveNode) {
	own, err := n.Create(root, n.Root(), "own", &vfs.Create{Mode: vfs.Unchecked, Attr: plain})
	if err != nil {
		t.Errorf("create: %v", err)
		return
	}
	buf, round := make([]byte, 4096), 0
	for ctx.Err() == nil {
		round++
		for what, call := range map[string]func() error{
			"attributes": func() error { return n.Attr(n.Root(), &vfs.Attr{}) },
			"look up":    func() error { _, err := n.Lookup(root, n.Root(), "etc", &vfs.Attr{}); return err },
			"read":       func() error { _, _, err := n.Read(root, n.motd, buf, 0); return err },
			"write": func() error {
				_, err := n.Write(root, own.Handle, fmt.Appendf(nil, "%08d", round), 0, vfs.Unstable)
				return err
			},
		} {
			began := time.Now()
			if err := call(); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			s.mu.Lock()
			now := &s.phases[s.at]
			now.calls = append(now.calls, time.Since(began))
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(nodePause):
		}
	}
}

// watchMemory notes how much memory the server uses in each phase.
func (s *siege) watchMemory(ctx context.Context) {
	for ctx.Err() == nil {
		used := s.memory()
		s.mu.Lock()
		s.phases[s.at].peak = max(s.phases[s.at].peak, used)
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// memory returns the resident memory of the server in bytes, 0 when it has ended.
func (s *siege) memory() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	for line := range strings.Lines(string(text)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// report logs the figures.
func (s *siege) report(t *testing.T, took time.Duration, done string) {
	t.Helper()
	t.Logf("the attack took %v: %s", took, done)
	for at := range phase(phaseCount) {
		f := &s.phases[at]
		if len(f.calls) == 0 {
			t.Fatalf("%v: no calls", at)
		}
		slices.Sort(f.calls)
		t.Logf("%-7v %8d calls, p50 %v, p99 %v, max %v; memory at most %d MB; the attackers used %.2f processors",
			at, len(f.calls), f.part(50), f.part(99), f.part(100), f.peak>>20,
			f.cpu.Seconds()/max(f.length, time.Second).Seconds())
	}
	ratio := func(percent int) float64 {
		return s.phases[attacked].part(percent).Seconds() / s.phases[otherAttacked].part(percent).Seconds()
	}
	t.Logf("attack to control: p50 %.2f, p99 %.2f", ratio(50), ratio(99))
	t.Logf("at the end the memory is %d MB, and the log has %d kB", s.memory()>>20, s.logSize()>>10)
}

func (s *siege) logSize() int64 {
	fi, err := os.Stat(s.ServerLog())
	if err != nil {
		return 0
	}
	return fi.Size()
}

// check checks that the server is unharmed, and believes that the nodes run.
func (s *siege) check(t *testing.T) {
	t.Helper()
	if peak := s.phases[attacked].peak; peak > peakMemory {
		t.Errorf("the server used %d MB", peak>>20)
	}
	var nodes []control.Node
	testkit.Must(t, s.DimJSON(t.Context(), &nodes, "node", "ls"))
	for _, n := range nodes[:liveNodes] {
		if n.Stage != "running" {
			t.Errorf("%s is in the stage %q", n.Name, n.Stage)
		}
	}
	text := testkit.Value(os.ReadFile(filepath.Join(s.data, "cache/boots.log")))(t)
	for i := 1; i <= liveNodes; i++ {
		pattern := fmt.Sprintf(`"node":"n%02d","events":\[\{"stage":"(dhcp|loader|script)"`, i)
		if regexp.MustCompile(pattern).Match(text) {
			t.Errorf("n%02d runs, and was made to boot", i)
		}
	}
	log := testkit.Value(os.ReadFile(s.ServerLog()))(t)
	for _, bad := range []string{"panic", "level=ERROR"} {
		if strings.Contains(string(log), bad) {
			t.Errorf("the server's log has %q", bad)
		}
	}
}
