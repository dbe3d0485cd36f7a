package fds

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func opener(t *testing.T, opened *int) func() (int, error) {
	return func() (int, error) {
		*opened++
		return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func TestAFileIsOpenedOnceAndStaysOpenWhileInUse(t *testing.T) {
	c := New(64)
	k := Key{Kind: 'x'}
	opened := 0
	a, err := c.Get(k, opener(t, &opened))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := c.Get(k, opener(t, &opened))
	if a != b || opened != 1 {
		t.Errorf("opened %d times", opened)
	}
	c.Drop(k)
	a.Release()
	if !isOpen(b.FD) {
		t.Error("closed while in use")
	}
	b.Release()
	if isOpen(b.FD) {
		t.Error("still open when nobody uses it")
	}
	c.Close()
}

func TestTheCacheIsBoundedAndDropsTheOldest(t *testing.T) {
	c := New(shards) // one for each shard
	opened := 0
	var first *File
	for i := range byte(3) {
		k := Key{Kind: 'x'}
		k.ID[1] = i // not one of the bytes that choose the shard
		f, err := c.Get(k, opener(t, &opened))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = f
		}
		f.Release()
	}
	if isOpen(first.FD) && len(first.shard.files) > 1 {
		t.Errorf("%d files in a shard", len(first.shard.files))
	}
	c.Close()
	if n := len(first.shard.files); n != 0 {
		t.Errorf("%d files after Close", n)
	}
}

func TestTheCacheIsSafeForConcurrentUse(t *testing.T) {
	c := New(shards)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				k := Key{Kind: byte(i % 5)}
				k.ID[2] = byte(i % 7)
				n := 0
				f, err := c.Get(k, opener(t, &n))
				if err != nil {
					t.Error(err)
					return
				}
				if !isOpen(f.FD) {
					t.Error("a file that is held is closed")
				}
				if (i+g)%11 == 0 {
					c.Drop(k)
				}
				f.Release()
			}
		})
	}
	wg.Wait()
	c.Close()
}
