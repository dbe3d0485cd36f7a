package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/ulikunitz/xz"

	"dim/internal/xzlimit"
)

// A few bytes that say that their dictionary has 4 GiB must not make the server take as much memory.
func TestAnArchiveThatWantsTooMuchMemoryIsRefused(t *testing.T) {
	for bits, want := range map[byte]error{22: nil, 40: xzlimit.ErrTooLarge} {
		var b bytes.Buffer
		w, err := xz.NewWriter(&b)
		if err == nil {
			_, err = io.WriteString(w, "content")
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		header := b.Bytes()[12:24]
		header[4] = bits
		binary.LittleEndian.PutUint32(header[8:], crc32.ChecksumIEEE(header[:8]))
		r, err := Decompress(&b)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, want) {
			t.Errorf("dictionary %d: %v, want %v", bits, err, want)
		}
	}
}
