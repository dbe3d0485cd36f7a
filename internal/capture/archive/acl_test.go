package archive

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestAnACLIsConvertedToTheFormOfTheKernel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{"u:7:rwx", "g:9:r,u:1:-,u:0:w", "g:65534:rwx,g:1:x,m::rx"} {
		if out, err := exec.Command("setfacl", "-b", "-m", rules, file).CombinedOutput(); err != nil {
			t.Skipf("setfacl: %v: %s", err, out)
		}
		text, err := exec.Command("getfacl", "-n", "--omit-header", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 1024)
		n, err := unix.Getxattr(file, nameACLAccess, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseACL(string(text), true)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want[:n], got); d != "" {
			t.Errorf("%s (-kernel +parsed):\n%s", text, d)
		}
	}
	if got, err := parseACL("user::rw-\ngroup::r--\nother::---\n", true); err != nil || got != nil {
		t.Errorf("an ACL that is no more than a mode: %x, %v", got, err)
	}
}
