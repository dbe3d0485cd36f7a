package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

func TestInitMakesADirectoryThatLoads(t *testing.T) {
	data := filepath.Join(t.TempDir(), "a", "b")
	id := testkit.Value(Init(data))(t)
	if loaded := testkit.Value(Open(data))(t).Identity(); id == "" || loaded.ID != id || loaded.Name != "" {
		t.Errorf("id %q, loaded %+v", id, loaded)
	}
	for _, part := range parts() {
		if fi, err := os.Stat(filepath.Join(data, part)); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v", part, err)
		}
	}
	testkit.Must(t, filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := e.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v, %v", path, fi.Mode(), err)
		}
		return nil
	}))
}

func TestInitChangesNothingThatExists(t *testing.T) {
	data := t.TempDir()
	testkit.Value(Init(data))(t)
	key := filepath.Join(data, "ca", keyFile)
	before := testkit.Value(os.ReadFile(key))(t)
	if _, err := Init(data); !errors.Is(err, ErrInitialised) {
		t.Errorf("second Init: %v", err)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(data, "format"), []byte("3\n"), 0o600))
	if _, err := Init(data); !errors.Is(err, ErrInitialised) {
		t.Errorf("Init over a newer format: %v", err)
	}
	if _, err := Open(data); !errors.Is(err, errNewerFormat) {
		t.Errorf("Open of a newer format: %v", err)
	}
	if after, err := os.ReadFile(key); err != nil || string(after) != string(before) {
		t.Errorf("the key changed: %v", err)
	}
}

func TestInitRefusesADirectoryWithOtherFiles(t *testing.T) {
	data := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(data, "thesis.txt"), nil, 0o644))
	if _, err := Init(data); !errors.Is(err, errNotEmpty) || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("Init: %v", err)
	}
	if there, err := os.ReadDir(data); err != nil || len(there) != 1 {
		t.Errorf("there is now %v, %v", there, err)
	}
}

func TestInitCompletesADirectoryOfAnInterruptedInit(t *testing.T) {
	data := t.TempDir()
	testkit.Must(t,
		os.MkdirAll(filepath.Join(data, "ca"), 0o700),
		os.WriteFile(filepath.Join(data, "ca", keyFile), []byte("half"), 0o600),
	)
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		t.Errorf("Check: %v", err)
	}
	if _, err := Init(data); err != nil {
		t.Error(err)
	}
}
