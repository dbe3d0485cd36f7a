package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"dim/internal/lab/netns"
	"dim/internal/nfs/nfsclient"
	"dim/internal/testkit"
)

// chaosTime is how long harm is done to the servers, unless DIM_CHAOS_TIME says otherwise.
const chaosTime = 3 * time.Minute

// Whatever happens to the servers and to the cables between them, in whatever order: no acknowledged write of a node
// and no acknowledged version is lost, no node ever sees a part of a version, and in the end all nodes show the last
// version.
func TestNothingIsLostInChaos(t *testing.T) {
	l := newSmallLevels(t)
	d := chaosTime
	if s := os.Getenv("DIM_CHAOS_TIME"); s != "" {
		d = testkit.Value(time.ParseDuration(s))(t)
	}
	seed := uint64(time.Now().Unix())
	t.Log("seed ", seed)
	c := &chaos{levels: l, written: map[string][]string{}, random: rand.New(rand.NewPCG(1, seed))}
	c.capture(1)
	l.await("etc/counter", "1\n", "n01", "n02", "n03", "n04")

	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range []string{"n01", "n02", "n03", "n04"} {
		all.Go(func() { c.writeOn(ctx, node) })
		all.Go(func() { c.readOn(ctx, node) })
	}
	all.Go(func() { c.captureOn(ctx) })
	c.harm(ctx)
	all.Wait()
	c.check()
}

// chaos is what was acknowledged while harm was done.
type chaos struct {
	*levels
	random *rand.Rand // of harm alone

	mu      sync.Mutex          // guards what follows
	written map[string][]string // names of files, by node
	version int                 // the last one that was acknowledged
	reads   int
	torn    []string
}

// capture captures a master in which two files have the number of the version.
func (c *chaos) capture(number int) bool {
	text := fmt.Sprintln(number)
	for _, path := range []string{"etc/counter", "usr/counter"} {
		testkit.Must(c.t, os.MkdirAll(filepath.Join(c.master, filepath.Dir(path)), 0o755))
		testkit.Must(c.t, os.WriteFile(filepath.Join(c.master, path), []byte(text), 0o644))
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	_, err := c.servers["head"].Dim(ctx, "image", "capture", "compute", "--rollout", "now")
	return err == nil
}

// captureOn makes one version after the other until ctx ends.
func (c *chaos) captureOn(ctx context.Context) {
	for number := 2; ctx.Err() == nil; number++ {
		if c.capture(number) {
			c.mu.Lock()
			c.version = number
			c.mu.Unlock()
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// writeOn writes one file after the other on a node until ctx ends.
func (c *chaos) writeOn(ctx context.Context, node string) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("w%d", i)
		if c.write(node, name, node+name) == nil {
			c.mu.Lock()
			c.written[node] = append(c.written[node], name)
			c.mu.Unlock()
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// readOn reads the number of the version in two places on a node until ctx ends. If it is the same in one place before
// and after it was read in the other, the other must have it too.
func (c *chaos) readOn(ctx context.Context, node string) {
	for ctx.Err() == nil {
		c.readOnce(ctx, node)
		pause(ctx, 20*time.Millisecond)
	}
}

func (c *chaos) readOnce(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	root, end, err := c.connect(ctx, node)
	if err != nil {
		return
	}
	defer end()
	for range 20 {
		var got [3]string
		for i, path := range []string{"etc/counter", "usr/counter", "etc/counter"} {
			if got[i], err = readPath(root, path); err != nil {
				return
			}
		}
		c.mu.Lock()
		c.reads++
		if got[0] == got[2] && got[0] != got[1] {
			c.torn = append(c.torn, fmt.Sprintf("%s: %q", node, got))
		}
		c.mu.Unlock()
	}
}

// harm harms one server or cable after the other until ctx ends. Then it mends all.
func (c *chaos) harm(ctx context.Context) {
	names := []string{"head", "is01", "is02"}
	harms := []func(ctx context.Context, name string) string{c.kill, c.cut, c.slow, c.fill, c.freeze}
	for i := 0; ctx.Err() == nil; i++ {
		name := names[c.random.IntN(len(names))]
		what := harms[c.random.IntN(len(harms))](ctx, name)
		c.t.Logf("%d. %s: %s", i+1, name, what)
		pause(ctx, time.Duration(c.random.IntN(3000))*time.Millisecond)
	}
}

// kill ends a server as a power cut does, and starts it again.
func (c *chaos) kill(ctx context.Context, name string) string {
	c.servers[name].Kill()
	off := c.anyTime()
	pause(ctx, off)
	c.start(name)
	return fmt.Sprint("killed, off for ", off)
}

// directions returns one direction of a cable, or both.
func (c *chaos) directions() []netns.Direction {
	return [][]netns.Direction{{netns.FromHost}, {netns.ToHost}, {netns.FromHost, netns.ToHost}}[c.random.IntN(3)]
}

// cut cuts a cable in one direction or in both for some time.
func (c *chaos) cut(ctx context.Context, name string) string {
	which := c.directions()
	for _, d := range which {
		testkit.Must(c.t, c.hosts[name].Cut(d))
	}
	off := c.anyTime()
	pause(ctx, off)
	testkit.Must(c.t, c.hosts[name].Mend())
	return fmt.Sprint("cable cut in directions ", which, " for ", off)
}

// slow makes a cable slow in one direction or in both for some time.
func (c *chaos) slow(ctx context.Context, name string) string {
	which := c.directions()
	for _, d := range which {
		testkit.Must(c.t, c.hosts[name].Slow(d, "200kbit"))
	}
	long := c.anyTime()
	pause(ctx, long)
	testkit.Must(c.t, c.hosts[name].Mend())
	return fmt.Sprint("cable slow in directions ", which, " for ", long)
}

// fill fills the disk of a server for some time.
func (c *chaos) fill(ctx context.Context, name string) string {
	file := filepath.Join(c.disks[name], "filler")
	_ = exec.Command("sh", "-c", `head -c 4G /dev/zero > "$1"`, "sh", file).Run() // it fails when the disk is full
	long := c.anyTime()
	pause(ctx, long)
	testkit.Must(c.t, os.Remove(file))
	return fmt.Sprint("disk full for ", long)
}

// freeze stops a server's process for some time, as a machine that swaps does.
func (c *chaos) freeze(ctx context.Context, name string) string {
	pid := strconv.Itoa(c.servers[name].PID())
	testkit.Must(c.t, exec.Command("kill", "-STOP", pid).Run())
	long := c.anyTime()
	pause(ctx, long)
	testkit.Must(c.t, exec.Command("kill", "-CONT", pid).Run())
	return fmt.Sprint("frozen for ", long)
}

// anyTime returns a time of at most 8 s, more often a short one.
func (c *chaos) anyTime() time.Duration {
	return time.Duration(c.random.IntN(8000)*c.random.IntN(1000)/1000) * time.Millisecond
}

// check checks what was acknowledged.
func (c *chaos) check() {
	c.t.Helper()
	last := c.version + 1000
	if !within(time.Minute, func() bool { return c.capture(last) }) { // the disk of the head was full until now
		c.t.Errorf("after the chaos nothing can be captured:\n%s", c.status())
	}
	count := 0
	for node, names := range c.written {
		c.await("etc/counter", fmt.Sprintln(last), node)
		root, end, err := c.connect(c.t.Context(), node)
		testkit.Must(c.t, err)
		count += c.checkWritten(node, root, names)
		end()
	}
	for _, torn := range c.torn {
		c.t.Error("a part of a version was seen on ", torn)
	}
	if count == 0 || c.version == 0 || c.reads == 0 {
		c.t.Errorf("%d writes, version %d and %d reads were acknowledged", count, c.version, c.reads)
	}
	c.t.Logf("%d writes, %d versions, %d reads; then\n%s", count, c.version, c.reads, c.status())
}

// checkWritten checks the files that a node has written.
func (c *chaos) checkWritten(node string, root *nfsclient.Tree, names []string) int {
	for _, name := range names {
		if got, err := readPath(root, name); err != nil || got != node+name {
			c.t.Errorf("%s on %s, which was acknowledged, is %q, %v", name, node, got, err)
		}
	}
	return len(names)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
