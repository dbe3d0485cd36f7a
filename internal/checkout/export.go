package checkout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"dim/internal/durable"
	"dim/internal/image"
)

// Format is a form in which a version can be exported.
type Format string

// The formats: an archive, a directory, an EROFS image.
const (
	TarFormat   Format = "tar"
	DirFormat   Format = "dir"
	EROFSFormat Format = "erofs"
)

// errNoDirectory means that the directory of what is to be written does not exist.
var errNoDirectory = errors.New("no such directory")

// ErrNoTool means that the program for a format is not installed.
var ErrNoTool = errors.New("not installed")

// mkfs is the program that makes EROFS images. It is in the package erofs-utils.
const mkfs = "mkfs.erofs"

// Export writes the version with the given root to dest, which must not exist. It writes to dest with ".part" added,
// and renames that when it is complete and on disk. If the process ends before, the ".part" remains and has to be
// removed before the next export to dest.
func Export(ctx context.Context, from Source, root image.Entry, format Format, dest string) error {
	if err := CheckFree(dest); err != nil {
		return fmt.Errorf("export to %s: %w", dest, err)
	}
	part := filepath.Clean(dest) + ".part"
	var err error
	switch format {
	case TarFormat:
		err = tarFile(ctx, from, root, part)
	case DirFormat:
		err = writeDir(ctx, from, root, part)
	case EROFSFormat:
		err = erofs(ctx, from, root, part)
	default:
		err = fmt.Errorf("unknown format %q", format)
	}
	if err == nil {
		if err = os.Rename(part, dest); err == nil {
			err = durable.SyncDir(filepath.Dir(part))
		}
	} else if !errors.Is(err, fs.ErrExist) {
		err = errors.Join(err, os.RemoveAll(part))
	}
	if err != nil {
		return fmt.Errorf("export to %s: %w", dest, err)
	}
	return nil
}

func tarFile(ctx context.Context, from Source, root image.Entry, file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it contains files that only root may read
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Tar(ctx, from, root, f); err != nil {
		return err
	}
	return f.Sync()
}

// erofs makes an EROFS image by way of a temporary directory.
func erofs(ctx context.Context, from Source, root image.Entry, file string) (err error) {
	program, err := exec.LookPath(mkfs)
	if err != nil {
		return fmt.Errorf("%s: %w", mkfs, ErrNoTool)
	}
	if err := CheckFree(file); err != nil {
		return err
	}
	dir := file + ".tree"
	defer func() {
		if !errors.Is(err, fs.ErrExist) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := writeDir(ctx, from, root, dir); err != nil {
		return err
	}
	// Only extended inodes have an mtime of their own and owners of more than 16 bits.
	cmd := exec.CommandContext(ctx, program, "-Eforce-inode-extended", file, dir)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return syncFile(file)
}

// CheckFree returns why Export cannot make a file at path: there is one, which is fs.ErrExist, or its directory is
// missing, which is errNoDirectory.
func CheckFree(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err = os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", filepath.Dir(path), errNoDirectory)
	}
	return err
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
