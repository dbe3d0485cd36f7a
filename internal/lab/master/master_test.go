package master

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestARootIsBuiltOnceForTheSamePackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // without mmdebstrap
	dir := filepath.Join(t.TempDir(), "m")
	spec := Spec{Dir: dir, Packages: []string{"gcc"}, Log: io.Discard}
	if err := Ensure(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Errorf("a root that does not exist: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "remove the directory") {
		t.Errorf("a directory without a record: %v", err)
	}
	if err := os.WriteFile(dir+".packages", []byte(spec.record()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(t.Context(), spec); err != nil {
		t.Errorf("a root for the same packages: %v", err)
	}
	spec.Offline = []string{"jq"}
	if err := Ensure(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Errorf("a root for other packages: %v", err)
	}
	if left, err := filepath.Glob(dir + "*"); err != nil || len(left) != 2 {
		t.Errorf("there are %q, %v", left, err)
	}
}
