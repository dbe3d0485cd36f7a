package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/fuse"
	"dim/internal/testkit"
	"dim/internal/vfs/dirfs"
)

// asProgram in the environment makes the test binary run as the program. A file system that the test serves
// must be used from another process, because a page fault on a mapped file blocks a thread without the
// knowledge of the Go scheduler.
const asProgram = "DIM_POSIX_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func posix(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), " passed, 0 failed") {
		t.Errorf("posix %s: %v", strings.Join(args, " "), err)
	}
}

func TestALocalDiskPasses(t *testing.T) {
	testkit.NeedRoot(t, "the cases act as several users")
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // other users must get here
		t.Fatal(err)
	}
	posix(t, dir, "-seeds", "make")
	posix(t, dir, "-seeds", "half")
}

func TestATreeMountedByFUSEPasses(t *testing.T) {
	testkit.NeedRoot(t, "the cases act as several users")
	if testing.Short() {
		t.Skip("takes more than five seconds")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	fs, err := dirfs.Open(t.TempDir(), dirfs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	srv, err := fuse.Mount(dir, fs, fuse.Options{AllowOther: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	posix(t, dir)
}
