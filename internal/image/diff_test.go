package image

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// trees has trees by digest and counts how many are loaded.
type trees struct {
	all   map[Digest]Tree
	loads int
}

func (f *trees) load(d Digest) (Tree, error) {
	f.loads++
	t, ok := f.all[d]
	if !ok {
		return nil, fmt.Errorf("no tree %s", d.Short())
	}
	return t, nil
}

// tree makes a tree of files, path to content, and returns its root.
func (f *trees) tree(files map[string]string) *Entry {
	root := f.dir("", files)
	return &root
}

func (f *trees) dir(name string, files map[string]string) Entry {
	below := map[string]map[string]string{}
	var t Tree
	for p, content := range files {
		first, rest, deeper := strings.Cut(p, "/")
		if deeper {
			if below[first] == nil {
				below[first] = map[string]string{}
			}
			below[first][rest] = content
			continue
		}
		t = append(t, Entry{Name: p, Type: Regular, Size: uint64(len(content)), Digest: Sum([]byte(content)), Nlink: 1})
	}
	for sub, files := range below {
		t = append(t, f.dir(sub, files))
	}
	slices.SortFunc(t, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	b, err := EncodeTree(t)
	if err != nil {
		panic(err)
	}
	d := Sum(b)
	f.all[d] = t
	return Entry{Name: name, Type: Directory, Digest: d, Nlink: 1}
}

func marks(t *testing.T, d *Differ, old, new *Entry) []string {
	t.Helper()
	var got []string
	err := d.Diff(t.Context(), old, new, func(c Change) error {
		mark := "~"
		if c.Old == nil {
			mark = "+"
		} else if c.New == nil {
			mark = "-"
		}
		got = append(got, mark+c.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDiffYieldsDifferencesInWalkOrder(t *testing.T) {
	f := &trees{all: map[Digest]Tree{}}
	old := f.tree(map[string]string{
		"a": "1", "d/x": "1", "d/y": "1", "gone/p/q": "1", "same/a/b": "1", "turn": "1",
	})
	new := f.tree(map[string]string{
		"a": "2", "d/x": "1", "d/z": "1", "made/p/q": "1", "same/a/b": "1", "turn/in": "1",
	})
	f.loads = 0
	got := marks(t, &Differ{Load: f.load}, old, new)
	want := []string{
		"~a", "-d/y", "+d/z", "-gone", "-gone/p", "-gone/p/q", "+made", "+made/p", "+made/p/q", "~turn", "+turn/in",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if f.loads != 9 {
		t.Errorf("%d trees were loaded; the roots, both d, made, made/p, gone, gone/p and turn are 9", f.loads)
	}
	got = marks(t, &Differ{Load: f.load, Subtrees: Tops}, old, new)
	if d := cmp.Diff([]string{"~a", "-d/y", "+d/z", "-gone", "+made", "~turn"}, got); d != "" {
		t.Error(d)
	}
	if got := marks(t, &Differ{Load: f.load}, old, old); got != nil {
		t.Errorf("a tree differs from itself: %q", got)
	}
}

func TestDiffYieldsADirectoryWhoseAttributesDiffer(t *testing.T) {
	f := &trees{all: map[Digest]Tree{}}
	old := f.tree(map[string]string{"a": "1"})
	new := f.tree(map[string]string{"a": "1"})
	new.Mode = 0o700
	if d := cmp.Diff([]string{"~"}, marks(t, &Differ{Load: f.load}, old, new)); d != "" {
		t.Error(d)
	}
}

func TestDiffAgreesWithComparingListings(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &trees{all: map[Digest]Tree{}}
		files := rapid.MapOf(rapid.StringMatching(`x[ab](/y[ab](/z[ab])?)?`), rapid.StringMatching(`[12]`))
		clean := func(m map[string]string) map[string]string {
			for p := range m { // no file below a file
				for q := range m {
					if strings.HasPrefix(q, p+"/") {
						delete(m, q)
					}
				}
			}
			return m
		}
		a, b := clean(files.Draw(rt, "old")), clean(files.Draw(rt, "new"))
		var want []string
		for p := range a {
			if a[p] != b[p] {
				want = append(want, p)
			}
		}
		for p := range b {
			if _, ok := a[p]; !ok {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, ComparePaths)
		var got []string
		d := Differ{Load: f.load}
		err := d.Diff(t.Context(), f.tree(a), f.tree(b), func(c Change) error {
			if c.Old != nil && c.Old.Type == Regular || c.New != nil && c.New.Type == Regular {
				got = append(got, c.Path)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatal(d)
		}
	})
}

func TestAMatcherAgreesWithCover(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "b", "ab", "*", "**", "a*", "?", "[ab]"})
		var ps Patterns
		for _, parts := range rapid.SliceOfN(rapid.SliceOfN(part, 1, 4), 0, 4).Draw(rt, "patterns") {
			p, err := ParsePattern("/" + strings.Join(parts, "/"))
			if err != nil {
				rt.Fatal(err)
			}
			ps = append(ps, p)
		}
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "c"}), 1, 5).Draw(rt, "names")
		m := ps.Matcher()
		for i, name := range names {
			covered := m.Covers(name)
			if want := ps.Cover(strings.Join(names[:i+1], "/")); covered != want {
				rt.Fatalf("%q and %q: the matcher says %v, Cover %v", ps, names[:i+1], covered, want)
			}
			if covered {
				return // a walk does not enter it
			}
			m = m.Enter(name)
		}
	})
}

func TestAMatcherIsIdleWhereNothingCanMatch(t *testing.T) {
	p, err := ParsePattern("/var/tmp/*")
	if err != nil {
		t.Fatal(err)
	}
	m := Patterns{p}.Matcher()
	if m.Idle() || m.Everything() {
		t.Error("the root is not idle, nor is everything covered")
	}
	if !m.Enter("usr").Idle() {
		t.Error("/usr is idle")
	}
	if !m.Enter("var").Enter("tmp").Everything() {
		t.Error("everything in /var/tmp is covered")
	}
}
