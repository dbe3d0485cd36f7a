package initramfs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestARealDistributionGivesASmallInitramfs needs DIM_LAB_MASTER, the path of an installed root. It takes seconds.
func TestARealDistributionGivesASmallInitramfs(t *testing.T) {
	dir := os.Getenv("DIM_LAB_MASTER")
	if dir == "" {
		t.Skip("needs an installed root in DIM_LAB_MASTER")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	spec := Spec{Image: root.FS().(FS), Init: []byte("init")}
	res, err := Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %+v: %d modules, %d firmware, left out %q; %d bytes, %d with %s",
		res.Kernel, len(res.Modules), len(res.Firmware), res.LeftOut, res.Size, len(res.Initramfs), res.Compression)
	if len(res.Initramfs) > 20<<20 {
		t.Errorf("initramfs of %d bytes, want less than 20 MB", len(res.Initramfs))
	}
	again, err := Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(res.Initramfs, again.Initramfs) {
		t.Error("building again gives other bytes")
	}
	if out := os.Getenv("DIM_LAB_OUT"); out != "" {
		if err := os.WriteFile(filepath.Join(out, "initramfs"), res.Initramfs, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
