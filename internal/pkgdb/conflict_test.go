package pkgdb

import (
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestConflictsAreWhatBothChangedDifferently(t *testing.T) {
	list := func(versions ...string) []Package {
		var all []Package
		for i := 0; i < len(versions); i += 2 {
			all = append(all, Package{versions[i], "all", versions[i+1]})
		}
		return all
	}
	old := list("both", "1", "alike", "1", "gone", "1", "mine", "1", "masters", "1", "kernel", "5")
	node := list("both", "3", "alike", "2", "mine", "2", "masters", "1", "new", "1", "kernel", "5", "kernel", "6")
	master := list("both", "2", "alike", "2", "gone", "2", "mine", "1", "masters", "2", "new", "2", "kernel", "6")
	want := []Conflict{
		{"both", "all", "1", "3", "2"},
		{"gone", "all", "1", "", "2"},
		{"kernel", "all", "5", "5,6", "6"},
		{"new", "all", "", "1", "2"},
	}
	if diff := cmp.Diff(want, Conflicts(old, node, master)); diff != "" {
		t.Error(diff)
	}
	if list := Conflicts(old, old, master); list != nil {
		t.Errorf("of a node without changes: %v", list)
	}
}

func TestFilesAndConffilesOfAPackage(t *testing.T) {
	status := "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\nConffiles:\n" +
		" /etc/tool.conf 0123 \n /etc/old.conf 4567 obsolete\nDescription: a tool\n /usr/bin/no abc\n\n" +
		"Package: tool\nStatus: install ok installed\nArchitecture: i386\nVersion: 1\nConffiles:\n /etc/tool.conf 89\n"
	d := Load(fstest.MapFS{
		"var/lib/dpkg/status":                    {Data: []byte(status)},
		"var/lib/dpkg/info/tool:amd64.list":      {Data: []byte("/.\n/lib\n/lib/tool.so\n/etc/tool.conf\n")},
		"var/lib/dpkg/info/tool:amd64.md5sums":   {},
		"var/lib/dpkg/info/tool:i386.list":       {Data: []byte("/.\n/lib/other\n")},
		"var/lib/dpkg/info/tool:amd64.x.md5sums": {},
		"var/lib/dpkg/info/tools.list":           {Data: []byte("/usr/bin/tools\n")},
		"lib":                                    {Data: []byte("usr/lib"), Mode: fs.ModeSymlink | 0o777},
	})
	files := d.Files("tool", "amd64")
	slices.Sort(files)
	want := []string{
		"etc/tool.conf", "lib", "usr/lib/tool.so",
		"var/lib/dpkg/info/tool:amd64.list", "var/lib/dpkg/info/tool:amd64.md5sums",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Error(diff)
	}
	sums := map[string]string{"etc/tool.conf": "0123", "etc/old.conf": "4567"}
	if diff := cmp.Diff(sums, d.Conffiles("tool", "amd64")); diff != "" {
		t.Error(diff)
	}
	if list := d.Files("tools", "all"); !slices.Equal(list, []string{
		"usr/bin/tools", "var/lib/dpkg/info/tools.list",
	}) {
		t.Error(list)
	}
}
