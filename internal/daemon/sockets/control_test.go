package sockets

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/control/wire"
	"dim/internal/testkit"
)

func TestWithoutADirectoryForTheReadersSocketTheDaemonListensOnItsOwn(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	testkit.Must(t, os.WriteFile(file, nil, 0o600))
	own := wire.Socket{Path: filepath.Join(dir, "own.sock")}
	readers := wire.Socket{Path: filepath.Join(file, "readers.sock"), Optional: true}
	var log bytes.Buffer
	list, err := OpenControl([]wire.Socket{own, readers}, slog.New(slog.NewTextHandler(&log, nil)))
	testkit.Must(t, err)
	if len(list) != 1 || list[0].Addr().String() != own.Path {
		t.Errorf("it listens on %v", list)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") ||
		!strings.Contains(got, file) {
		t.Errorf("the log has %q", got)
	}
	testkit.Must(t, list[0].Close())

	readers.Path = filepath.Join(dir, "run/dim/readers.sock") // no such directory yet
	list, err = OpenControl([]wire.Socket{own, readers}, slog.New(slog.DiscardHandler))
	testkit.Must(t, err)
	if len(list) != 2 {
		t.Errorf("with a directory that can be made it listens on %v", list)
	}
	for _, ln := range list {
		testkit.Must(t, ln.Close())
	}
	own.Path = filepath.Join(file, "own.sock")
	if _, err = OpenControl([]wire.Socket{own}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a failure of its own socket is no error")
	}
}
