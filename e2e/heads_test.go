package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// headNames are the heads of a test with three of them.
func headNames() []string { return []string{"head", "head2", "head3"} }

// threeHeads is the description twoLevels with two more heads.
func threeHeads() string {
	const more = `  <server name="head2" roles="head"><interface network="boot" address="10.77.0.4"/></server>
  <server name="head3" roles="head"><interface network="boot" address="10.77.0.5"/></server>
`
	return strings.Replace(twoLevels, "  <taxonomy>", more+"  <taxonomy>", 1)
}

// heads is a cluster with three heads, to which harm is done while tags are put.
type heads struct {
	*levels

	mu   sync.Mutex
	tags []string // that were acknowledged
}

// newHeads starts three heads and two image servers, and captures compute@1, which all nodes follow.
func newHeads(t *testing.T) *heads {
	t.Helper()
	needLab(t)
	master := filepath.Join(t.TempDir(), "master")
	tree(t, master, map[string]string{"etc/motd": "one\n", "usr/bin/tool": "#!/bin/sh\n"})
	h := &heads{levels: newLevels(t, master, threeHeads(), "600m", "head2", "head3")}
	h.nodes = h.host("nodes", "10.77.0.11/24", "10.77.0.12/24", "10.77.0.13/24", "10.77.0.14/24")
	h.together()
	h.dim("head", "image", "capture", "compute", "--rollout", "now")
	h.await("etc/motd", "one\n", "n01", "n02", "n03", "n04")
	return h
}

// coord returns what a head says of the shared state, nothing if it does not answer.
func (h *heads) coord(head string) control.Coord {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	var s control.Status
	out, _ := h.servers[head].Dim(ctx, "status", "-o", "json") // which fails if there are problems
	_ = json.Unmarshal([]byte(out), &s)
	return s.Coord
}

// together waits until all heads vote and have the state that any of them has now.
func (h *heads) together() {
	h.t.Helper()
	said := map[string]control.Coord{}
	var revision int64
	for _, name := range headNames() {
		revision = max(revision, h.coord(name).Revision)
	}
	ok := within(2*time.Minute, func() bool {
		for _, name := range headNames() {
			said[name] = h.coord(name)
			votes := 0
			for _, m := range said[name].Members {
				if m.Votes {
					votes++
				}
			}
			if !said[name].OK || votes != 3 || len(said[name].Members) != 3 || said[name].Revision < revision {
				return false
			}
		}
		return true
	})
	if !ok {
		h.t.Fatalf("the heads say %+v", said)
	}
}

// leader returns the head that leads.
func (h *heads) leader() string {
	h.t.Helper()
	var found string
	testkit.Eventually(h.t, "one leads", func() bool {
		for _, m := range h.coord(headNames()[rand.IntN(3)]).Members {
			if m.Leads {
				found = m.Server
			}
		}
		return found != ""
	})
	return found
}

// tagOn puts one tag after the other, each on any head, until ctx ends. It notes those that were acknowledged.
func (h *heads) tagOn(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		tag := fmt.Sprintf("t%d", i)
		call, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
		_, err := h.servers[headNames()[rand.IntN(3)]].Dim(call, "image", "tag", "compute@1", tag)
		cancel()
		if err == nil {
			h.mu.Lock()
			h.tags = append(h.tags, tag)
			h.mu.Unlock()
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// check checks that every head has every tag that was acknowledged.
func (h *heads) check() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.Logf("%d tags were acknowledged", len(h.tags))
	if len(h.tags) == 0 {
		h.t.Error("no tag was acknowledged")
	}
	for _, head := range headNames() {
		var v control.Version
		testkit.Must(h.t, h.servers[head].DimJSON(h.t.Context(), &v, "image", "show", "compute@1"))
		for _, tag := range h.tags {
			if !slices.Contains(v.Tags, tag) {
				h.t.Errorf("%s has lost the tag %s", head, tag)
			}
		}
	}
}

// killLeader kills the leader in the middle of a rollout in rings, and starts it again when the rollout has ended.
func (h *heads) killLeader(round int) {
	h.t.Helper()
	text := fmt.Sprintf("round %d\n", round)
	tree(h.t, h.master, map[string]string{"etc/motd": text})
	by := headNames()[rand.IntN(3)] // head has the master
	if out := h.dim(by, "image", "capture", "compute"); strings.Contains(out, "captured on head,") != (by != "head") {
		h.t.Errorf("a capture by %s: %s", by, out)
	}
	h.dim("head", "rollout", "@*", "compute", "--when", "now", "--rings", "1,2,rest", "--soak", "2s")
	leader := h.leader()
	h.t.Log("kill the leader ", leader)
	h.servers[leader].Kill()
	h.await("etc/motd", text, "n01", "n02", "n03", "n04")
	h.start(leader)
	h.together()
}

// cut cuts the cable of a head in some directions for a while, in which the others go on.
func (h *heads) cut(head string, directions ...netns.Direction) {
	h.t.Helper()
	h.t.Log("cut the cable of ", head, directions)
	for _, d := range directions {
		testkit.Must(h.t, h.hosts[head].Cut(d))
	}
	h.mu.Lock()
	before := len(h.tags)
	h.mu.Unlock()
	testkit.Eventually(h.t, "the others take changes", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.tags) > before+3
	})
	testkit.Must(h.t, h.hosts[head].Mend())
	h.together()
}

// replace lets a new machine take the place of a head whose disk is lost.
func (h *heads) replace(head, by string) {
	h.t.Helper()
	h.t.Log("replace ", head)
	h.servers[head].Kill()
	testkit.Must(h.t, os.RemoveAll(filepath.Join(h.disks[head], "data")))
	testkit.Eventually(h.t, "it is removed", func() bool {
		_, err := h.servers[by].Dim(h.t.Context(), "server", "rm", head)
		return err == nil
	})
	h.joinBy(by, head, "head")
	h.interrupt(head, by)
	h.start(head)
	h.together()
}

// interrupt kills a head that is to take part in the shared state, and the one by which it joined, at any moments until
// it has its vote and after that.
func (h *heads) interrupt(head, by string) {
	h.t.Helper()
	for range 5 {
		h.start(head)
		pause(h.t.Context(), rand.N(1500*time.Millisecond))
		if rand.IntN(2) == 0 {
			h.servers[by].Kill()
			h.servers[head].Kill()
			h.start(by)
			continue
		}
		h.servers[head].Kill()
	}
}

// Three heads lose their leader in the middle of a rollout, cables and a machine, while they are changed: nothing that
// was acknowledged is lost, and all come to the same state. DIM_CHAOS_TIME repeats it in any order for as long.
func TestThreeHeads(t *testing.T) {
	h := newHeads(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tagging sync.WaitGroup
	tagging.Go(func() { h.tagOn(ctx) })
	h.killLeader(1)
	h.cut("head2", netns.FromHost, netns.ToHost)
	h.replace("head3", "head2")
	if d, err := time.ParseDuration(os.Getenv("DIM_CHAOS_TIME")); err == nil {
		h.harm(d)
	}
	cancel()
	tagging.Wait()
	h.together()
	h.check()
	t.Log(h.dim("head2", "server", "ls"))
}

// harm does one harm after the other for a time.
func (h *heads) harm(d time.Duration) {
	h.t.Helper()
	for round, end := 2, time.Now().Add(d); time.Now().Before(end); round++ {
		any := headNames()[rand.IntN(3)]
		others := slices.DeleteFunc(headNames(), func(name string) bool { return name == any })
		switch rand.IntN(4) {
		case 0:
			h.killLeader(round)
		case 1:
			h.cut(any, netns.FromHost)
		case 2:
			h.cut(any, netns.ToHost)
		case 3:
			if any != "head" { // it has the master
				h.replace(any, others[0])
			}
		}
	}
}
