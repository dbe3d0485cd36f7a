package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/recordmerge"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

const (
	rootUser  = "root:x:0:0:root:/root:/bin/bash\n"
	nodesUser = "localuser:x:1000:1000::/home/localuser:/bin/sh\n"
	alice     = "alice:x:1000:1000::/home/alice:/bin/bash\n"
	bob       = "bob:x:1001:1001::/home/bob:/bin/bash\n"
)

// accounts returns the entries of a version with these files.
func accounts(passwd, shadow string) []vfstest.Entry {
	s := f("etc/shadow", shadow)
	s.Mode, s.GID = 0o640, 42
	return []vfstest.Entry{d("etc"), f("etc/other", passwd), f("etc/passwd", passwd), s}
}

// newMergingSite is newSite with the files that are merged without a rule.
func newMergingSite(t *testing.T, v image.Version, m *replicatest.Memory) *site {
	t.Helper()
	o := newSite(t, v, m)
	o.spec.Rules.Merge = recordmerge.Builtin()
	o.restart()
	return o
}

func conflictsOf(list []layer.SetAside) []string {
	var all []string
	for _, a := range list {
		text := a.Path + " " + string(a.Kind)
		if a.Merged {
			text = a.Path + " merged"
		}
		for _, c := range a.Conflicts {
			text += "; " + c.String()
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

func TestASwitchMergesRecords(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, accounts(rootUser, "root:*:1::::::\n"))
	two := m.Version(t, 2, accounts(rootUser+alice, "root:*:1::::::\nalice:!:2::::::\n"))
	three := m.Version(t, 3, accounts(rootUser+alice+bob, "root:*:1::::::\nalice:!:3::::::\n"))
	o := newMergingSite(t, one, m)
	o.WriteFile("etc/passwd", rootUser+nodesUser)
	o.WriteFile("etc/shadow", "root:$y$secret:1::::::\nlocaluser:$y$s:5::::::\n")
	o.WriteFile("etc/other", "mine")
	open := o.Handle("etc/passwd")

	want := []string{
		"etc/other entry", "etc/passwd merged; localuser: uid 1000 is also that of alice", "etc/shadow merged",
	}
	before, move := o.Dump(), o.move()
	move.Version = two
	preview := testkit.Value(o.s.Preview(t.Context(), []Move{move}))(t)
	if diff := cmp.Diff(want, conflictsOf(preview)); diff != "" {
		t.Errorf("previewed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, o.Dump()); diff != "" || len(o.readSaved()) > 0 {
		t.Errorf("the preview has changed the replica:\n%s", diff)
	}
	rep := o.to(two)
	if diff := cmp.Diff(want, conflictsOf(rep.Aside)); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, conflictsOf(o.readSaved())); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
	check := func(passwd, shadow string) {
		t.Helper()
		o.Want("etc/passwd", passwd)
		o.Want("etc/shadow", shadow)
		if a := o.Stat("etc/shadow"); a.Mode != 0o640 || a.UID != 0 || a.GID != 42 {
			t.Errorf("etc/shadow has mode %o and owner %d:%d", a.Mode, a.UID, a.GID)
		}
		if got := o.ReadAll(open); got != rootUser+nodesUser {
			t.Errorf("the node's file by its handle: %q", got)
		}
	}
	merged := rootUser + nodesUser + alice
	shadow := "root:$y$secret:1::::::\nlocaluser:$y$s:5::::::\nalice:!:2::::::\n"
	check(merged, shadow)
	handle := o.Handle("etc/passwd")
	o.restart()
	check(merged, shadow)
	if o.Handle("etc/passwd") != handle {
		t.Error("the merged file has another handle after a restart")
	}

	o.WriteFile("etc/passwd", merged+"late:x:1002:1002::/:/bin/sh\n")
	o.to(three)
	check(rootUser+nodesUser+alice+"late:x:1002:1002::/:/bin/sh\n"+bob, strings.ReplaceAll(shadow, "!:2", "!:3"))
	o.to(one) // and back
	check(rootUser+nodesUser+"late:x:1002:1002::/:/bin/sh\n", "root:$y$secret:1::::::\nlocaluser:$y$s:5::::::\n")
}

func TestAMergedFileThatIsTheVersionsIsNotInTheLayer(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, accounts(rootUser, "")), m.Version(t, 2, accounts(rootUser+alice, ""))
	o := newMergingSite(t, one, m)
	o.WriteFile("etc/passwd", rootUser) // as the version, but with another time
	rep := o.to(two)
	if got := conflictsOf(rep.Aside); !slices.Equal(got, []string{"etc/passwd merged"}) {
		t.Errorf("set aside: %q", got)
	}
	o.Want("etc/passwd", rootUser+alice)
	if _, err := os.Lstat(filepath.Join(o.opts.Dir, "n01/compute/upper/etc/passwd")); !os.IsNotExist(err) {
		t.Errorf("the layer has the file: %v", err)
	}
}

func TestAFileThatCannotBeMergedIsSetAsideWithTheReason(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, accounts(rootUser, "")), m.Version(t, 2, accounts(rootUser+alice, ""))
	for content, want := range map[string]string{
		"":       "etc/passwd entry; not merged, because the node's file is empty",
		"root\n": "etc/passwd entry; not merged, because the node's file: line 1 has 1 fields, not 7",
	} {
		o := newMergingSite(t, one, m)
		o.WriteFile("etc/passwd", content)
		if got := conflictsOf(o.to(two).Aside); !slices.Equal(got, []string{want}) {
			t.Errorf("set aside: %q, want %q", got, want)
		}
		o.Want("etc/passwd", rootUser+alice)
	}
	o := newMergingSite(t, one, m)
	o.RemoveAll("etc/passwd")
	if _, err := o.Symlink(root, o.Handle("etc"), "passwd", "other", &vfs.SetAttr{}); err != nil {
		t.Fatal(err)
	}
	want := "etc/passwd entry; not merged, because the node has no regular file there"
	if got := conflictsOf(o.to(two).Aside); !slices.Equal(got, []string{want}) {
		t.Errorf("set aside: %q, want %q", got, want)
	}
}

func TestAMergeDecidesModeAndOwner(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, accounts(rootUser, "root:*:1::::::\n"))
	next := accounts(rootUser, "root:*:2::::::\n")
	next[3].Mode, next[3].GID = 0o600, 43
	next[3].Xattrs = map[string]string{"user.note": "new"}
	o := newMergingSite(t, one, m)
	const own = "root:*:1::::::\nlocaluser:!:1::::::\n"
	o.WriteFile("etc/shadow", own)
	s := vfs.SetAttr{Valid: vfs.SetMode | vfs.SetUID, Mode: 0o660, UID: 7}
	if _, err := o.SetAttr(root, o.Handle("etc/shadow"), &s); err != nil {
		t.Fatal(err)
	}
	o.to(m.Version(t, 2, next))
	// The mode: both have changed it, so it is the master's. The owner is the node's, the group the master's.
	if a := o.Stat("etc/shadow"); a.Mode != 0o600 || a.UID != 7 || a.GID != 43 {
		t.Errorf("etc/shadow has mode %o and owner %d:%d", a.Mode, a.UID, a.GID)
	}
	var buf [16]byte
	path := filepath.Join(o.opts.Dir, "n01/compute/upper/etc/shadow")
	if n, err := unix.Lgetxattr(path, "user.note", buf[:]); err != nil || string(buf[:n]) != "new" {
		t.Errorf("user.note: %q, %v", buf[:max(n, 0)], err)
	}
}

func TestTheBackupOfAMergedFileStaysTheNodes(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, []vfstest.Entry{d("etc"), f("etc/motd-", "1"), f("etc/passwd-", rootUser)})
	two := m.Version(t, 2, []vfstest.Entry{d("etc"), f("etc/motd-", "2"), f("etc/passwd-", rootUser+alice)})
	o := newMergingSite(t, one, m)
	o.WriteFile("etc/passwd-", rootUser+nodesUser)
	o.WriteFile("etc/motd-", "mine")
	if got := conflictsOf(o.to(two).Aside); !slices.Equal(got, []string{"etc/motd- entry"}) {
		t.Errorf("set aside: %q", got)
	}
	o.Want("etc/passwd-", rootUser+nodesUser)
}

func TestAFileOfTheNodesThatIsNewInTheMaster(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, []vfstest.Entry{d("etc"), f("etc/x", "1")})
	two := m.Version(t, 2, []vfstest.Entry{d("etc"), f("etc/subuid", "alice:100000:65536\n"), f("etc/x", "1")})
	o := newMergingSite(t, one, m)
	o.WriteFile("etc/subuid", "localuser:165536:65536\n")
	o.to(two)
	o.Want("etc/subuid", "localuser:165536:65536\nalice:100000:65536\n")
	o.to(one)
	o.Want("etc/subuid", "localuser:165536:65536\n")
}

// The server dies at each point of a switch in turn. After a restart the switch is complete: the node's file is merged,
// and set aside once, with its conflicts.
func TestAnInterruptedMergeIsCompletedOnce(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, accounts(rootUser, "root:*:1::::::\n"))
	two := m.Version(t, 2, accounts(rootUser+alice, "root:*:2::::::\n"))
	prepare := func() *site {
		o := newMergingSite(t, one, m)
		o.WriteFile("etc/passwd", rootUser+nodesUser)
		o.WriteFile("etc/shadow", "root:mine:1::::::\n")
		o.WriteFile("etc/other", "mine")
		return o
	}
	plain := prepare()
	plain.to(two)
	want, wantSaved := plain.Dump(), conflictsOf(plain.readSaved())
	if len(wantSaved) != 3 || !strings.Contains(wantSaved[2], "root: changed") {
		t.Fatalf("saved: %q", wantSaved)
	}
	for point := 1; ; point++ {
		o := prepare()
		left := point
		o.s.fault = func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		}
		o.spec.Version = two
		_, err := o.s.Switch(context.Background(), []Move{o.move()})
		if left > 0 {
			testkit.Must(t, err)
			if point < 8 {
				t.Errorf("only %d points to crash at", point)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.restart()
		if diff := cmp.Diff(want, o.Dump()); diff != "" {
			t.Errorf("crash at point %d (-want +got):\n%s", point, diff)
		}
		if diff := cmp.Diff(wantSaved, conflictsOf(o.readSaved())); diff != "" {
			t.Errorf("crash at point %d: saved (-want +got):\n%s", point, diff)
		}
		o.WriteFile("etc/passwd", "after")
		o.restart()
		o.Want("etc/passwd", "after")
	}
}

func TestNodesThatChangedAFileAlikeCostOneMerge(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	one, two := m.Version(t, 1, accounts(rootUser, "")), m.Version(t, 2, accounts(rootUser+alice, ""))
	s := newTestSet(t, m)
	var moves []Move
	for n := range 100 {
		r := testkit.Value(s.Attach(Spec{
			Node: fmt.Sprint("n", n), Image: "compute", Version: one, Rules: Rules{Merge: recordmerge.Builtin()},
		}))(t)
		o := site{Replica: r, t: t}
		o.Shell = replicatest.NewShell(t, r)
		if n < 90 {
			o.WriteFile("etc/passwd", rootUser+nodesUser)
		}
		moves = append(moves, Move{Replica: r, Version: two, Rules: r.Rules()})
	}
	merged := 0
	s.fault = func(point string) error {
		if point == "in set-aside" {
			merged++
			if n := len(s.merges.known); n != 1 {
				t.Errorf("%d merges", n)
			}
		}
		return nil
	}
	rep := testkit.Value(s.Switch(context.Background(), moves))(t)
	if rep.Replicas != 100 || len(rep.Aside) != 90 || merged != 90 {
		t.Errorf("%d replicas switched, %d set aside", rep.Replicas, len(rep.Aside))
	}
	if n := len(s.merges.known); n != 0 {
		t.Errorf("%d results of merges are kept", n)
	}
}

func TestAMergeOfAReplicaThatIsBehindIsLoggedAsOne(t *testing.T) {
	m := newMemory(t)
	o := newMergingSite(t, m.Version(t, 1, accounts(rootUser, "")), m)
	o.WriteFile("etc/passwd", rootUser+nodesUser)
	var log strings.Builder
	o.opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	o.spec.Version = m.Version(t, 2, accounts(rootUser+bob, ""))
	o.restart()
	if got := log.String(); !strings.Contains(got, "path=/etc/passwd kind=merged") {
		t.Errorf("logged: %s", got)
	}
}
