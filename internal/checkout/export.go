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

// Format is what a version can be exported as.
type Format string

// The formats: an archive, a directory, an EROFS image.
const (
	TarFormat   Format = "tar"
	DirFormat   Format = "dir"
	EROFSFormat Format = "erofs"
)

// ErrNoTool is wrapped when the program is not installed that makes a format.
var ErrNoTool = errors.New("not installed")

// mkfs is the program that makes EROFS images, of the package erofs-utils.
const mkfs = "mkfs.erofs"

// Export writes the version whose root is given to dest, which must not be there. It has its name only when it is whole and on disk. What an end in
// the middle leaves is beside it, under the name with ".part" added, and is in the way of the next.
func Export(ctx context.Context, from Source, root image.Entry, format Format, dest string) error {
	if err := taken(dest); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	part := filepath.Clean(dest) + ".part"
	var err error
	switch format {
	case TarFormat:
		err = tarFile(ctx, from, root, part)
	case DirFormat:
		err = Dir(ctx, from, root, part)
	case EROFSFormat:
		err = erofs(ctx, from, root, part)
	default:
		err = fmt.Errorf("there is no format %q", format)
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
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it holds what only root may read
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Tar(ctx, from, root, f); err != nil {
		return err
	}
	return f.Sync()
}

// erofs makes an EROFS image of a directory that it makes and removes.
func erofs(ctx context.Context, from Source, root image.Entry, file string) (err error) {
	program, err := exec.LookPath(mkfs)
	if err != nil {
		return fmt.Errorf("%s: %w", mkfs, ErrNoTool)
	}
	if err := taken(file); err != nil {
		return err
	}
	dir := file + ".tree"
	defer func() {
		if !errors.Is(err, fs.ErrExist) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := Dir(ctx, from, root, dir); err != nil {
		return err
	}
	// Extended inodes alone have each file's own mtime, and owners of more than 16 bits.
	cmd := exec.CommandContext(ctx, program, "-Eforce-inode-extended", file, dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, bytes.TrimSpace(said.Bytes()))
	}
	return syncFile(file)
}

// taken reports, as an error, that there is something at path.
func taken(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
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
