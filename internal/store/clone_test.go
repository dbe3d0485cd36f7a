package store

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// cloningDir returns a directory on a small XFS, where files can be cloned.
func cloningDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount an XFS")
	}
	dir := memoryDir(t)
	file, mnt := filepath.Join(dir, "xfs"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{os.Truncate(file, 400<<20), os.Mkdir(mnt, 0o700)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for _, cmd := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", file}, {"mount", "-o", "loop", file, mnt}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

func TestClonesAreWhatTheirDigestSays(t *testing.T) {
	dir := cloningDir(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, now := range map[string]time.Time{"settled": time.Now().Add(time.Hour), "young": time.Now().Add(-time.Hour)} {
		s, err := Open(filepath.Join(dir, name), Options{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		path := filepath.Join(dir, name+".file")
		if err := os.WriteFile(path, append([]byte(name), content...), 0o600); err != nil {
			t.Fatal(err)
		}
		f := must(os.Open(path))(t)
		defer f.Close()
		b := begin(t, s)
		c := must(b.PutFile(context.Background(), int(f.Fd()), f.Name()))(t)
		if b.noClone.Load() {
			t.Fatal("XFS does not clone")
		}
		if err := b.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		if want := image.Sum(append([]byte(name), content...)); c.Digest != want || c.Data != nil {
			t.Errorf("%s: digest %s, want %s; extents %v", name, c.Digest.Short(), want.Short(), c.Data)
		}
		if p := problems(t, s); p != nil {
			t.Errorf("%s: %q", name, p)
		}
	}
}

func TestAFileThatChangesWhileItIsClonedIsStoredAsItWasHashed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	dir := cloningDir(t)
	s := open(t, filepath.Join(dir, "store"))
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f := must(os.OpenFile(path, os.O_RDWR, 0))(t)
	defer f.Close()
	m := must(unix.Mmap(int(f.Fd()), 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))(t)
	defer func() { _ = unix.Munmap(m) }()
	time.Sleep(clockGrain + 100*time.Millisecond) // settled, until the writers begin
	for range 2 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					copy(m[i*4001%(8<<20-100):], strings.Repeat("m", 10))
					_, _ = f.WriteAt([]byte("written"), int64(i*9973%(8<<20)))
				}
			}
		})
		b := begin(t, s)
		r := must(os.Open(path))(t)
		if _, err := b.PutFile(context.Background(), int(r.Fd()), r.Name()); err != nil {
			t.Fatal(err)
		}
		r.Close()
		close(stop)
		wg.Wait()
		if err := b.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(clockGrain / 4)
	}
	if p := problems(t, s); p != nil {
		t.Errorf("%q", p)
	}
}
