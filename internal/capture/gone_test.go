package capture

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/image"
	"dim/internal/testkit"
)

// versions returns how many versions the image has.
func (l *lab) versions() int {
	l.t.Helper()
	list, err := l.store.Versions(l.o.Image)
	testkit.Must(l.t, err)
	return len(list)
}

func TestAMasterThatIsRemovedMeanwhileMakesNoVersion(t *testing.T) {
	l := newLab(t)
	l.write("etc/passwd", "root")
	l.capture()
	for name, away := range map[string]func(){
		"removed": func() { testkit.Must(t, os.RemoveAll(l.o.Dir)) },
		"replaced": func() {
			testkit.Must(t, os.Rename(l.o.Dir, l.o.Dir+".old"), os.Mkdir(l.o.Dir, 0o755))
			l.write("other", "")
		},
	} {
		master := t.TempDir()
		l.o.Dir = master
		l.write("etc/passwd", "root")
		l.write("etc/new", name)
		once := false
		l.o.Progress = func(Progress) { // the last call is after the walk
			if !once {
				once = true
				away()
			}
		}
		if _, err := Run(context.Background(), l.store, l.o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := l.versions(); n != 1 {
			t.Errorf("%s: %d versions", name, n)
		}
	}
}

func TestAnEmptyMasterDoesNotReplaceAFullOne(t *testing.T) {
	l := newLab(t)
	l.write("etc/passwd", "root")
	l.capture()
	testkit.Must(t, os.RemoveAll(l.path("etc")))
	if _, err := Run(context.Background(), l.store, l.o); !errors.Is(err, errEmpty) {
		t.Errorf("%v, want errEmpty", err)
	}
	if n := l.versions(); n != 1 {
		t.Errorf("%d versions", n)
	}
}

// brokenFile cannot be read, as on a disk with bad blocks.
type brokenFile struct{ fs.Inode }

func (*brokenFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (*brokenFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks = 0o644, 4096, 8
	return 0
}

func (*brokenFile) Read(context.Context, fs.FileHandle, []byte, int64) (fuse.ReadResult, syscall.Errno) {
	return nil, syscall.EIO
}

// brokenDir cannot be listed.
type brokenDir struct{ fs.Inode }

func (*brokenDir) Readdir(context.Context) (fs.DirStream, syscall.Errno) { return nil, syscall.EIO }

func TestAllUnreadableEntriesAreNamed(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("needs fuse3")
	}
	root := &fs.Inode{}
	server, err := fs.Mount(l.o.Dir, root, &fs.Options{OnAdd: func(ctx context.Context) {
		root.AddChild("bad-dir", root.NewPersistentInode(ctx, &brokenDir{}, fs.StableAttr{Mode: syscall.S_IFDIR}),
			false)
		root.AddChild("bad-file", root.NewPersistentInode(ctx, &brokenFile{}, fs.StableAttr{Mode: syscall.S_IFREG}),
			false)
		root.AddChild("good", root.NewPersistentInode(ctx,
			&fs.MemRegularFile{Data: []byte("1"), Attr: fuse.Attr{Mode: 0o644}}, fs.StableAttr{}), false)
	}})
	if err != nil {
		t.Skipf("FUSE: %v", err)
	}
	t.Cleanup(func() { testkit.Must(t, server.Unmount()) })
	_, err = Run(context.Background(), l.store, l.o)
	bad, ok := errors.AsType[*unreadableError](err)
	if !ok {
		t.Fatalf("%v, want an unreadableError", err)
	}
	var paths []string
	for _, p := range bad.Problems {
		paths = append(paths, p.Path)
		if !errors.Is(p.Err, syscall.EIO) {
			t.Errorf("%s: %v", p.Path, p.Err)
		}
	}
	if got := strings.Join(paths, " "); got != "bad-dir bad-file" {
		t.Errorf("%q cannot be read", got)
	}
	if _, err := l.store.Resolve(image.Ref{Image: l.o.Image}); err == nil {
		t.Error("a version was made")
	}
}
