package nfs_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// slowTree is a tree whose Attr takes a while, and which returns a path for every handle.
type slowTree struct{ vfs.FS }

func (s slowTree) Attr(h vfs.Handle, a *vfs.Attr) error {
	time.Sleep(2 * time.Millisecond)
	return s.FS.Attr(h, a)
}

func (slowTree) Path(vfs.Handle) (string, bool) { return "/some/path", true }

// logged is a log that may be written to and read at the same time.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestSomeSlowCallsAreLoggedWithTheirPaths(t *testing.T) {
	var log logged
	fs := slowTree{directory(t, t.TempDir())}
	opt := nfs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
	addr, _ := serve(t, trees{"/slow": fs}, opt, oncrpc.Options{Slow: time.Millisecond})
	tree, err := dial(t, addr).Tree("/slow")
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		var a vfs.Attr
		if err := tree.Attr(tree.Root(), &a); err != nil {
			t.Fatal(err)
		}
	}
	text := log.String()
	if n := strings.Count(text, "slow call"); n == 0 || n > 20 {
		t.Errorf("%d of 40 slow calls were logged", n)
	}
	if !strings.Contains(text, "procedure=GETATTR") || !strings.Contains(text, "path=/some/path") {
		t.Errorf("the log lacks the procedure or the path:\n%s", text)
	}
}
