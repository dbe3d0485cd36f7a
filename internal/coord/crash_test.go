package coord

import (
	"bufio"
	"dim/internal/testkit"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPutsSurviveAKill(t *testing.T) {
	dir := t.TempDir()
	if data := os.Getenv("COORD_TEST_WRITE"); data != "" {
		putUntilKilled(t, data)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestPutsSurviveAKill$")
	cmd.Env = append(os.Environ(), "COORD_TEST_WRITE="+dir)
	out := testkit.Value(cmd.StdoutPipe())(t)
	testkit.Must(t, cmd.Start())
	last := 0
	for lines := bufio.NewScanner(out); last < 20 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "put %d", &last)
	}
	testkit.Must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	if last < 20 {
		t.Fatal("the writer ended early")
	}
	s := testkit.Value(open(t, dir).Snapshot(t.Context()))(t)
	if got := s.Images["compute"].Last; got < last || len(s.Images["compute"].Versions) != got {
		t.Errorf("version %d was acknowledged; there are %d, the last is %d",
			last, len(s.Images["compute"].Versions), got)
	}
}

// putUntilKilled puts versions and prints their numbers until it is killed.
func putUntilKilled(t *testing.T, dir string) {
	c := open(t, dir)
	for n := 1; ; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
		fmt.Printf("put %d\n", n)
	}
}

func TestAFullDiskIsAnErrorNotACrash(t *testing.T) {
	testkit.NeedRoot(t, "mounts a small file system")
	small := func(size string) string {
		dir := t.TempDir()
		testkit.Must(t, unix.Mount("coord", dir, "tmpfs", 0, "size="+size))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	t.Run("at the start", func(t *testing.T) {
		c, err := Open(t.Context(), Options{Dir: filepath.Join(small("8m"), "coord")})
		if err == nil {
			c.Close()
			t.Fatal("it opened")
		}
		if !strings.Contains(err.Error(), "no space left") {
			t.Errorf("the error does not say why: %v", err)
		}
	})
	t.Run("later", func(t *testing.T) {
		disk := small("160m")
		c := testkit.Value(Open(t.Context(), Options{Dir: filepath.Join(disk, "coord"), Timeout: 3 * time.Second}))(t)
		defer c.Close()
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
		fill(t, filepath.Join(disk, "ballast"))
		d := Description{Files: []File{{"c.xml", make([]byte, 1<<20)}}}
		var err error
		for range 100 {
			if _, err = c.PutDescription(t.Context(), d, -1); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("puts on a full disk: %v", err)
		}
		select {
		case <-c.Ended():
		default:
			t.Error("the channel of Ended is open")
		}
	})
}

func fill(t *testing.T, path string) {
	t.Helper()
	f := testkit.Value(os.Create(path))(t)
	defer f.Close()
	var err error
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
