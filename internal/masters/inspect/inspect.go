// Package inspect finds what in a version breaks nodes, or what they will not have, and says what to do.
//
// The content of a version comes from a master and is not trusted.
//
// It must not know what is done about a warning.
package inspect

import (
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/initramfs"
	"dim/internal/kmod"
	"dim/internal/pkgdb"
	"dim/internal/quantity"
)

// Attributes returns what is odd about the owners and modes of the directories at the top of a version.
func Attributes(files interface {
	Entry(name string) (image.Entry, error)
}, root *image.Entry) (list []control.Warning) {
	list = append(list, attributes("", root)...)
	for _, name := range []string{"etc", "usr"} {
		if e, err := files.Entry(name); err == nil {
			list = append(list, attributes(name, &e)...)
		}
	}
	return list
}

// Version returns what is odd in the files of a whole version. It parses them, so it is for a process of its own.
func Version(files initramfs.FS) (list []control.Warning) {
	list = append(list, dynamicLinker(files)...)
	list = append(list, kernels(files)...)
	list = append(list, networkServices(files)...)
	if _, err := files.Lstat(".autorelabel"); err == nil {
		list = append(list, control.Warning{
			Kind: control.WarnBoot, Path: "/.autorelabel",
			Text: "each node would set SELinux labels, which its root cannot keep, and boot again, at every boot",
			Hint: "remove it from the master, and let SELinux be permissive or off on nodes",
		})
	}
	for _, name := range []string{".snapshots", "home/.snapshots"} {
		if names, err := fs.ReadDir(files, name); err == nil && len(names) > 0 {
			list = append(list, control.Warning{
				Kind: control.WarnOdd, Path: "/" + name, Text: "its snapshots are part of the version, as whole copies",
				Hint: fmt.Sprintf(`leave them out: <exclude path="/%s/**"/>`, name),
			})
		}
	}
	return list
}

// Databases returns the package databases of a version that cannot be read. It parses them, as Version does.
func Databases(files fs.FS) (list []control.Warning) {
	for _, text := range pkgdb.Load(files).Unread {
		list = append(list, control.Warning{
			Kind: control.WarnPackages, Text: text, Hint: "changes of packages are not listed; files are not affected",
		})
	}
	return list
}

// attributes checks that everybody can use a directory that everybody needs, and that only root can change it.
func attributes(name string, e *image.Entry) (list []control.Warning) {
	warn := func(text, hint string) {
		list = append(list, control.Warning{Kind: control.WarnMode, Path: "/" + name, Text: text, Hint: hint})
	}
	if e.Type != image.Directory {
		return nil
	}
	const hint = "chmod 755 it in the master"
	if e.Mode&0o005 != 0o005 {
		warn(fmt.Sprintf("its mode is %04o: nobody but root can use what is in it", e.Mode), hint)
	}
	if e.Mode&0o002 != 0 {
		warn(fmt.Sprintf("its mode is %04o: every user of a node can change what is in it", e.Mode), hint)
	}
	if e.UID != 0 {
		warn(fmt.Sprintf("it belongs to user %d, not to root", e.UID),
			"was the master made in a user namespace? make it as root; an archive with --numeric-owner")
	}
	return list
}

// dynamicLinker checks that the dynamic linker of the image's init is there.
func dynamicLinker(files initramfs.FS) []control.Warning {
	for _, name := range []string{"sbin/init", "usr/lib/systemd/systemd"} {
		f, err := files.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		at, ok := f.(io.ReaderAt)
		if !ok {
			return nil
		}
		interpreter := interpreterOf(at)
		if interpreter == "" {
			return nil
		}
		if _, err := fs.Stat(files, strings.TrimPrefix(path.Clean(interpreter), "/")); err != nil {
			return []control.Warning{{
				Kind: control.WarnBoot, Path: "/" + name,
				Text: fmt.Sprintf("nodes cannot boot: it needs %s, which is not there", interpreter),
				Hint: "has a directory replaced a link such as /lib?",
			}}
		}
		return nil
	}
	return nil
}

// interpreterOf returns the path of the dynamic linker of an ELF program, or "".
func interpreterOf(r io.ReaderAt) string {
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz > 1 && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err == nil {
				return strings.TrimRight(string(b), "\x00")
			}
		}
	}
	return ""
}

// Kernels returns the kernel that is taken unless the description names one, and others that could be meant. It
// returns nothing if the version has none or cannot be read.
func Kernels(files initramfs.FS) (taken initramfs.Kernel, others []string) {
	all, err := initramfs.Kernels(files)
	if err != nil || len(all) == 0 {
		return taken, nil
	}
	for _, k := range all[1:] {
		if kmod.DoubtfulRelease(all[0].Release, k.Release) && !slices.Contains(others, k.Release) {
			others = append(others, k.Release)
		}
	}
	return all[0], others
}

// kernels says which kernel is taken if there are others that could be meant.
func kernels(files initramfs.FS) []control.Warning {
	taken, others := Kernels(files)
	if len(others) == 0 {
		return nil
	}
	return []control.Warning{{
		Kind: control.WarnKernels, Path: "/" + taken.Path,
		Text: fmt.Sprintf("nodes boot kernel %s; there is also %s", taken.Release, strings.Join(others, ", ")),
		Hint: `<kernel version="RELEASE"/> in the image's description chooses`,
	}}
}

// networkServices finds services that are enabled, configure network cards, and are not configured by a built-in node
// file. They cut a node off from its root.
func networkServices(files initramfs.FS) (list []control.Warning) {
	wants, _ := fs.ReadDir(files, "etc/systemd/system")
	for _, service := range []string{"connman", "wicked", "dhcpcd", "cloud-init"} {
		enabled := slices.ContainsFunc(wants, func(dir fs.DirEntry) bool {
			_, err := files.Lstat("etc/systemd/system/" + dir.Name() + "/" + service + ".service")
			return strings.HasSuffix(dir.Name(), ".wants") && err == nil
		})
		if enabled {
			list = append(list, control.Warning{
				Kind: control.WarnBoot, Path: "/etc/systemd/system",
				Text: service + ".service is enabled: it configures the boot card again, and can take the root away",
				Hint: "in the master: systemctl disable " + service + ".service",
			})
		}
	}
	return list
}

// Changes looks at entries that a version brings.
type Changes struct {
	capable  []string
	replaced []control.Warning
}

// Add looks at an entry that is new or has changed. Old, if there is one, is in the files before.
func (c *Changes) Add(name string, old, now *image.Entry, before fs.FS) {
	if slices.ContainsFunc(now.Xattrs, func(x image.Xattr) bool { return x.Name == "security.capability" }) {
		c.capable = append(c.capable, "/"+name)
	}
	if old == nil || old.Type != image.Symlink || now.Type != image.Directory {
		return
	}
	if info, err := fs.Stat(before, name); err == nil && info.IsDir() {
		c.replaced = append(c.replaced, replacedLink(name, old.Target))
	}
}

// replacedLink returns the warning of a directory that has replaced a link to a directory.
func replacedLink(name, target string) control.Warning {
	to := target
	if !path.IsAbs(to) {
		to = path.Join("/"+path.Dir(name), to)
	}
	return control.Warning{
		Kind: control.WarnReplaced, Path: "/" + name,
		Text: fmt.Sprintf("it was a link to %s and is a directory now: what was found through it is not", target),
		Hint: "put the files into " + to + " instead",
	}
}

// maxNamed is how many paths a warning names.
const maxNamed = 5

// Warnings returns what is odd in all entries that were added.
func (c *Changes) Warnings() []control.Warning {
	list := c.replaced
	if n := len(c.capable); n > 0 {
		text := strings.Join(c.capable[:min(n, maxNamed)], ", ")
		if n > maxNamed {
			text += " and " + quantity.Count(n-maxNamed) + " more"
		}
		list = append(list, control.Warning{
			Kind: control.WarnCapabilities, Path: c.capable[0],
			Text: "nodes do not have file capabilities, so only root can use all of: " + text,
			Hint: "for ping set net.ipv4.ping_group_range = 0 2147483647 in /etc/sysctl.d; others may need chmod u+s",
		})
	}
	return list
}
