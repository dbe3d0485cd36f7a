// Package rootpath resolves paths in a root file system as the kernel does after a chroot: symbolic links, and ".." in
// the root, do not lead out of it.
//
// It must not know any other package of this project.
package rootpath

import (
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// maxLinks is the kernel's limit (include/linux/namei.h, MAXSYMLINKS).
const maxLinks = 40

// Resolve returns the path to which name leads, without symbolic links, and the paths of the links on the way. The root
// is ".". name may begin with a slash; the results do not. If name leads nowhere, Resolve returns the links that it
// followed and an error.
func Resolve(root fs.ReadLinkFS, name string) (real string, links []string, err error) {
	real = "."
	for rest := strings.Split(name, "/"); len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			real = path.Dir(real)
			continue
		}
		next := path.Join(real, part)
		fi, err := root.Lstat(next)
		if err != nil {
			return "", links, err
		}
		if fi.Mode().Type() != fs.ModeSymlink {
			real = next
			continue
		}
		if links = append(links, next); len(links) > maxLinks {
			return "", links, &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		target, err := root.ReadLink(next)
		if err != nil {
			return "", links, err
		}
		if path.IsAbs(target) {
			real = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return real, links, nil
}
