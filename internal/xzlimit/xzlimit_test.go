package xzlimit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"
)

// content returns data of which a part can be compressed.
func content() []byte {
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 70_000)
	random.Read(noise)
	return append(append(bytes.Repeat([]byte("text "), 20_000), noise...), bytes.Repeat([]byte("more "), 20_000)...)
}

func pack(t testing.TB, c xz.WriterConfig, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFilesPassUnchanged(t *testing.T) {
	plain := content()
	files := map[string][]byte{"empty": pack(t, xz.WriterConfig{}, nil)}
	for name, c := range map[string]xz.WriterConfig{
		"CRC64": {}, "CRC32": {CheckSum: xz.CRC32}, "SHA-256": {CheckSum: xz.SHA256}, "no check": {NoCheckSum: true},
		"blocks": {BlockSize: 50_001},
	} {
		files[name] = pack(t, c, plain)
	}
	files["streams and padding"] = append(append(append([]byte{}, files["CRC32"]...), make([]byte, 8)...),
		files["blocks"]...)
	for name, args := range map[string][]string{
		"xz -9": {"-9"}, "xz -T2": {"-T2", "--block-size=50000"},
		"xz -0": {"-0", "-C", "crc32"},
	} {
		cmd := exec.Command("xz", append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files[name] = out
	}
	for name, b := range files {
		for how, r := range map[string]io.Reader{
			"whole":        bytes.NewReader(b),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(b)),
		} {
			got, err := io.ReadAll(New(r, 64<<20))
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s, %s: %d bytes of %d, %v", name, how, len(got), len(b), err)
			}
		}
		for _, n := range []int{1, 7, 13, 40, len(b) / 2, len(b) - 30, len(b) - 1} {
			if n >= len(b) || n < 0 {
				continue
			}
			r, err := xz.NewReader(New(bytes.NewReader(b[:n]), 64<<20))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err == nil || errors.Is(err, errStructure) {
				t.Errorf("%s, cut after %d bytes: %v", name, n, err)
			}
		}
	}
}

// setDictionary changes the dictionary size in the block header at off.
func setDictionary(b []byte, off int, bits byte) {
	size := 4 * (int(b[off]) + 1)
	at := bytes.Index(b[off:off+size], []byte{0x21, 1})
	b[off+at+2] = bits
	binary.LittleEndian.PutUint32(b[off+size-4:], crc32.ChecksumIEEE(b[off:off+size-4]))
}

func TestTooLargeDictionariesAreRefusedBeforeTheyAreAllocated(t *testing.T) {
	header := pack(t, xz.WriterConfig{BlockSize: 100}, content()[:1000])
	second := 12 + bytes.Index(header[16:], header[12:18]) + 4 // the headers of all blocks begin alike
	for _, tt := range []struct {
		name string
		off  int
		bits byte
		want error
	}{
		{"64 MiB", 12, 28, nil},
		{"96 MiB", 12, 29, errTooLarge},
		{"4 GiB", 12, 40, errTooLarge},
		{"invalid size", 12, 41, errStructure},
		{"4 GiB in the second block", second, 40, errTooLarge},
	} {
		b := bytes.Clone(header)
		setDictionary(b, tt.off, tt.bits)
		got, err := io.ReadAll(New(bytes.NewReader(b), 64<<20))
		if !errors.Is(err, tt.want) || tt.want != nil && len(got) != tt.off {
			t.Errorf("%s: %d bytes passed, %v; want %v", tt.name, len(got), err, tt.want)
		}
	}
}

// FuzzReader checks that what passes is a prefix of the file.
func FuzzReader(f *testing.F) {
	f.Add(pack(f, xz.WriterConfig{BlockSize: 1000}, content()[:3000]))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := io.ReadAll(New(bytes.NewReader(b), 1<<20))
		if !bytes.HasPrefix(b, got) {
			t.Errorf("%x became %x", b, got)
		}
	})
}
