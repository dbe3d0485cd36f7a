package mounts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountPointsBelowTheDirectoryAreFound(t *testing.T) {
	const text = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /srv/m rw - tmpfs none rw
24 22 0:22 / /srv/m/a\040b rw - tmpfs none rw
25 24 0:23 / /srv/m/a\040b/deeper rw - tmpfs none rw
26 22 0:24 / /srv/m/x/y rw - ext4 /dev/vdb rw
27 22 0:24 / /srv/more rw - tmpfs none rw
`
	got, err := Parse(text, "/srv/m")
	if d := cmp.Diff(map[string]string{"a b": "tmpfs", "x/y": "ext4"}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if got, err := Parse(text, "/"); err != nil || len(got) != 2 {
		t.Errorf("in /: %q, %v", got, err)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("24 22 0:22 / /srv/m/a\\040b rw - tmpfs none rw\n", "/srv/m")
	f.Add("24 22 0:22 / /\\056\\056/x rw - tmpfs none rw\n", "/")
	f.Fuzz(func(t *testing.T, text, root string) {
		list, err := Parse(text, root)
		if err != nil {
			return
		}
		for p := range list {
			if p == "" || strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") {
				t.Errorf("%q is no path below %q", p, root)
			}
		}
	})
}
