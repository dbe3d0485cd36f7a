package disktest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDiskKeepsItsFilesAndIsRemovedAfterTheTest(t *testing.T) {
	var dir string
	t.Run("disk", func(t *testing.T) {
		d := New(t, "mkfs.ext4", "-q", "-F")
		dir = d.Dir
		file := filepath.Join(d.Dir, "file")
		if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Unmount(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("unmounted: %v", err)
		}
		d.Mount()
		if b, err := os.ReadFile(file); err != nil || string(b) != "content" {
			t.Errorf("mounted again: %q, %v", b, err)
		}
	})
	if dir == "" {
		t.Skip("there was no disk")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("after the test: %v", err)
	}
}
