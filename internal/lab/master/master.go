// Package master installs a Debian root with mmdebstrap: the master of the demonstration and of the tests that need a
// whole distribution. It needs root and mmdebstrap.
//
// It must not know any other package of this project.
package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Spec describes the root to install.
type Spec struct {
	Dir      string   // the root's directory, which Build makes
	Packages []string // in addition to those of a small server
	// packages that it can install without a network: OfflineDir holds them and their dependencies
	Offline       []string
	AuthorizedKey string // a line for root's authorized_keys
	Log           io.Writer

	// Progress, if not nil, is called whenever the installation has made progress.
	Progress func(Progress)
}

// OfflineDir is the directory in the root that holds the packages of Spec.Offline. It is a repository for apt:
// `deb [trusted=yes] file:/srv/repo ./`.
const OfflineDir = "/srv/repo"

// packages returns all packages to install: those of an ordinary small Debian server, and s.Packages.
func (s *Spec) packages() []string {
	return append([]string{
		"systemd-sysv", "udev", "dbus", "openssh-server", "python3", "linux-image-amd64",
		"ifupdown", "isc-dhcp-client", "iproute2", "iputils-ping", "kmod",
	}, s.Packages...)
}

// Build installs Debian 12 into s.Dir, which must not exist, and configures it as Debian's installer does: with an
// fstab that names disks by UUID, a network card that uses DHCP, and a host name. Nothing in it is specific to DIM.
func Build(ctx context.Context, s Spec) error {
	cmd := exec.CommandContext(ctx, "mmdebstrap", s.args()...)
	out := s.Log
	if s.Progress != nil {
		out = io.MultiWriter(s.Log, &progressWriter{report: s.Progress})
	}
	cmd.Stdout, cmd.Stderr = out, out
	// mmdebstrap mounts /proc and /sys in the new root. In a mount namespace of its own these mounts disappear when it
	// ends, however it ends, so that removing the root later cannot remove files through them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build master %s: mmdebstrap: %w", s.Dir, err)
	}
	for _, name := range []string{"etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/apt/apt.conf.d/99mmdebstrap"} {
		if err := os.Remove(filepath.Join(s.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return Configure(s.Dir, s.AuthorizedKey)
}

// args returns the arguments of mmdebstrap.
func (s *Spec) args() []string {
	args := []string{
		"--mode=root", "--variant=minbase", "--include=" + strings.Join(s.packages(), ","),
		"--aptopt=Acquire::Retries \"3\"", "--dpkgopt=force-unsafe-io", // no fsync: a lost master can be built again
	}
	if s.Progress != nil {
		args = append(args, "--verbose")
	}
	if len(s.Offline) > 0 {
		r := strings.NewReplacer("REPO", OfflineDir, "PACKAGES", strings.Join(s.Offline, " "))
		args = append(args, "--customize-hook="+r.Replace(offlineHook))
	}
	return append(args, "bookworm", s.Dir)
}

// offlineHook downloads packages into a repository. mmdebstrap runs it on this machine; $1 is the root.
const offlineHook = `set -e; repo="$1REPO"; mkdir -p "$repo/partial"
	APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --download-only -o Dir::Cache::Archives="$repo/" install PACKAGES
	cd "$repo"; rm -rf partial lock
	for p in *.deb; do
		dpkg-deb -f "$p"
		printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$p" "$(stat -c %s "$p")" "$(sha256sum <"$p" | cut -d" " -f1)"
	done >Packages`

// record returns the content of the file Dir.packages, which says for which packages a root was built.
func (s *Spec) record() string {
	return fmt.Sprintf("%q %q\n", s.packages(), s.Offline)
}

// Ensure builds the root unless it exists and was built for the same packages, as the file Dir.packages says. A root
// for other packages is replaced. A directory without that file is not replaced: Ensure returns an error.
func Ensure(ctx context.Context, s Spec) error {
	recordFile, want := s.Dir+".packages", s.record()
	have, err := os.ReadFile(recordFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(s.Dir); err == nil {
		switch string(have) {
		case want:
			return nil
		case "":
			return fmt.Errorf(
				"build master %s: the directory exists, but %s, which would say for which packages it was built, "+
					"does not: remove the directory, or name another one", s.Dir, recordFile)
		}
	}
	dir, unfinished := s.Dir, s.Dir+".unfinished"
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(filepath.Dir(dir), 0o755)); err != nil {
		return err
	}
	s.Dir = unfinished
	if err := Build(ctx, s); err != nil {
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	for _, old := range []string{recordFile, dir} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return err
	}
	return os.WriteFile(recordFile, []byte(want), 0o644)
}

// Configure writes the files that Debian's installer writes into a root, and root's authorized_keys.
func Configure(dir, authorizedKey string) error {
	files := []struct {
		path, text string
		mode       os.FileMode
	}{
		{"etc/fstab", installedFstab, 0o644},
		{"etc/network/interfaces", installedInterfaces, 0o644},
		{"etc/hostname", "golden\n", 0o644},
		{"etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tgolden\n", 0o644},
		{"root/.ssh/authorized_keys", authorizedKey + "\n", 0o600},
	}
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	return nil
}

const installedFstab = `# /etc/fstab: static file system information.
#
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
# / was on /dev/sda2 during installation
UUID=0b6d3d2e-54a5-4a29-9a8b-0b7c0cf1a5a1 /               ext4    errors=remount-ro 0       1
# /boot/efi was on /dev/sda1 during installation
UUID=6C1A-7E0D  /boot/efi       vfat    umask=0077      0       1
# swap was on /dev/sda3 during installation
UUID=d5f1e4a2-73a1-4c44-93cf-4be4a3e5ca1b none            swap    sw              0       0
/dev/sr0        /media/cdrom0   udf,iso9660 user,noauto     0       0
`

const installedInterfaces = `# This file describes the network interfaces available on your system
# and how to activate them. For more information, see interfaces(5).

source /etc/network/interfaces.d/*

# The loopback network interface
auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug enp1s0
iface enp1s0 inet dhcp
`
