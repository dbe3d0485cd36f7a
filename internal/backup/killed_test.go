package backup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dim/internal/control"
	"dim/internal/disktest"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// The environment of a process that is killed: what it does, and after how many entries.
const (
	childDoes  = "DIM_TEST_BACKUP"
	childAfter = "DIM_TEST_AFTER"
)

// TestChild is what the process does that TestAKilledProcess kills.
func TestChild(t *testing.T) {
	does := os.Getenv(childDoes)
	if does == "" {
		t.Skip("only as a child of another test")
	}
	left, _ := strconv.Atoi(os.Getenv(childAfter))
	kill := func(control.Progress) {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	data, dir := os.Getenv("DIM_TEST_DATA"), os.Getenv("DIM_TEST_DIR")
	var err error
	if does == "make" {
		s := &site{t, data}
		o := s.options()
		o.Progress = kill
		_, _, err = Make(t.Context(), dir, o)
	} else {
		_, err = Restoration{From: dir, Progress: kill}.Restore(t.Context(), data)
	}
	t.Fatalf("it was not killed: %v", err)
}

// killed runs a child until it is killed.
func killed(t *testing.T, does, data, dir string, after int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childDoes+"="+does, childAfter+"="+strconv.Itoa(after), "DIM_TEST_DATA="+data,
		"DIM_TEST_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// Wherever a backup or a restore is killed, what was there before is whole, nothing half counts, and the next works.
func TestAKilledProcessLeavesNothingHalf(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	base := disktest.Memory(t)
	dir := filepath.Join(base, "backup")
	first, info := s.backup(dir)
	entries := int(info.Entries)
	for _, after := range []int{1, 2, entries / 3, entries / 2, entries - 1, entries} {
		killed(t, "make", s.data, dir, after)
		names, err := List(dir)
		if err != nil || len(names) != 1 || names[0] != filepath.Base(first) {
			t.Errorf("killed after %d entries: backups %q, %v", after, names, err)
		}
		_, err = Restoration{From: dir}.Verify(t.Context())
		testkit.Must(t, err)
	}
	s.backup(dir)
	left, err := filepath.Glob(filepath.Join(dir, incomplete+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	to := filepath.Join(base, "restored")
	for _, after := range []int{1, 2, entries / 2, entries} {
		killed(t, "restore", to, dir, after)
		if err := pki.Check(to); !errors.Is(err, pki.ErrNotInitialised) {
			t.Errorf("killed after %d entries, the directory counts as initialised: %v", after, err)
		}
	}
	_, err = Restoration{From: dir}.Restore(t.Context(), to)
	testkit.Must(t, err)
	sameLayers(t, s.data, to)
	if _, err := os.Lstat(filepath.Join(to, restoring)); err == nil {
		t.Error("the mark of an unfinished restore is left")
	}
}

// A backup that is killed at any of the calls that put it on disk, and give it its name, is whole or is none.
func TestABackupThatIsKilledInItsLastStepsIsWholeOrNone(t *testing.T) {
	testkit.NeedRoot(t, "it traces a process")
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is needed: dist/deps test")
	}
	s := newSite(t, disktest.Memory(t))
	dir := filepath.Join(disktest.Memory(t), "backup")
	s.backup(dir)
	const calls = "fsync,fdatasync,syncfs,rename,renameat,renameat2"
	kills := 0
	for nth := 1; nth <= 6; nth++ {
		cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls,
			"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, nth), os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), childDoes+"=make", childAfter+"=-1", "DIM_TEST_DATA="+s.data,
			"DIM_TEST_DIR="+dir)
		out, err := cmd.CombinedOutput()
		if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Sys().(syscall.WaitStatus).Signaled() {
			kills++
		} else if !strings.Contains(string(out), "it was not killed: <nil>") {
			t.Fatalf("a child that was not killed at call %d: %v\n%s", nth, err, out)
		}
		for _, name := range testkit.Value(List(dir))(t) {
			if _, err := (Restoration{From: filepath.Join(dir, name)}).Verify(t.Context()); err != nil {
				t.Errorf("after a kill at call %d, backup %s: %v", nth, name, err)
			}
		}
	}
	if kills < 3 {
		t.Errorf("only %d of 6 children were killed", kills)
	}
	before := len(testkit.Value(List(dir))(t))
	s.backup(dir)
	if after := len(testkit.Value(List(dir))(t)); after != before+1 {
		t.Errorf("after the next one there are %d backups, and were %d", after, before)
	}
}
