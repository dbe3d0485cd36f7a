package lab

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

// MasterSpec tells BuildMaster what to install.
type MasterSpec struct {
	Dir           string   // made by BuildMaster; must not exist
	Packages      []string // in addition to MasterPackages
	Offline       []string // what it can install without a network: these and all that they need are in OfflineAt
	AuthorizedKey string   // one line for root's authorized_keys
	Log           io.Writer
}

// MasterPackages lists what an ordinary small Debian server has.
func MasterPackages() []string {
	return []string{
		"systemd-sysv", "udev", "dbus", "openssh-server", "python3", "linux-image-amd64",
		"ifupdown", "isc-dhcp-client", "iproute2", "iputils-ping", "kmod",
	}
}

// OfflineAt is where a master has the packages of MasterSpec.Offline, as a repository for apt: `deb [trusted=yes] file:/srv/repo ./`.
const OfflineAt = "/srv/repo"

// BuildMaster installs Debian 12 into a directory with mmdebstrap and leaves it as Debian's installer would: with an fstab that names
// disks by UUID, a network card that asks DHCP, a host name of its own. Nothing in it knows of DIM.
func BuildMaster(ctx context.Context, s MasterSpec) error {
	args := []string{
		"--mode=root", "--variant=minbase", "--include=" + strings.Join(append(MasterPackages(), s.Packages...), ","),
		"--aptopt=Acquire::Retries \"3\"", "--dpkgopt=force-unsafe-io", // a lost master is made again
	}
	if len(s.Offline) > 0 {
		args = append(args, "--customize-hook="+strings.NewReplacer("REPO", OfflineAt, "PACKAGES", strings.Join(s.Offline, " ")).Replace(stockOffline))
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, "bookworm", s.Dir)...)
	cmd.Stdout, cmd.Stderr = s.Log, s.Log
	// mmdebstrap mounts /proc and /sys in the new root. In mounts of its own they go with it, however it ends, and nobody removes through them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build master %s: mmdebstrap: %w", s.Dir, err)
	}
	for _, own := range []string{"etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/apt/apt.conf.d/99mmdebstrap"} {
		if err := os.Remove(filepath.Join(s.Dir, own)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return AsInstalled(s.Dir, s.AuthorizedKey)
}

// asked tells what a master is made for.
func (s *MasterSpec) asked() string {
	return fmt.Sprintf("%q %q\n", append(MasterPackages(), s.Packages...), s.Offline)
}

// EnsureMaster is BuildMaster, unless Dir is there and was made for the same packages: the file Dir.packages tells. A Dir that was made
// for others is replaced; one without that file is not ours, and an error.
func EnsureMaster(ctx context.Context, s MasterSpec) error {
	note, asked := s.Dir+".packages", s.asked()
	made, err := os.ReadFile(note)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(s.Dir); err == nil {
		switch string(made) {
		case asked:
			return nil
		case "":
			return fmt.Errorf("build master %s: it is there, and %s does not say what it was made for: remove it, or name another directory", s.Dir, note)
		}
	}
	dir, half := s.Dir, s.Dir+".half"
	if err := errors.Join(os.RemoveAll(half), os.MkdirAll(filepath.Dir(dir), 0o755)); err != nil {
		return err
	}
	s.Dir = half
	if err := BuildMaster(ctx, s); err != nil {
		return errors.Join(err, os.RemoveAll(half))
	}
	for _, old := range []string{note, dir} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := os.Rename(half, dir); err != nil {
		return err
	}
	return os.WriteFile(note, []byte(asked), 0o644)
}

// stockOffline runs on this machine; $1 is the master.
const stockOffline = `set -e; repo="$1REPO"; mkdir -p "$repo/partial"
	APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --download-only -o Dir::Cache::Archives="$repo/" install PACKAGES
	cd "$repo"; rm -rf partial lock
	for p in *.deb; do
		dpkg-deb -f "$p"
		printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$p" "$(stat -c %s "$p")" "$(sha256sum <"$p" | cut -d" " -f1)"
	done >Packages`

// AsInstalled writes the files that Debian's installer writes.
func AsInstalled(dir, key string) error {
	files := []struct {
		path, text string
		mode       os.FileMode
	}{
		{"etc/fstab", installedFstab, 0o644},
		{"etc/network/interfaces", installedInterfaces, 0o644},
		{"etc/hostname", "golden\n", 0o644},
		{"etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tgolden\n", 0o644},
		{"root/.ssh/authorized_keys", key + "\n", 0o600},
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
