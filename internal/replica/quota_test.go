package replica

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// used returns what the replica counts. It checks that a server that reads the layer again counts the same.
func (o *site) used() QuotaUse {
	o.t.Helper()
	u, err := o.QuotaUse()
	if err != nil {
		o.t.Fatal(err)
	}
	o.restart()
	again, err := o.QuotaUse()
	if err != nil || again != u {
		o.t.Errorf("counted %+v, after a restart %+v, %v", u, again, err)
	}
	return u
}

func quotaSite(t *testing.T, bytes, files uint64) *site {
	t.Helper()
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, append(slices.Clone(v1), f("etc/big", strings.Repeat("x", 40_000)))), m)
	o.spec.Rules = Rules{QuotaBytes: bytes, QuotaFiles: files}
	o.restart()
	return o
}

func TestAQuotaOfBytesRefusesWhatDoesNotFit(t *testing.T) {
	o := quotaSite(t, 64<<10, 0)
	o.WriteFile("etc/mine", strings.Repeat("y", 60_000))
	h := o.Handle("etc/mine")
	for _, tt := range []struct {
		what string
		off  uint64
		n    int
		want error
	}{
		{"over what is there", 1000, 50_000, nil},
		{"to the end of the last block", 60_000, 1000, nil},
		{"one block more", 61_440, 4096, nil},
		{"a byte too many", 65_536, 1, vfs.EDQUOT},
		{"far behind the end", 1 << 30, 1, vfs.EDQUOT},
	} {
		if _, err := o.Write(root, h, make([]byte, tt.n), tt.off, vfs.FileSync); err != error(tt.want) {
			t.Errorf("write %s: %v, want %v", tt.what, err, tt.want)
		}
	}
	if _, err := o.Write(root, o.Handle("etc/big"), []byte("X"), 0, vfs.FileSync); err != vfs.EDQUOT {
		t.Errorf("a write that copies up: %v", err)
	}
	chmod := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}
	if _, err := o.SetAttr(root, o.Handle("etc/big"), &chmod); err != vfs.EDQUOT {
		t.Errorf("a chmod that copies up: %v", err)
	}
	if u := o.used(); u.Bytes != 64<<10 {
		t.Errorf("counted %d", u.Bytes)
	}
	fs, err := o.StatFS(o.Root())
	if err != nil || fs.Bytes != 64<<10 || fs.BytesAvail != 0 {
		t.Errorf("df: %+v, %v", fs, err)
	}
	// What is truncated, removed or set aside no longer counts.
	if _, err := o.SetAttr(root, o.Handle("etc/mine"), &vfs.SetAttr{Valid: vfs.SetSize, Size: 4096}); err != nil {
		t.Errorf("truncate: %v", err)
	}
	if u := o.used(); u.Bytes != 4096 {
		t.Errorf("counted %d after a truncation", u.Bytes)
	}
	if _, err := o.Write(root, o.Handle("etc/big"), []byte("X"), 0, vfs.FileSync); err != nil {
		t.Errorf("a write that copies up, with room: %v", err)
	}
	if u := o.used(); u.Bytes != 4096+40_960 {
		t.Errorf("counted %d after copying up", u.Bytes)
	}
	o.to(o.m.Version(t, 2, v2)) // etc/big goes, and the node's copy aside
	if u := o.used(); u.Bytes != 4096 {
		t.Errorf("counted %d after a switch", u.Bytes)
	}
	o.RemoveAll("etc/mine")
	if u := o.used(); u.Bytes != 0 {
		t.Errorf("counted %d after all was removed", u.Bytes)
	}
}

func TestAQuotaCountsTheTargetsOfLongLinks(t *testing.T) {
	m := newMemory(t)
	long := strings.Repeat("l", 4000)
	link := func(path, target string) vfstest.Entry {
		return vfstest.Entry{Path: path, Type: vfs.Symlink, Target: target, Mtime: vfs.Time{Sec: 1e9}}
	}
	o := newSite(t, m.Version(t, 1, append(slices.Clone(v1), link("etc/link", long))), m)
	o.spec.Rules = Rules{QuotaBytes: 12 << 10}
	o.restart()
	symlink := func(name, target string) error {
		_, err := o.Symlink(root, o.Handle("etc"), name, target, &vfs.SetAttr{})
		return err
	}
	chown := func() error {
		_, err := o.SetAttr(root, o.Handle("etc/link"), &vfs.SetAttr{Valid: vfs.SetUID, UID: 7})
		return err
	}
	for _, tt := range []struct {
		what string
		do   func() error
		want error
		used uint64
	}{
		{"a short link", func() error { return symlink("link-s", "short") }, nil, 0},
		{"a link of the version is copied up", chown, nil, 4096},
		{"again, as it is in the layer", chown, nil, 4096},
		{"a link of a whole block", func() error { return symlink("link-a", long) }, nil, 8192},
		{"the shortest that counts", func() error { return symlink("link-b", long[:60]) }, nil, 12288},
		{"one too many", func() error { return symlink("link-c", long) }, vfs.EDQUOT, 12288},
		{"a short one with no room left", func() error { return symlink("link-d", "short") }, nil, 12288},
		{"one that was removed", func() error { o.RemoveAll("etc/link-a"); return nil }, nil, 8192},
		{"in the place of that", func() error { return symlink("link-c", long) }, nil, 12288},
	} {
		if err := tt.do(); err != error(tt.want) && (err != nil || tt.want != nil) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
		if u := o.used(); u.Bytes != tt.used {
			t.Errorf("%s: counted %d, want %d", tt.what, u.Bytes, tt.used)
		}
	}
	o.RemoveAll("etc/link")
	o.to(m.Version(t, 2, append(slices.Clone(v1), link("etc/link", long+"2"))))
	o.spec.Rules.QuotaBytes = 8 << 10
	o.restart()
	if err := chown(); err != vfs.EDQUOT {
		t.Errorf("copying up a link without room: %v", err)
	}
}

func TestAQuotaCountsNoHoles(t *testing.T) {
	o := quotaSite(t, 16<<10, 0)
	o.WriteFile("etc/sparse", "start")
	h := o.Handle("etc/sparse")
	if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetSize, Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	for _, off := range []uint64{1 << 20, 2 << 20, 3 << 20, 1 << 20} { // the last one is there already
		if _, err := o.Write(root, h, []byte("block"), off, vfs.FileSync); err != nil {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	if _, err := o.Write(root, h, []byte("block"), 4<<20, vfs.FileSync); err != vfs.EDQUOT {
		t.Errorf("a fifth block: %v", err)
	}
	if u := o.used(); u.Bytes != 16<<10 {
		t.Errorf("counted %d", u.Bytes)
	}
}

func TestAQuotaOfFilesRefusesOneTooMany(t *testing.T) {
	o := quotaSite(t, 0, 4) // the directory etc, which is copied up, is one
	for n := range 3 {
		o.WriteFile(fmt.Sprint("etc/f", n), "")
	}
	how := &vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}}
	if _, err := o.Create(root, o.Handle("etc"), "f3", how); err != vfs.EDQUOT {
		t.Errorf("create: %v", err)
	}
	if _, err := o.Mkdir(root, o.Handle("etc"), "d", &vfs.SetAttr{}); err != vfs.EDQUOT {
		t.Errorf("mkdir: %v", err)
	}
	if _, err := o.Write(root, o.Handle("etc/a"), []byte("X"), 0, vfs.FileSync); err != vfs.EDQUOT {
		t.Errorf("copy up: %v", err)
	}
	if _, err := o.Link(root, o.Handle("etc/f0"), o.Handle("etc"), "link"); err != nil {
		t.Errorf("a further name: %v", err)
	}
	o.RemoveAll("etc/b") // takes a whiteout, which is no file of the node's
	if u := o.used(); u.Files != 4 {
		t.Errorf("counted %d files", u.Files)
	}
	if fs, err := o.StatFS(o.Root()); err != nil || fs.Files != 4 || fs.FilesFree != 0 {
		t.Errorf("df: %+v, %v", fs, err)
	}
	o.RemoveAll("etc/f1")
	o.WriteFile("etc/f4", "")
}

func TestManyWritersTogetherKeepToTheQuota(t *testing.T) {
	const quota = 256 << 10
	o := quotaSite(t, quota, 0)
	var handles []vfs.Handle
	for n := range 8 {
		o.WriteFile(fmt.Sprint("etc/f", n), "")
		handles = append(handles, o.Handle(fmt.Sprint("etc/f", n)))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	written := 0
	for _, h := range handles {
		wg.Go(func() {
			for n := range 20 {
				_, err := o.Write(root, h, make([]byte, 4096), uint64(n)*4096, vfs.Unstable)
				mu.Lock()
				switch err {
				case nil:
					written += 4096
				case vfs.EDQUOT:
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	u := o.used()
	if u.Bytes > quota || int(u.Bytes) != written || written < quota*3/4 {
		t.Errorf("%d written, %d counted, quota %d", written, u.Bytes, quota)
	}
}

// A process must not fill the disk through an open file that is no longer in the layer.
func TestAQuotaBoundsFilesThatLeftTheLayer(t *testing.T) {
	o := quotaSite(t, 64<<10, 0)
	o.WriteFile("etc/mine", strings.Repeat("y", 8192))
	o.WriteFile("etc/a", strings.Repeat("y", 8192))
	o.s.lingering.lasts = time.Hour
	removed, aside := o.Handle("etc/mine"), o.Handle("etc/a")
	o.RemoveAll("etc/mine")
	l := &o.s.lingering
	for off := uint64(8192); off < 56<<10; off += 8192 { // etc/a has the rest
		if _, err := o.Write(root, removed, make([]byte, 8192), off, vfs.FileSync); err != nil {
			t.Fatalf("write to a removed file, at %d: %v", off, err)
		}
	}
	if _, err := o.Write(root, removed, []byte("x"), 56<<10, vfs.FileSync); err != vfs.EDQUOT {
		t.Errorf("a removed file beyond the quota: %v", err)
	}
	if n := l.room(); n != 56<<10 {
		t.Errorf("what lingers counts %d", n)
	}
	o.setAside("etc/a")
	if _, err := o.Write(root, aside, []byte("x"), 8192, vfs.FileSync); err != nil {
		t.Errorf("a file that was set aside: %v", err)
	}
	if _, err := o.Write(root, aside, []byte("x"), 64<<10, vfs.FileSync); err != nil {
		t.Errorf("a hole in it: %v", err)
	}
	if _, err := o.Write(root, aside, make([]byte, 64<<10), 0, vfs.FileSync); err != vfs.EDQUOT {
		t.Errorf("a file that was set aside, beyond the quota: %v", err)
	}
	if u := o.used(); u.Bytes != 0 {
		t.Errorf("counted %d", u.Bytes)
	}
}
