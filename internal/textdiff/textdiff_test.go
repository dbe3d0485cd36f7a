package textdiff

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// patched applies a difference with git apply. ok is false if git is not installed.
func patched(t *testing.T, a, diff string) (text string, ok bool) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		return "", false
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(a), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "apply", "-p1", "--unidiff-zero", "-")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(diff)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git apply: %v %s\n%s", err, out, diff)
	}
	b, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), true
}

func TestUnified(t *testing.T) {
	const old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n"
	for _, c := range []struct{ name, a, b, want string }{
		{"equal", "a\n", "a\n", ""},
		{
			"a line", old, strings.Replace(old, "7\n", "seven\n", 1),
			"@@ -4,7 +4,7 @@\n 4\n 5\n 6\n-7\n+seven\n 8\n 9\n 10\n",
		},
		{
			"two places", old, strings.NewReplacer("1\n2\n", "2\n", "14\n", "14\n15\n").Replace(old),
			"@@ -1,4 +1,3 @@\n-1\n 2\n 3\n 4\n@@ -12,3 +11,4 @@\n 12\n 13\n 14\n+15\n",
		},
		{"from nothing", "", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"to nothing", "a\n", "", "@@ -1 +0,0 @@\n-a\n"},
		{"no newline", "a\nb", "a\nb\n", "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n"},
	} {
		want := c.want
		if want != "" {
			want = "--- a/f\n+++ b/f\n" + want
		}
		if got := Unified("a/f", "b/f", []byte(c.a), []byte(c.b)); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

func TestGitAppliesDifferences(t *testing.T) {
	text := func(r *rand.Rand, n int) string {
		var b strings.Builder
		for range r.IntN(n) {
			b.WriteString(string(rune('a'+r.IntN(4))) + "\n")
		}
		if r.IntN(4) == 0 {
			b.WriteString("end")
		}
		return b.String()
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		a, b := text(r, 60), text(r, 60)
		diff := Unified("a/f", "b/f", []byte(a), []byte(b))
		if a == b || a == "" || b == "" { // git has another form for files that are created or removed
			continue
		}
		got, ok := patched(t, a, diff)
		if !ok {
			t.Skip("git is not installed")
		}
		if got != b {
			t.Fatalf("seed %d: %q to %q: got %q by\n%s", seed, a, b, got, diff)
		}
	}
}

func TestTextsWithNothingInCommon(t *testing.T) {
	a, b := strings.Repeat("a\n", 5000), strings.Repeat("b\n", 5000)
	got := Unified("a", "b", []byte(a), []byte(b))
	if strings.Count(got, "\n-a") != 5000 || strings.Count(got, "\n+b") != 5000 {
		t.Errorf("%d characters", len(got))
	}
	if Text([]byte("a\x00")) || Text([]byte("\xff")) || !Text([]byte("ä\n")) {
		t.Error("Text is wrong")
	}
}

func FuzzUnified(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("b\nc"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if (Unified("a", "b", a, b) == "") != (string(a) == string(b)) {
			t.Error("equal texts differ, or different ones do not")
		}
	})
}
