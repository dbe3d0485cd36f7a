package tftp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want request
		bad  bool
	}{
		{name: "a plain request", in: "\x00\x01undionly.kpxe\x00octet\x00",
			want: request{op: opRead, name: "undionly.kpxe", mode: "octet"}},
		{name: "the mode in any case", in: "\x00\x01a\x00OcTet\x00",
			want: request{op: opRead, name: "a", mode: "octet"}},
		{name: "OVMF asks for the size first", in: "\x00\x01snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00",
			want: request{op: opRead, name: "snponly.efi", mode: "octet", tsize: true, blockSize: 1468}},
		{name: "all options, in capitals",
			in: "\x00\x01f\x00octet\x00BLKSIZE\x008\x00TSIZE\x000\x00TIMEOUT\x008\x00WINDOWSIZE\x0065535\x00",
			want: request{
				op: opRead, name: "f", mode: "octet", tsize: true, blockSize: 8, timeout: 8, window: 65535,
			}},
		{name: "options out of range are ignored",
			in:   "\x00\x01f\x00octet\x00blksize\x007\x00timeout\x000\x00windowsize\x0065536\x00tsize\x00-1\x00",
			want: request{op: opRead, name: "f", mode: "octet"}},
		{name: "unknown options", in: "\x00\x01f\x00octet\x00multicast\x00\x00blksize\x001024\x00",
			want: request{op: opRead, name: "f", mode: "octet", blockSize: 1024}},
		{name: "an option cut off", in: "\x00\x01f\x00octet\x00blksize\x001024",
			want: request{op: opRead, name: "f", mode: "octet"}},
		{name: "a leading slash and dots are part of the name", in: "\x00\x01/../etc/passwd\x00octet\x00",
			want: request{op: opRead, name: "/../etc/passwd", mode: "octet"}},
		{name: "a write request", in: "\x00\x02f\x00octet\x00", want: request{op: opWrite, name: "f", mode: "octet"}},
		{name: "no name", in: "\x00\x01\x00octet\x00", bad: true},
		{name: "no mode", in: "\x00\x01f\x00", bad: true},
		{name: "another operation", in: "\x00\x03f\x00octet\x00", bad: true},
		{name: "nothing", in: "", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseRequest([]byte(tt.in))
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if err != nil {
				return
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(request{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"\x00\x01undionly.kpxe\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
		"\x00\x02f\x00netascii\x00", "\x00\x04\x00\x01", "\x00\x05\x00\x08aborted\x00", "\x00\x05\x00\x00", "\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil {
			if r.name == "" || strings.Contains(r.name, "\x00") {
				t.Errorf("name %q", r.name)
			}
			if r.blockSize != 0 && (r.blockSize < 8 || r.blockSize > 65464) || r.window < 0 || r.timeout < 0 {
				t.Errorf("options out of range: %+v", r)
			}
		}
		if a, err := parseAnswer(b); err == nil && a.op != opAck && a.op != opError {
			t.Errorf("answer %+v", a)
		}
	})
}
