package bootfiles

import (
	"crypto/sha256"
	"fmt"
	"io"

	"dim/internal/boot/delivery"
	"dim/internal/image"
	"dim/internal/initramfs"
	"dim/internal/versionfs"
)

// partFile is a part of an open file.
type partFile struct {
	*io.SectionReader
	io.Closer
}

// kernel returns the kernel of a build, which is file e of its version or a part of it.
func (b *Builder) kernel(e *image.Entry, made *asset) delivery.Asset {
	digest, part := e.Digest, made.Part
	if part.Size == 0 {
		return delivery.Asset{
			Digest: digest, Size: int64(e.Size),
			Open: func() (delivery.File, error) { return b.Store.OpenBlob(digest) },
		}
	}
	return delivery.Asset{
		Digest: made.PartDigest, Size: part.Size,
		Open: func() (delivery.File, error) {
			f, err := b.Store.OpenBlob(digest)
			if err != nil {
				return nil, err
			}
			return partFile{io.NewSectionReader(f, part.Offset, part.Size), f}, nil
		},
	}
}

// partDigest returns the digest of the part of a file that is the kernel; zero if it is the whole file. Which part it
// is comes from a process that is not trusted.
func (b *Builder) partDigest(v image.Version, r *initramfs.Result) (d image.Digest, err error) {
	part := r.KernelPart
	if part.Size == 0 {
		return d, nil
	}
	e, err := versionfs.New(b.Store, v.Root).Entry(r.Kernel.Path)
	if err != nil {
		return d, err
	}
	if part.Offset < 0 || part.Size < 0 || part.Offset > int64(e.Size)-part.Size {
		return d, fmt.Errorf("read kernel %s: the process that reads it has named bytes after its end", r.Kernel.Path)
	}
	if part.Size > initramfs.MaxKernel {
		return d, fmt.Errorf("read kernel %s: %d bytes are too many for a kernel", r.Kernel.Path, part.Size)
	}
	f, err := b.Store.OpenBlob(e.Digest)
	if err != nil {
		return d, err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, part.Offset, part.Size)); err != nil {
		return d, err
	}
	return image.Digest(sum.Sum(nil)), nil
}
