package archive

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// magic is a form of file that is no tar archive: the bytes at an offset, what it is, and the command that makes an
// archive of it.
type magic struct {
	at        int
	bytes     string
	form, way string
}

const (
	loopMount = "mount it (mount -o loop,ro FILE /mnt) and make an archive: tar -C /mnt --xattrs --acls -cf x.tar ."
	bsdtar    = "convert it: bsdtar --format pax -cf x.tar @FILE"
	unsquash  = "unpack it (unsquashfs FILE) and make an archive: tar -C squashfs-root --xattrs -cf x.tar ."
)

func magics() []magic {
	return []magic{
		{32769, "CD001", "an ISO image", loopMount},
		{1080, "\x53\xef", "an ext2, ext3 or ext4 file system", loopMount},
		{65600, "_BHRfS_M", "a btrfs file system", loopMount},
		{0, "XFSB", "an XFS file system", loopMount},
		{512, "EFI PART", "the image of a partitioned disk", "losetup -P -f FILE, then mount its partition and tar it"},
		{0, "QFI\xfb", "a disk image in the form qcow2", "convert it: qemu-img convert -O raw FILE x.raw"},
		{0, "hsqs", "a squashfs file system", unsquash},
		{0, "070701", "a cpio archive", bsdtar},
		{0, "070702", "a cpio archive", bsdtar},
		{0, "070707", "a cpio archive", bsdtar},
		{0, "\xc7\x71", "a cpio archive", bsdtar},
		{0, "PK\x03\x04", "a zip archive", bsdtar},
		{0, "7z\xbc\xaf\x27\x1c", "a 7z archive", bsdtar},
		{0, "\xed\xab\xee\xdb", "an rpm package", "install it in the master"},
		{0, "!<arch>\n", "a Debian package or ar archive", "install it in the master"},
		{0, "#!", "a script", "run it in an empty directory, and make an archive of that"},
		{0, "#mtree", "a list of files (mtree) without their content", "make an archive with tar"},
		{0, "\x04\x22\x4d\x18", "compressed with lz4", "compress it with zstd: lz4 -dc FILE | zstd >x.tar.zst"},
		{0, "\x1f\x9d", "compressed with compress", "compress it with zstd: zcat FILE | zstd >x.tar.zst"},
		{0, "\x5d\x00\x00", "compressed with lzma", "compress it with xz: lzma -dc FILE | xz >x.tar.xz"},
		{510, "\x55\xaa", "the image of a disk", "losetup -P -f FILE, then mount its partition and tar it"},
	}
}

// identifyBytes is as much of a file as its form shows in.
const identifyBytes = 68 << 10

// checkForm returns an error that says what the decompressed content of r is if it is no tar archive. It reads nothing
// of r.
func checkForm(r *bufio.Reader) error {
	b, err := r.Peek(identifyBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(b) >= blockSize && string(b[257:262]) == "ustar" {
		return nil
	}
	for _, m := range magics() {
		if m.at < len(b) && bytes.HasPrefix(b[m.at:], []byte(m.bytes)) {
			return fmt.Errorf("it is %s, not a tar archive: %s", m.form, m.way)
		}
	}
	zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case zeros == len(b):
		return errors.New("it has nothing but zeros at its start: it is an empty archive, or not a tar archive")
	case zeros >= blockSize:
		return errors.New("it begins with zeros: it is not a tar archive")
	}
	return nil
}

// Open returns the decompressed content of a tar archive. The error says what r is if it is something else. The caller
// closes the result, which does not close r.
func Open(r io.Reader) (io.ReadCloser, error) {
	plain, err := Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	b := bufio.NewReaderSize(plain, identifyBytes)
	if err := checkForm(b); err != nil {
		plain.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{b, plain}, nil
}
