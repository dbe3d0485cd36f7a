package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// A small file whose header demands a dictionary of 4 GiB must not make the server allocate as much.
func TestAnArchiveThatNeedsTooMuchMemoryIsRefused(t *testing.T) {
	for bits, want := range map[byte]string{22: "", 40: "too large a dictionary"} {
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
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("dictionary %d: %v, want %q", bits, err, want)
		}
	}
}
