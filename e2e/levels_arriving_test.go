package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

const slowFiles = 40

// The first version of an image takes minutes to an image server, and its nodes have nothing else to show. They read
// what they ask for at once. A server that is killed in the middle goes on, and does so without the head for what has
// arrived.
func TestANodeIsServedAVersionThatArrives(t *testing.T) {
	needLab(t)
	master := filepath.Join(t.TempDir(), "master")
	tree(t, master, map[string]string{"etc/motd": "one\n", "etc/issue": "two\n", "usr/bin/tool": "#!/bin/sh\n"})
	big := make([]byte, 700<<10)
	for i := range slowFiles { // 28 MB, at 1 MB/s
		_, _ = rand.Read(big)
		testkit.Must(t, os.WriteFile(filepath.Join(master, fmt.Sprintf("usr/lib-%02d", i)), big, 0o644))
	}
	slow := strings.ReplaceAll(twoLevels, `roles="image" dhcp="off"`, `roles="image" dhcp="off" pull-rate="1M"`)
	l := newLevels(t, master, slow, "600m")
	l.nodes = l.host("nodes", "10.77.0.11/24", "10.77.0.12/24", "10.77.0.13/24", "10.77.0.14/24")
	l.dim("head", "image", "capture", "compute", "--rollout", "now")

	l.await("etc/motd", "one\n", "n01", "n03")
	whole := func(server string) bool {
		_, err := os.Stat(filepath.Join(l.disks[server], "data/store/versions/compute/1.json"))
		return err == nil
	}
	if whole("is01") || whole("is02") {
		t.Error("all of the version has arrived already")
	}
	l.servers["is01"].Kill()
	l.start("is01")
	l.await("etc/motd", "one\n", "n01")
	l.await("etc/issue", "two\n", "n02")

	l.servers["head"].Kill()
	l.await("etc/motd", "one\n", "n02")
	wantLater(t, l)
	l.start("head")
	l.await("usr/bin/tool", "#!/bin/sh\n", "n01", "n03")
	if !within(4*time.Minute, func() bool { return whole("is01") && whole("is02") }) {
		t.Errorf("the version does not arrive:\n%s", l.status())
	}
	l.dim("head", "image", "verify", "compute@1", "--all")
}

// wantLater reads files that cannot arrive because no head is up: a node is told to come back, and gets no wrong byte.
func wantLater(t *testing.T, l *levels) {
	t.Helper()
	later := 0
	for i := range slowFiles {
		name := fmt.Sprintf("usr/lib-%02d", i)
		want := testkit.Value(os.ReadFile(filepath.Join(l.master, name)))(t)
		got, err := l.read("n01", name)
		switch {
		case errors.Is(err, vfs.ELATER):
			later++
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case len(got) != 4096 || got != string(want[:4096]):
			t.Errorf("%s has %d wrong bytes", name, len(got))
		}
		if later == 3 {
			return
		}
	}
	t.Errorf("%d of %d files have not arrived; the server has no source", later, slowFiles)
}
