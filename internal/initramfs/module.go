package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"dim/internal/xzlimit"
)

// maxModule bounds the size of a decompressed module, and the memory for decompression. The largest drivers of cards
// have some 5 MB.
const maxModule = 128 << 20

// unpack returns the ELF file of a module. Modules are stored uncompressed: the kernel need not support compressed
// ones, and the archive is compressed as a whole.
func unpack(name string, b []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case strings.HasSuffix(name, ".xz"):
		r, err = xz.NewReader(xzlimit.New(bytes.NewReader(b), maxModule))
	case strings.HasSuffix(name, ".gz"):
		r, err = gzip.NewReader(bytes.NewReader(b))
	case strings.HasSuffix(name, ".zst"):
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(b),
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxModule))
		if err == nil {
			defer d.Close()
			r = d
		}
	default:
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	if len(out) > maxModule {
		return nil, fmt.Errorf("unpack %s: more than %d bytes", name, maxModule)
	}
	return out, nil
}

// firmwareOf returns the firmware files that a module names, relative to /lib/firmware. What is not an ELF file names
// none.
func firmwareOf(module []byte) []string {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil
	}
	info, err := section.Data()
	if err != nil {
		return nil
	}
	var names []string
	for field := range strings.SplitSeq(string(info), "\x00") {
		if name, ok := strings.CutPrefix(field, "firmware="); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}
