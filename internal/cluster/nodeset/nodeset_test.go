package nodeset

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/testkit"
)

func testOptions() Options {
	groups := map[string][]string{"cell": {"n1", "n2"}, "g1": {"a"}, "g2": {"b"}, "*": {"n1", "n2", "n3", "a", "b"}}
	return Options{
		Limit: 10_000,
		Group: func(name string) ([]string, error) {
			if members, ok := groups[name]; ok {
				return members, nil
			}
			return nil, fmt.Errorf("group %q is not defined", name)
		},
		Name: func(name string) ([]string, bool) {
			if name == "rack2" {
				return []string{"n2", "n3"}, true
			}
			return nil, false
		},
	}
}

func TestExpand(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{"  ", ""},
		{"n1", "n1"},
		{"n[1-3]", "n1 n2 n3"},
		{"n[01-03,07]", "n01 n02 n03 n07"},
		{"n[ 1, 3 - 4 ]", "n1 n3 n4"},
		{"n[9-11]", "n9 n10 n11"},
		{"n[1-10/3]", "n1 n4 n7 n10"},
		{"n[3,1]x", "n1x n3x"},
		{"s[01-02]c[1-2]", "s01c1 s01c2 s02c1 s02c2"},
		{"a,b c\n d", "a b c d"},
		{"n[1-4] ! n2", "n1 n3 n4"},
		{"n[1-4]&n[3-9]", "n3 n4"},
		{"n[1-4]^n[3-6]", "n1 n2 n5 n6"},
		{"n1,n[2-3]!n2,n2", "n1 n2 n3"},
		{"n[0-5]&n3^n4", "n3 n4"},
		{"@cell", "n1 n2"},
		{"@g[1-2]", "a b"},
		{"@*!@cell", "a b n3"},
		{"rack2", "n2 n3"},
		{"rack2&@cell", "n2"},
		{"[1-2]n", "1n 2n"},
	}
	for _, tt := range tests {
		got, err := Expand(tt.text, testOptions())
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("Expand(%q): got %q, want %q", tt.text, s, tt.want)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	tests := []struct {
		text   string
		offset int
		want   string
	}{
		{"n[1-3", 1, "without"},
		{"n1]", 2, "without"},
		{"n[]", 2, "missing"},
		{"n[1-]", 2, "missing"},
		{"n[a-b]", 2, "not a number"},
		{"n[-5]", 2, "not negative"},
		{"n2[8-12]", 3, "two meanings: write n2[8-9,10-12] or n[28-212]"},
		{"n02[1-3,98-1020]", 8, "two meanings: write n02[98-99,100-999,1000-1020]"},
		{"n[1-2]x2[9-10]", 9, "two meanings: write x2[9,10] or x[29-210]"},
		{"@g2[8-12]", 4, "two meanings"},
		{"n[5-3]", 2, "backwards"},
		{"n[1-2,3/0]", 6, "step 0"},
		{"n[8-011]", 2, "widths"},
		{"n[01-100]", 2, "widths"},
		{"n[1-2][3-4]", 6, "directly after"},
		{"n1,,n2", 3, "name is missing"},
		{",n1", 0, "name is missing"},
		{"n1!", 3, "name is missing"},
		{"@", 0, "name is missing"},
		{"n*", 1, "wild"},
		{"n1;n2", 2, "unexpected"},
		{"@none", 0, "not defined"},
		{"n[1-99999]", 2, "more than"},
		{"n[1-999999999]", 2, "more than"},
		{"n[1-9999999999]", 2, "digits"},
		{"a[0-999]b[0-999]c[0-999]d[0-999]e[0-999]f[0-999]", 0, "more than"},
		{"n[1-9000],n[1-9000]", 12, "more than"},
	}
	for _, tt := range tests {
		_, err := Expand(tt.text, testOptions())
		var se *SyntaxError
		if !errors.As(err, &se) {
			t.Errorf("Expand(%q): got error %v, want a SyntaxError", tt.text, err)
			continue
		}
		if se.Offset != tt.offset || !strings.Contains(se.Reason, tt.want) {
			t.Errorf("Expand(%q): got byte %d, %q, want byte %d and %q", tt.text, se.Offset, se.Reason, tt.offset,
				tt.want)
		}
	}
}

func TestFold(t *testing.T) {
	tests := []struct{ names, want string }{
		{"", ""},
		{"n1", "n1"},
		{"n1 n1", "n1"},
		{"n3 n1 n2", "n[1-3]"},
		{"n9 n10 n11", "n[9-11]"},
		{"n09 n10 n7", "n[7,09-10]"},
		{"n01 n02 n04", "n[01-02,04]"},
		{"head is01 is02", "head,is[01-02]"},
		{"s1c1 s1c2 s2c1 s2c2 s3c1", "s[1-2]c[1-2],s3c1"},
		{"n12345678901 n12345678902", "n12345678901,n12345678902"},
	}
	for _, tt := range tests {
		if got := Fold(strings.Fields(tt.names)); got != tt.want {
			t.Errorf("Fold(%q): got %q, want %q", tt.names, got, tt.want)
		}
	}
}

func TestFoldOfAWholeClusterIsOneRange(t *testing.T) {
	text := "s[01-31]c[1-6]b[01-14]"
	names, err := Expand(text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := Fold(names); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

// clusterShell is a Python program that reads sets from standard input, one a line. For each it prints the names, or
// "!" for an error, and the folded form.
const clusterShell = `
import sys
from ClusterShell.NodeSet import NodeSet
for line in sys.stdin:
    try:
        s = NodeSet(line.strip())
        print(" ".join(s) + "\t" + str(s))
    except Exception:
        print("!\t")
`

func askClusterShell(t *testing.T, texts []string) (answers [][2]string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", clusterShell)
	cmd.Stdin = strings.NewReader(strings.Join(texts, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("Python's ClusterShell (package clustershell) is not installed: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		names, folded, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		answers = append(answers, [2]string{names, folded})
	}
	if len(answers) != len(texts) {
		t.Fatalf("ClusterShell gave %d answers to %d questions", len(answers), len(texts))
	}
	return answers
}

// ours reports whether a set has its own rule here: see the differences in the package comment.
func ours(err error, theirs string) bool {
	if err == nil {
		return theirs == "!" // numbers between ranges; the comparison of names finds what else differs
	}
	return slices.ContainsFunc([]string{"two meanings", "not negative", "unexpected"}, func(text string) bool {
		return strings.Contains(err.Error(), text)
	})
}

// severalWidths reports whether a set has numbers of several widths after a digit, such as n1[9,10]. ClusterShell reads
// that as n[19-110].
func severalWidths(text string) bool {
	for _, m := range regexp.MustCompile(`\d\[([^]]*)\]`).FindAllStringSubmatch(text, -1) {
		widths := map[int]bool{}
		for _, part := range strings.Split(m[1], ",") {
			bounds, _, _ := strings.Cut(part, "/")
			for _, number := range strings.Split(bounds, "-") {
				widths[len(number)] = true
			}
		}
		if len(widths) > 1 {
			return true
		}
	}
	return false
}

// compareWithClusterShell compares Expand with Debian's ClusterShell, and lets ClusterShell parse the output of Fold
// and of FoldLast. The test is skipped if ClusterShell is not installed. It returns how many sets have rules of their
// own.
func compareWithClusterShell(t *testing.T, texts []string) (differ int) {
	t.Helper()
	var sets, folds []string
	for i, answer := range askClusterShell(t, texts) {
		names, err := Expand(texts[i], Options{Limit: 20_000})
		if (err != nil) != (answer[0] == "!") {
			if !ours(err, answer[0]) {
				t.Errorf("%q: our error %v, their answer %.200q", texts[i], err, answer[0])
			}
			differ++
			continue
		}
		theirs := strings.Fields(answer[0])
		slices.SortFunc(theirs, compareNames)
		if severalWidths(texts[i]) {
			differ++
		} else if d := cmp.Diff(theirs, append([]string{}, names...)); err == nil && d != "" {
			t.Errorf("%q: theirs -, ours +\n%s", texts[i], d)
		}
		if folded := Fold(names); folded != "" {
			if len(folded) > 2*len(answer[1]) {
				t.Errorf("fold: ours is %q, theirs %q", folded, answer[1])
			}
			sets, folds = append(sets, strings.Join(names, " ")), append(folds, folded)
			sets, folds = append(sets, strings.Join(names, " ")), append(folds, FoldLast(names))
		}
	}
	for i, answer := range askClusterShell(t, folds) {
		back := strings.Fields(answer[0])
		slices.SortFunc(back, compareNames)
		if d := cmp.Diff(sets[i], strings.Join(back, " ")); d != "" {
			t.Errorf("%q: names -, read back +\n%s", folds[i], d)
		}
	}
	return differ
}

func TestAgreesWithClusterShell(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var texts []string
	for range 3000 {
		texts = append(texts, randomSet(r))
	}
	if differ := compareWithClusterShell(t, texts); differ == 0 || differ > len(texts)/2 {
		t.Errorf("%d of %d sets have rules of their own", differ, len(texts))
	}
}

// Sets as they are in ClusterShell's documentation, and their edges.
func TestAgreesWithClusterShellOnKnownSets(t *testing.T) {
	compareWithClusterShell(t, []string{
		"prod-2[10-320]", "prod-1[10-345]", "prod-02[10-20]", "prod-02[10-34,069-099]", "prod-000[0-8/2]", "n0[8-12]",
		"n0[08-12]", "n2[8-12/2]", "nova16[1-4]56c", "x22[0-1]0y03[0-1]0-ipmi", "0[3,6,9]1abc16[1-4]56d",
		"[01230-01239,01300]L6", "3,5,[7-10,40]", "1-5", "n[9-10,07]", "n[01-100]", "n[8-011]", "n[3-1]", "n[1-3/5]",
		"n[ 1 - 3 / 2 , 7]", "n1 , n2", "n1 !n2", "n1,", ",n1", "n1,,n2", "!n1", "n1!", "n[]", "n[", "n]", "n[[1]]",
		"n[1-2][3-4]", "n[-5]", "n[-1-0]", "n[1.5]", "12[3-4]5[6-7]8", "cluster%s3",
		"a[0-2]b[1-3]c[4],a[0-1]b[2-3]c[4-5]^a1b2c4", "da[2-3]c[1-2]p3,da[3-4]c[1-3]p3!da3c[1-2]p3",
	})
}

func randomSet(r *rand.Rand) string {
	number := func() string { return fmt.Sprintf([]string{"%d", "%02d"}[r.IntN(2)], r.IntN(14)) }
	part := func() string {
		lo := r.IntN(12)
		hi := lo + r.IntN(12)
		switch r.IntN(4) {
		case 0:
			return number()
		case 1:
			return fmt.Sprintf("%d-%d", lo, hi)
		case 2:
			return fmt.Sprintf("%d-%d/%d", lo, hi, 1+r.IntN(3))
		}
		return fmt.Sprintf("%02d-%02d", lo, hi)
	}
	bracket := func() string { return "[" + part() + "," + part() + "]" }
	digit := func() string { return []string{"", "", "", "0", "2", "10"}[r.IntN(6)] }
	space := func() string { return []string{"", "", "", " "}[r.IntN(4)] }
	var b strings.Builder
	for i := range 1 + r.IntN(4) {
		if i > 0 {
			b.WriteString(space() + []string{",", "!", "&", "^", ","}[r.IntN(5)] + space())
		}
		switch r.IntN(4) {
		case 0:
			b.WriteString("n" + number())
		case 1:
			b.WriteString("n" + digit() + bracket() + digit())
		case 2:
			b.WriteString("s" + bracket() + digit() + "c" + bracket())
		case 3:
			b.WriteString("n" + digit() + "[" + part() + "]-ib" + digit())
		}
	}
	return b.String()
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{
		"n[01-04,07]", "s[1-2]c[1-6]b[01-14]", "@cell!n1", "a ^ b&c", "n[1-9/2]x[00-09]", "n[", "@*", "[1]", "rack2",
		"0[0-9]0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := Expand(text, testOptions())
		if err != nil {
			return
		}
		again, err := Expand(Fold(names), Options{})
		if err != nil {
			t.Fatalf("fold of %q is %q: %v", text, Fold(names), err)
		}
		if d := cmp.Diff(names, again); d != "" {
			t.Fatalf("fold of %q: %s", text, d)
		}
	})
}

func TestFoldLastFoldsTheLastNumberOnly(t *testing.T) {
	for names, want := range map[string]string{
		"":                             "",
		"n1 n2 n3":                     "n[1-3]",
		"s1c1 s1c2 s2c1 s2c2":          "s1c[1-2],s2c[1-2]",
		"s01c1b01 s02c1b01 s03c1b01":   "s01c1b01,s02c1b01,s03c1b01",
		"n1-ib n2-ib n3":               "n3,n1-ib,n2-ib",
		"login n1 n2 n01 n02 r2c2 r3c": "login,n[1-2,01-02],r3c,r2c2",
	} {
		if got := FoldLast(strings.Fields(names)); got != want {
			t.Errorf("FoldLast(%q): got %q, want %q", names, got, want)
		}
	}
}

// Slurm's own program reads what FoldLast writes.
func TestScontrolReadsFoldLast(t *testing.T) {
	testkit.NeedProgram(t, "scontrol")
	conf := filepath.Join(t.TempDir(), "slurm.conf") // scontrol does not start without one
	testkit.Must(t, os.WriteFile(conf, []byte("ClusterName=x\nSlurmctldHost=localhost\n"), 0o600))
	t.Setenv("SLURM_CONF", conf)
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var names []string
		for range 1 + r.IntN(12) {
			names = append(names, fmt.Sprintf("s%02dc%d%s", r.IntN(4), r.IntN(4), []string{"", "b1", "-ib"}[r.IntN(3)]))
		}
		slices.Sort(names)
		names = slices.Compact(names)
		set := FoldLast(names)
		out, err := exec.Command("scontrol", "show", "hostnames", set).CombinedOutput()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil || !slices.Equal(got, names) {
			t.Fatalf("%s: %v: got %q, want %q", set, err, got, names)
		}
	}
}
