package remote

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/testkit"
)

func TestLocationsAreParsedStrictly(t *testing.T) {
	for text, want := range map[string]Location{
		"//root@golden/":            {User: "root", Host: "golden", Dir: "/"},
		"//golden/srv//x/":          {Host: "golden", Dir: "/srv/x"},
		"//r@10.0.0.1:2222/a b/é'":  {User: "r", Host: "10.0.0.1", Port: "2222", Dir: "/a b/é'"},
		"//[fe80::1%eth0]:22/a":     {Host: "fe80::1%eth0", Port: "22", Dir: "/a"},
		"//root@[2001:db8::1]/../a": {User: "root", Host: "2001:db8::1", Dir: "/a"},
	} {
		if got, err := ParseLocation(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "/golden/a", "//golden", "///a", "//-oProxyCommand=x/a", "//root@/a", "//@h/a", "//-x@h/a", "//h:0/a",
		"//h:70000/a", "//h:x/a", "//a b/c",
		"//[::1/a", "//[::1]x/a", "//h/a\x00", "//a;b/c", "//$(id)/c", "//u@v@h/a",
	} {
		if got, err := ParseLocation(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func TestARecordIsParsedStrictly(t *testing.T) {
	got, err := ParseRecord("f 12 65024 2 3 4755 1000 7 -5.0000000010 1795632368.6559114120 ./a b/ c\n")
	want := Record{
		Path: "a b/ c\n", Kind: 'f', Dev: 65024, Ino: 12, Links: 2, Size: 3, Mode: 0o4755, UID: 1000, GID: 7,
		Mtime:   image.Time{Sec: -5, Nsec: 1},
		Changed: 1795632368, Stamp: "f 12  2 3 4755 1000 7 -5.0000000010 1795632368.6559114120",
		Text: "f 12 65024 2 3 4755 1000 7 -5.0000000010 1795632368.6559114120 ./a b/ c\n",
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, text := range []string{
		"", "f 1 1 1 1 644 0 0 1.0000000000 1.0000000000", "ff 1 1 1 1 644 0 0 1 1 ./a", "f -1 1 1 1 644 0 0 1 1 ./a",
		"f 1 1 1 1 17777 0 0 1 1 ./a",
		"f 1 1 1 1 644 4294967296 0 1 1 ./a", "f 1 1 1 1 644 0 0 1.5 1 ./a", "f 1 1 1 1 644 0 0 x 1 ./a",
		"f 1 1 1 9223372036854775808 644 0 0 1 1 ./a",
		"f 1 1 1 1 644 0 0 1 1 ./../a", "f 1 1 1 1 644 0 0 1 1 ./" + strings.Repeat("n", 256),
	} {
		if got, err := ParseRecord(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

func FuzzListing(f *testing.F) {
	f.Add([]byte("d 2 65024 3 4096 755 0 0 1.6719114120 1.6719114120 .\x00" +
		"f 1 2 1 5 644 0 0 1.0000000000 1.0000000000 ./a\x00"))
	f.Add([]byte("noise\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readRecords(bufio.NewReader(strings.NewReader(string(b))))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, r := range list {
			if strings.Contains("/"+r.Path+"/", "/../") || strings.HasPrefix(r.Path, "/") {
				t.Errorf("%q leads out", r.Path)
			}
			again.WriteString(r.Text + "\x00")
		}
		if again.String() != string(b) {
			t.Errorf("%q was read as %q", b, again.String())
		}
	})
}

func FuzzLocation(f *testing.F) {
	f.Add("//root@golden:22/srv")
	f.Add("//[::1]/")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseLocation(text)
		if err != nil {
			return
		}
		if strings.HasPrefix(p.Host, "-") || strings.HasPrefix(p.User, "-") || !strings.HasPrefix(p.Dir, "/") {
			t.Errorf("%q is taken for %+v", text, p)
		}
	})
}

func TestTheOutputOfALoginShellIsSkipped(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("Welcome!\r\nmarmar\x00rest"))
	if err := skipTo(r, "mar\x00"); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("what follows is %q", rest)
	}
	if err := skipTo(bufio.NewReader(strings.NewReader(strings.Repeat("x", maxLoginOutput+1)+"mar\x00")),
		"mar\x00"); err == nil {
		t.Error("output without a marker is accepted")
	}
}

func TestALoginShellThatDoesNotRunTheCommandIsReported(t *testing.T) {
	for name, tt := range map[string]struct {
		ssh   string // in the place of ssh
		login time.Duration
		want  string
	}{
		"reads":    {"exec sleep 1000", 100 * time.Millisecond, "has not run a command within 100ms"},
		"execs":    {"exit 0", time.Hour, "has ended without running the command"},
		"prints":   {"exec yes", time.Hour, "prints text and does not run the command"},
		"is no sh": {"echo 'fish: Unknown command' >&2; exit 127", time.Hour, "fish: Unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			testkit.Must(t, os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+tt.ssh+"\n"), 0o755))
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			_, err := open(t.Context(), Location{Host: "golden", Dir: "/"}, "", tt.login)
			e, ok := errors.AsType[*Error](err)
			if !ok || !strings.Contains(e.Text, tt.want) || strings.Contains(e.Text, "login shell") != (e.Hint != "") {
				t.Errorf("got %+v, want %q", err, tt.want)
			}
		})
	}
}

func TestACommandIsOneWordForEveryLoginShell(t *testing.T) {
	const text = `printf '%s\0' "$x" 'it'\''s' \( -path './a\[b\\' \) !` + "\n`$(false)` ~ *"
	quoted := quoteForAll(text)
	inside := false
	for i := 0; i < len(quoted); i++ { // fish and csh give a backslash in quotes a meaning
		switch c := quoted[i]; {
		case c == '\'':
			inside = !inside
		case c == '\\' && inside:
			t.Fatalf("%s has a backslash in quotes, at %d", quoted, i)
		case c == '\\':
			i++
		}
	}
	for _, shell := range []string{"sh", "bash", "busybox sh", "zsh", "fish"} {
		words := strings.Fields(shell)
		if _, err := exec.LookPath(words[0]); err != nil {
			continue
		}
		out, err := exec.Command(words[0], append(words[1:], "-c", "exec printf %s "+quoted)...).CombinedOutput()
		if err != nil || string(out) != text {
			t.Errorf("%s: %v, %q", shell, err, out)
		}
	}
}
