package replica

import (
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// sharedBytes returns the content of path through Share, "" if it is not shared.
func (o *site) sharedBytes(c *vfs.Cred, h vfs.Handle) string {
	o.t.Helper()
	f, ok := o.Share(c, h)
	if !ok {
		return ""
	}
	defer f.Release()
	buf := make([]byte, 100)
	n, err := unix.Pread(f.Descriptor(), buf, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return string(buf[:n])
}

// What is shared is sent without a further check. So only blobs may be, for they are never written to.
func TestOnlyBlobsAreShared(t *testing.T) {
	m := newMemory(t)
	first, second := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, first, m)
	o.toFiles(files(map[string]string{"etc/b": "node's"}))
	a := o.Handle("etc/a")
	for path, want := range map[string]string{"etc/a": "a1", "etc/b": "", "etc": "", "opt/app/x": "x1"} {
		if got := o.sharedBytes(root, o.Handle(path)); got != want {
			t.Errorf("%s: shared %q, want %q", path, got, want)
		}
	}
	if got := o.sharedBytes(&vfs.Cred{UID: 7, GID: 7}, o.Handle("etc/mode")); got != "m1" {
		t.Errorf("a file that all may read: %q", got)
	}
	o.to(second)
	if got := o.sharedBytes(&vfs.Cred{UID: 7, GID: 7}, o.Handle("etc/mode")); got != "" {
		t.Errorf("a file that others must not read: %q", got)
	}
	if got := o.sharedBytes(root, a); got != "a1" {
		t.Errorf("a file that was replaced: %q", got)
	}
	o.WriteFile("etc/a", "mine")
	if got := o.sharedBytes(root, o.Handle("etc/a")); got != "" {
		t.Errorf("a file of the layer: %q", got)
	}
}
