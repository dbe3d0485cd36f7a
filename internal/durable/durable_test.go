package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestWriteFileReplacesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "", "three"} {
		if err := WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("read back %q, %v; want %q", got, err, want)
		}
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".tmp-*"))
	if len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func records(t *testing.T, path string) (*Log, []string) {
	t.Helper()
	var got []string
	l, err := OpenLog(path, func(r Record) error {
		if r.Damaged {
			got = append(got, "damage")
			return nil
		}
		got = append(got, string(r.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

// A crash can cut the file anywhere. Every prefix must open, with exactly the records that are complete.
func TestALogOpensAfterEveryCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, _ := records(t, path)
	var want []string
	var ends []int64
	for i := range 4 {
		r := fmt.Sprintf("record %d", i)
		if err := l.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
		want, ends = append(want, r), append(ends, l.Size())
	}
	l.Close()
	whole, _ := os.ReadFile(path)
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		for n < len(ends) && ends[n] <= int64(cut) {
			n++
		}
		l, got := records(t, path)
		if diff := cmp.Diff(want[:n], got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("cut at %d: %s", cut, diff)
		}
		if err := l.Append([]byte("after")); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		l.Close()
		l, got = records(t, path)
		l.Close()
		if len(got) != n+1 || got[n] != "after" {
			t.Errorf("cut at %d: after an append: %q", cut, got)
		}
	}
}

func TestTheFormatOfADirectoryIsChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "format")
	if err := CheckFormat(path, 1); err != nil {
		t.Fatalf("a new one: %v", err)
	}
	for text, want := range map[string]string{
		"1\n": "", "1": "", "2\n": "format 2 is not known, this program reads format 1: use a newer one",
		"": "is damaged", "0": "is damaged", "q\n": "is damaged", "1J": "echo 1 > " + path, "\x00\x00": "is damaged",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CheckFormat(path, 1)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
