package learned

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = "node,interface,mac,stated\nn01,eth0,52:54:00:4d:00:01,\nn02,eth0,52:54:00:4d:00:22,52:54:00:4d:00:02\n"

func mac(t *testing.T, text string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAListIsReadAsItWasWritten(t *testing.T) {
	want := []Fact{
		{"n01", "eth0", mac(t, "52:54:00:4d:00:01"), nil},
		{"n02", "eth0", mac(t, "52:54:00:4d:00:22"), mac(t, "52:54:00:4d:00:02")},
	}
	got, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(sample, string(Format(want))); d != "" {
		t.Error(d)
	}
	replaced := With(got, Fact{Node: "n01", Interface: "eth0", MAC: mac(t, "52:54:00:4d:00:09")})
	if len(replaced) != 2 || replaced[0].MAC[5] != 9 || got[0].MAC[5] != 1 {
		t.Errorf("a card has one fact: %v, before %v", replaced, got)
	}
}

func TestMalformedListsAreRefusedWithTheirLine(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"another header", "node,mac\n", "newer version"},
		{"a column is missing", sample + "n03,eth0,52:54:00:4d:00:03\n", "after line 3"},
		{"no address", sample + "n03,eth0,,\n", "line 4"},
		{"five bytes", sample + "n03,eth0,02:00:5e:10:00,\n", "line 4"},
	} {
		if _, err := Parse([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("node,interface,mac,stated\n\"a,b\",\"\",0a:00:00:00:00:00,\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(Format(list))
		if err != nil || !bytes.Equal(Format(list), Format(again)) {
			t.Errorf("%v is written as %q: %v", list, Format(list), err)
		}
	})
}
