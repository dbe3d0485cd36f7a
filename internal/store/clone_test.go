package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/testkit"
)

func TestClonesHaveTheirDigest(t *testing.T) {
	dir := disktest.Reflink(t).Dir
	for _, c := range []struct {
		name string
		age  time.Duration
		size int
	}{
		{"settled, large", time.Hour, 1 << 20},
		{"settled, of one buffer", time.Hour, 100 << 10},
		{"young, large", -time.Hour, 1 << 20},
		{"young, of one buffer", -time.Hour, 100 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now().Add(c.age)
			s := testkit.Value(Open(filepath.Join(dir, c.name), Options{Now: func() time.Time { return now }}))(t)
			defer s.Close()
			path := filepath.Join(dir, c.name+".file")
			content := bytes.Repeat([]byte(c.name+"\n"), c.size/len(c.name))
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			f := testkit.Value(os.Open(path))(t)
			defer f.Close()
			b := begin(t, s)
			got := testkit.Value(b.PutFile(context.Background(), int(f.Fd()), f.Name()))(t)
			if b.noClone.Load() {
				t.Fatal("XFS does not clone")
			}
			if err := b.Commit(context.Background()); err != nil {
				t.Fatal(err)
			}
			if want := image.Sum(content); got.Digest != want || got.Data != nil {
				t.Errorf("digest %s, want %s; extents %v", got.Digest.Short(), want.Short(), got.Data)
			}
			if p := problems(t, s); p != nil {
				t.Errorf("%q", p)
			}
		})
	}
}

func TestAFileThatChangesWhileItIsClonedIsStoredAsItWasHashed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	dir := disktest.Reflink(t).Dir
	s := open(t, filepath.Join(dir, "store"))
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f := testkit.Value(os.OpenFile(path, os.O_RDWR, 0))(t)
	defer f.Close()
	m := testkit.Value(unix.Mmap(int(f.Fd()), 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))(t)
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
		r := testkit.Value(os.Open(path))(t)
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

// TestAWriteThroughAMappingIsNotMissed writes twice to a page through a mapping. The second write does not change the
// file's times.
func TestAWriteThroughAMappingIsNotMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	const size = 200 << 10
	dir := disktest.Reflink(t).Dir
	f := testkit.Value(os.Create(filepath.Join(dir, "f")))(t)
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	m := testkit.Value(unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))(t)
	defer func() { _ = unix.Munmap(m) }()
	m[0] = 'x'
	time.Sleep(clockGrain + 100*time.Millisecond) // settled, and dirty
	b := begin(t, open(t, filepath.Join(dir, "store")))
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if !b.sharable(int(f.Fd()), &st) {
		t.Fatal("a settled file on XFS cannot be shared")
	}
	m[0] = 'y' // after it was read
	dst := testkit.Value(b.create("tmp/dst"))(t)
	defer unix.Close(dst)
	if same := testkit.Value(b.shareUnchanged(dst, int(f.Fd()), &st))(t); same {
		t.Error("a write between reading and cloning was not noticed")
	}
}
