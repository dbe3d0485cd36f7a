package nodeinit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/rootpath"
)

func (k *kernel) Mount(source, data string, readOnly bool) error {
	if mounted(newRoot) {
		return nil
	}
	var flags uintptr
	if readOnly {
		flags = unix.MS_RDONLY
	}
	err := unix.Mount(source, newRoot, "nfs", flags, data)
	if why := explainMount(err); why != "" {
		return fmt.Errorf("%s (%w)", why, err)
	}
	return err
}

// explainMount returns what an error of the kernel's NFS client means, or "".
func explainMount(err error) string {
	switch err {
	case unix.EACCES, unix.EPERM:
		return "the server does not let this node mount it"
	case unix.ENOENT:
		return "the server has no such export"
	case unix.ENODEV:
		return "the kernel has no NFS client: the module nfs is missing in the initramfs"
	case unix.EPROTONOSUPPORT:
		return "the kernel has no NFS version 3: the module nfsv3 is missing in the initramfs"
	case unix.EINVAL:
		return "the kernel does not understand the mount options; see dim.mount"
	case unix.ETIMEDOUT:
		return "the server takes the connection but does not answer"
	case unix.ECONNREFUSED:
		return "nothing listens there"
	}
	return ""
}

// FindInit resolves symbolic links within the new root.
func (k *kernel) FindInit(candidates []string) (string, error) {
	var missing []string
	for _, c := range candidates {
		err := executable(c)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		missing = append(missing, c)
	}
	return "", fmt.Errorf("the root has no %s", strings.Join(missing, ", "))
}

// executable reports an error unless name leads to a program in the new root.
func executable(name string) error {
	root := os.DirFS(newRoot).(fs.ReadLinkFS)
	real, _, err := rootpath.Resolve(root, name)
	if err != nil {
		return err
	}
	fi, err := root.Lstat(real)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", name)
	}
	return nil
}

func (k *kernel) WriteRunFiles(files []runFile) error {
	for _, f := range files {
		file := filepath.Join("/run", f.path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
