package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/testkit"
)

// guide runs commands as a page of the guide shows them.
type guide struct {
	*heads
	text   string
	backup string // stands for /mnt/backup
}

func newGuide(h *heads, page string) *guide {
	h.t.Helper()
	text := testkit.Value(os.ReadFile(filepath.Join("../docs/guide", page)))(h.t)
	return &guide{h, string(text), h.t.TempDir()}
}

// run runs a command that the page has, and returns what it prints.
func (g *guide) run(server, command string) string {
	g.t.Helper()
	shown := func(line string) bool { return strings.Contains(line, "# "+command) }
	if !slices.ContainsFunc(strings.Split(g.text, "\n"), shown) {
		g.t.Errorf("the page does not have the command %q", command)
	}
	return g.dim(server, strings.Fields(strings.ReplaceAll(command, "/mnt/backup", g.backup))[1:]...)
}

// joinAgain lets a head whose disk is lost join the restored one as the page says.
func (g *guide) joinAgain(by, name string) {
	g.t.Helper()
	line := g.dim(by, "token", "--for", name, "--roles", "head")
	g.dim(name, append(strings.Fields(line)[1:], "--replace")...)
	g.start(name)
}

// lose ends heads and removes their disks.
func (g *guide) lose(names ...string) {
	g.t.Helper()
	for _, name := range names {
		g.servers[name].Kill()
	}
	for _, name := range names {
		testkit.Must(g.t, os.RemoveAll(filepath.Join(g.disks[name], "data")))
	}
}

// backUp backs head2 up while tags are put and a node writes, and returns the tags that the backup has for certain.
func (g *guide) backUp() []string {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	busy.Go(func() { g.tagOn(ctx) })
	busy.Go(func() {
		for ctx.Err() == nil {
			_ = g.write("n03", "busy", time.Now().String())
			pause(ctx, 100*time.Millisecond)
		}
	})
	var sure []string
	tagged := within(5*time.Minute, func() bool { // each by a process
		g.mu.Lock()
		defer g.mu.Unlock()
		sure = slices.Clone(g.tags)
		return len(sure) > 0
	})
	if !tagged {
		g.t.Fatal("no tag was put")
	}
	g.run("head2", "dim backup /mnt/backup/head2")
	return sure
}

// Three heads of a cluster in use are lost. One is restored from a backup that was made in use, goes on alone, and the
// others join it: the declared state of the backup is there, image servers follow, and versions with numbers that were
// given to others after the backup reach the nodes.
func TestThreeLostHeadsAreRestored(t *testing.T) {
	g := newGuide(newHeads(t), "backup.md")
	testkit.Must(t, g.write("n01", "own", "mine\n"))
	sure := g.backUp()
	g.dim("head", "backup", "verify", filepath.Join(g.backup, "head2"))
	tree(t, g.master, map[string]string{"etc/motd": "after the backup\n"})
	g.dim("head", "image", "capture", "compute", "--rollout", "now")
	g.await("etc/motd", "after the backup\n", "n01", "n03")

	g.lose(headNames()...)
	testkit.Must(t, g.write("n02", "alone", "without heads\n"))
	plan := g.run("head2", "dim restore /mnt/backup/head2 --dry-run")
	if !strings.Contains(plan, "the cluster has other heads: head, head3\n") {
		t.Errorf("the dry run says\n%s", plan)
	}
	t.Log(g.run("head2", "dim restore /mnt/backup/head2"))
	g.run("head2", "dim server recover")
	t.Log(g.run("head2", "dim server recover --yes"))
	g.start("head2")
	g.run("head2", "dim token --for head3 --roles head")
	g.joinAgain("head2", "head3")
	g.joinAgain("head3", "head")
	g.together()
	g.checkTags(sure)

	tree(t, g.master, map[string]string{"etc/motd": "three heads again\n"})
	t.Log(g.dim("head", "image", "capture", "compute", "--rollout", "now"))
	g.await("etc/motd", "three heads again\n", "n01", "n02", "n03", "n04")
	g.await("own", "mine\n", "n01")
	g.await("alone", "without heads\n", "n02")
	t.Log(g.dim("head3", "server", "ls"))
	t.Log(g.status())
}

// checkTags checks that every head has the tags.
func (g *guide) checkTags(tags []string) {
	g.t.Helper()
	for _, head := range headNames() {
		var v control.Version
		testkit.Eventually(g.t, head+" has compute@1", func() bool {
			return g.servers[head].DimJSON(g.t.Context(), &v, "image", "show", "compute@1") == nil
		})
		for _, tag := range tags {
			if !slices.Contains(v.Tags, tag) {
				g.t.Errorf("%s lacks the tag %s", head, tag)
			}
		}
	}
}
