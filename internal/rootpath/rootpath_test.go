package rootpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"dim/internal/testkit"
)

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	testkit.Must(t, os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755),
		os.WriteFile(filepath.Join(dir, "usr/bin/sh"), nil, 0o755))
	for link, target := range map[string]string{
		"bin": "usr/bin", "usr/abs": "/bin/sh", "up": "../../../usr/bin/sh", "usr/bin/self": "sh", "loop": "loop",
		"gone": "nowhere",
	} {
		testkit.Must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	root := os.DirFS(dir).(fs.ReadLinkFS)
	for _, tt := range []struct {
		name, want string
		links      []string
		err        error
	}{
		{"usr/bin/sh", "usr/bin/sh", nil, nil},
		{"/bin/sh", "usr/bin/sh", []string{"bin"}, nil},
		{"usr/abs", "usr/bin/sh", []string{"usr/abs", "bin"}, nil},
		{"up", "usr/bin/sh", []string{"up"}, nil},
		{"bin/self", "usr/bin/sh", []string{"bin", "usr/bin/self"}, nil},
		{"bin/../bin/./sh", "usr/bin/sh", []string{"bin"}, nil}, // the second bin is in usr
		{"../../usr", "usr", nil, nil},
		{"", ".", nil, nil},
		{"/", ".", nil, nil},
		{"gone", "", []string{"gone"}, fs.ErrNotExist},
		{"loop", "", nil, syscall.ELOOP},
	} {
		got, links, err := Resolve(root, tt.name)
		if got != tt.want || !errors.Is(err, tt.err) || tt.links != nil && !slices.Equal(links, tt.links) {
			t.Errorf("%s leads to %q by %q, %v; want %q by %q, %v", tt.name, got, links, err, tt.want, tt.links, tt.err)
		}
	}
}
