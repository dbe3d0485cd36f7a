package layers

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUsageCountsALayerOnce(t *testing.T) {
	m := newMemory(t)
	r := newSite(t, m.Version(t, 1, v1), m)
	dir := r.opts.Dir
	if u, err := r.Usage(); err != nil || u != (Usage{}) {
		t.Errorf("a replica without a layer uses %+v, %v", u, err)
	}
	upper := filepath.Join(dir, "n01/compute/upper")
	if err := os.MkdirAll(filepath.Join(upper, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(upper, "a/file")
	if err := os.WriteFile(file, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	one, err := r.Usage()
	if err != nil || one.Files != 3 || one.Bytes < 100_000 {
		t.Errorf("usage %+v, %v", one, err)
	}
	if err := os.Link(file, filepath.Join(upper, "a/b/again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(upper, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	two, err := r.Usage()
	if err != nil || two.Files != 5 || two.Bytes-one.Bytes > 16_384 {
		t.Errorf("with a second name and a link: %+v after %+v, %v", two, one, err)
	}
}
