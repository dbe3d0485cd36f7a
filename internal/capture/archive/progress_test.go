package archive

import (
	"archive/tar"
	"bytes"
	"testing"

	"dim/internal/capture/draft"
	"dim/internal/testkit"
)

func TestProgressCountsContentWhileItIsRead(t *testing.T) {
	const size = 512 << 10
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		size int
	}{{"large", size}, {"small", 3}} {
		testkit.Must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(f.size)}))
		testkit.Value(w.Write(make([]byte, f.size)))(t)
	}
	testkit.Must(t, w.Close())
	var files, bytes, within uint64
	u := &Unpacker{Batch: &sink{}, Tree: draft.New(draft.Options{}), Progress: func(f, n uint64) {
		if files += f; files == 0 && n > 0 {
			within++
		}
		bytes += n
	}}
	testkit.Must(t, u.Unpack(t.Context(), &b))
	if files != 2 || bytes != size+3 || within < 2 {
		t.Errorf("%d files, %d bytes, %d calls while the first was read", files, bytes, within)
	}
}
