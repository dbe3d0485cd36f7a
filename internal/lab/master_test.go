package lab

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAMasterIsMadeOnceForTheSamePackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // nothing can be built
	dir := filepath.Join(t.TempDir(), "m")
	spec := MasterSpec{Dir: dir, Packages: []string{"gcc"}, Log: io.Discard}
	if err := EnsureMaster(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Errorf("one that is not there: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := EnsureMaster(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "does not say what it was made for") {
		t.Errorf("a directory of somebody's: %v", err)
	}
	if err := os.WriteFile(dir+".packages", []byte(spec.asked()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := EnsureMaster(t.Context(), spec); err != nil {
		t.Errorf("one for the same packages: %v", err)
	}
	spec.Offline = []string{"jq"}
	if err := EnsureMaster(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Errorf("one for other packages: %v", err)
	}
	if left, err := filepath.Glob(dir + "*"); err != nil || len(left) != 2 {
		t.Errorf("there are %q, %v", left, err)
	}
}
