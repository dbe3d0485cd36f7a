// Package chroots finds the roots that Warewulf and xCAT keep for their nodes, so that they become masters of images
// where they are.
//
// # Concepts
//
// A Root is a directory with an installed system. Its list of exclusions, and what the other program has put into it
// for itself, become exclude rules. A Note names each line of such a list that becomes none, and each thing that a
// master should have and a root lacks.
//
// Nothing is copied, and nothing in a root is changed. Paths in a root lead through its own symbolic links only as far
// as they stay in it.
//
// It must not know what a store or a daemon is.
package chroots

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Root is a directory with an installed system.
type Root struct {
	Name     string   // of the image
	Path     string   // absolute
	Arch     string   // amd64, arm64 or ppc64le; "": not known
	Excludes []string // patterns of exclude rules
	Notes    []Note
}

// Note is something about a root that a person should know.
type Note struct {
	File    string `json:"file"` // "": it is about the root
	Line    int    `json:"line"` // from 1; 0: the file as a whole
	Message string `json:"message"`
}

// String returns "file:line: message".
func (n Note) String() string {
	switch {
	case n.File == "":
		return n.Message
	case n.Line == 0:
		return n.File + ": " + n.Message
	}
	return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Message)
}

func (r *Root) note(file string, line int, format string, args ...any) {
	r.Notes = append(r.Notes, Note{file, line, fmt.Sprintf(format, args...)})
}

// Program is a program that keeps roots.
type Program struct {
	Name  string
	About string
	Paths []string // where it keeps them

	name     func(dir string) string
	excludes func(r *Root, root *os.Root, lists []string)
	own      []string // what it puts into a root for itself
}

// Programs returns the programs, by name.
func Programs() []Program {
	return []Program{
		{
			Name: "warewulf", About: "chroots of Warewulf: /var/lib/warewulf/chroots, or of Warewulf 3",
			Paths: []string{"/var/lib/warewulf/chroots", "/srv/warewulf/chroots", "/var/chroots"},
			name:  warewulfName, excludes: warewulfExcludes, own: []string{"warewulf"},
		},
		{
			Name: "xcat", About: "roots that genimage of xCAT makes: /install/netboot",
			Paths: []string{"/install/netboot"},
			name:  xcatName, excludes: xcatExcludes,
			own: []string{
				"opt/xcat", "xcatpost", "etc/systemd/system/xcatpostinit1.service",
				"etc/systemd/system/multi-user.target.wants/xcatpostinit1.service", "etc/init.d/xcatpostinit*",
				"etc/rc.d/init.d/xcatpostinit*", "etc/rc3.d/S*xcatpostinit*", "etc/init.d/statelite",
				"etc/rc.sysinit.backup", ".statelite", ".default", ".statebackup",
			},
		},
	}
}

// maxDepth is the number of levels below a path that are searched: genimage puts roots into OS/ARCH/PROFILE/rootimg.
const maxDepth = 4

// Find returns the roots at or below paths, sorted by their paths. lists are directories and files of exclusion lists,
// for programs that keep them outside of roots. The error has every path that cannot be read or has no root below it.
func (p *Program) Find(paths, lists []string) (roots []Root, err error) {
	var problems []error
	for _, given := range paths {
		top, err := filepath.Abs(given)
		if err == nil {
			err = checkDir(top)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		found, err := find(top, maxDepth)
		problems = append(problems, err)
		if len(found) == 0 && err == nil {
			problems = append(problems, fmt.Errorf("find roots in %s: no directory in it has an installed system", top))
		}
		for _, dir := range found {
			if !printable(dir) {
				problems = append(problems,
					fmt.Errorf("find roots in %s: %q cannot be written as XML: rename it", top, dir))
				continue
			}
			if !slices.ContainsFunc(roots, func(r Root) bool { return r.Path == dir }) {
				r := Root{Name: imageName(p.name(dir)), Path: dir}
				problems = append(problems, p.inspect(&r, lists))
				roots = append(roots, r)
			}
		}
	}
	slices.SortFunc(roots, func(a, b Root) int { return strings.Compare(a.Path, b.Path) })
	return distinct(roots), errors.Join(problems...)
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("find roots in %s: it is not a directory", dir)
	}
	return err
}

// find returns the directories that look like a root: dir, or those down to depth levels below it. It does not search
// in a root that it has found, and follows no symbolic links below dir. The error has the directories that cannot be
// read.
func find(dir string, depth int) (found []string, err error) {
	for _, bin := range []string{"usr/bin", "bin"} {
		if isDir(filepath.Join(dir, "etc")) && isDir(filepath.Join(dir, bin)) {
			return []string{dir}, nil
		}
	}
	if depth == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	problems := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			more, err := find(filepath.Join(dir, e.Name()), depth-1)
			found, problems = append(found, more...), append(problems, err)
		}
	}
	return found, errors.Join(problems...)
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// imageName makes a name of an image of any text.
func imageName(text string) string {
	text = strings.Trim(notInName.ReplaceAllString(text, "-"), "-")
	if text == "" || (text[0]|0x20 < 'a' || text[0]|0x20 > 'z') {
		text = "image-" + text
	}
	return text[:min(len(text), 60)]
}

// distinct gives roots that have one name different ones.
func distinct(roots []Root) []Root {
	count := map[string]int{}
	for i := range roots {
		r := &roots[i]
		if count[r.Name]++; count[r.Name] > 1 {
			r.Name = fmt.Sprintf("%s-%d", r.Name, count[r.Name])
		}
	}
	return roots
}

// warewulfName returns the name of a chroot: CHROOTS/NAME/rootfs is NAME, and so is CHROOTS/NAME in Warewulf 3.
func warewulfName(dir string) string {
	if filepath.Base(dir) == "rootfs" {
		dir = filepath.Dir(dir)
	}
	return filepath.Base(dir)
}

// xcatName returns the name of the osimage whose root genimage puts into OS/ARCH/PROFILE/rootimg.
func xcatName(dir string) string {
	if os, arch, profile, ok := xcatParts(dir); ok {
		return os + "-" + arch + "-netboot-" + profile
	}
	return warewulfName(dir)
}

func xcatParts(dir string) (os, arch, profile string, ok bool) {
	parts := strings.Split(filepath.ToSlash(dir), "/")
	if len(parts) < 5 || parts[len(parts)-1] != "rootimg" {
		return "", "", "", false
	}
	parts = parts[len(parts)-4:]
	return parts[0], parts[1], parts[2], true
}

// inspect finds out what is in a root.
func (p *Program) inspect(r *Root, lists []string) error {
	dir, err := os.OpenRoot(r.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	root := dir.FS()
	r.Arch = architecture(dir)
	p.excludes(r, dir, lists)
	for _, pattern := range p.own {
		if there, _ := fs.Glob(root, pattern); len(there) > 0 { // the patterns are our own
			r.exclude("/"+pattern, "", 0)
		}
	}
	if kernels, _ := fs.Glob(root, "usr/lib/modules/*/modules.dep"); len(kernels) == 0 {
		if kernels, _ = fs.Glob(root, "lib/modules/*/modules.dep"); len(kernels) == 0 {
			r.note("", 0, "%s has no kernel with modules: install one in it, which nodes boot", r.Path)
		}
	}
	if !anyExists(dir, "sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd") {
		r.note("", 0, "%s has no init: it is not a whole system", r.Path)
	}
	if r.Arch == "" {
		r.note("", 0, "the architecture of %s is not known: amd64 is taken", r.Path)
	}
	return nil
}

func anyExists(dir *os.Root, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		_, err := dir.Lstat(name)
		return err == nil
	})
}

// architecture returns our name of the architecture of a root's programs.
func architecture(dir *os.Root) string {
	for _, name := range []string{"usr/bin/bash", "bin/bash", "usr/bin/ls", "bin/ls", "bin/busybox"} {
		f, err := openRegular(dir, name)
		if err != nil {
			continue
		}
		e, err := elf.NewFile(f)
		f.Close()
		if err != nil {
			continue
		}
		switch {
		case e.Machine == elf.EM_X86_64:
			return "amd64"
		case e.Machine == elf.EM_AARCH64:
			return "arm64"
		case e.Machine == elf.EM_PPC64 && e.Data == elf.ELFDATA2LSB:
			return "ppc64le"
		}
		return ""
	}
	return ""
}

// maxExcludes is fewer than an image may have.
const maxExcludes = 900

var ofKernel = regexp.MustCompile(`^/(boot|(usr/)?lib/modules)/`)

// exclude adds a pattern, unless an image must have what it covers.
func (r *Root) exclude(pattern, file string, line int) {
	pattern = path.Clean("/" + strings.TrimPrefix(pattern, "/"))
	first := strings.Split(strings.TrimPrefix(pattern, "/"), "/")[0]
	matches := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			ok, err := path.Match(pattern, name)
			return err == nil && ok
		})
	}
	switch _, err := path.Match(pattern, "/"); {
	case err != nil || strings.ContainsRune(pattern, '\\') || !printable(pattern):
		r.note(file, line, "%q is not excluded: it is not a pattern that can be used here", pattern)
	case pattern == "/" || first == "*" || first == "**":
		r.note(file, line, "%q is not excluded: it covers the whole root", pattern)
	case ofKernel.MatchString(pattern),
		matches("/boot", "/lib/modules", "/usr/lib/modules", "/lib", "/usr", "/usr/lib"):
		r.note(file, line, "%s is not excluded: the kernel that nodes boot is in it", pattern)
	case slices.Contains(r.Excludes, pattern):
	case len(r.Excludes) == maxExcludes:
		r.note(file, line, "%s and what follows are not excluded: there are more than %d", pattern, maxExcludes)
	case len(r.Excludes) < maxExcludes:
		r.Excludes = append(r.Excludes, pattern)
	}
}
