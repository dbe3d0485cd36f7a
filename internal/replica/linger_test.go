package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

// A file that a node has removed can be read for a while and has no link. Nothing of it is left after a
// restart.
func TestRemovedFilesCanBeReadForAWhile(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.s.lingering.lasts = time.Hour
	o.WriteFile("etc/mine", "mine")
	o.WriteFile("etc/next", "next")
	handles := map[string]vfs.Handle{"mine": o.Handle("etc/mine"), "a1": o.Handle("etc/a"), "b1": o.Handle("etc/b")}
	o.RemoveAll("etc/a")
	etc := o.Handle("etc")
	for from, to := range map[string]string{"next": "mine", "c": "b"} {
		if _, err := o.Rename(root, etc, from, etc, to); err != nil {
			t.Fatal(err)
		}
	}
	for content, h := range handles {
		var a vfs.Attr
		err := o.Attr(h, &a)
		if err != nil || a.Nlink != 0 || a.Size != uint64(len(content)) || o.ReadAll(h) != content {
			t.Errorf("%s: %+v, %v, content %q", content, a, err, o.ReadAll(h))
		}
		if _, err := o.Link(root, h, etc, "again"); err != vfs.ESTALE {
			t.Errorf("%s: link: %v", content, err)
		}
		if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}); err != vfs.ESTALE {
			t.Errorf("%s: chmod: %v", content, err)
		}
	}
	_, err := o.Write(root, handles["mine"], []byte("MINE"), 0, vfs.FileSync)
	if err != nil || o.ReadAll(handles["mine"]) != "MINE" {
		t.Errorf("write by its handle: %v, then %q", err, o.ReadAll(handles["mine"]))
	}
	o.Want("etc/mine", "next")
	o.restart()
	for content, h := range handles {
		if got := o.ReadAll(h); got != gone(vfs.ESTALE) {
			t.Errorf("%s after a restart: %q", content, got)
		}
	}
	o.Want("etc/a", gone(vfs.ENOENT))
}

func TestARemovedFileThatWasOnlyReadCanBeWritten(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/mine", "mine")
	o.restart() // which closes the file that is open for writing
	o.s.lingering.lasts = time.Hour
	h := o.Handle("etc/mine")
	if got := o.ReadAll(h); got != "mine" {
		t.Fatalf("content %q", got)
	}
	o.RemoveAll("etc/mine")
	_, err := o.Write(root, h, []byte("MINE"), 0, vfs.FileSync)
	if err != nil || o.ReadAll(h) != "MINE" {
		t.Errorf("write by its handle: %v, then %q", err, o.ReadAll(h))
	}
}

func TestLingeringFilesAreBoundedAndExpire(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.s.lingering.lasts = time.Hour
	var handles []vfs.Handle
	for n := range lingerFiles + 10 {
		name := fmt.Sprint("etc/f", n)
		o.WriteFile(name, "x")
		handles = append(handles, o.Handle(name))
		o.RemoveAll(name)
	}
	l := &o.s.lingering
	if len(l.queue) != lingerFiles || len(l.all) != lingerFiles {
		t.Errorf("%d linger, %d are found", len(l.queue), len(l.all))
	}
	if got := o.ReadAll(handles[0]); got != gone(vfs.ESTALE) {
		t.Errorf("the oldest: %q", got)
	}
	if got := o.ReadAll(handles[len(handles)-1]); got != "x" {
		t.Errorf("the latest: %q", got)
	}
	l.mu.Lock()
	for _, x := range l.queue {
		x.until = time.Now()
	}
	l.mu.Unlock()
	l.expire()
	if got := o.ReadAll(handles[len(handles)-1]); got != gone(vfs.ESTALE) || len(l.queue) != 0 || l.bytes != 0 {
		t.Errorf("after its time: %q, %d left, %d bytes", got, len(l.queue), l.bytes)
	}
}

// On a full disk the blocks of lingering files are freed for writes.
func TestLingeringFilesAreFreedOnAFullDisk(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	onSmallDisk(t, 400_000, m, o)
	big := strings.Repeat("y", 60_000)
	for range 30 { // many times the disk
		o.WriteFile("etc/big", strings.Repeat(big, 4))
		o.RemoveAll("etc/big")
	}
	o.WriteFile("etc/big", strings.Repeat(big, 4))
}
