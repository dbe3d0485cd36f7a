package treediff

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dim/internal/image"
)

// trees has trees by digest and counts how many are loaded.
type trees struct {
	all   map[image.Digest]image.Tree
	loads int
}

func (f *trees) load(d image.Digest) (image.Tree, error) {
	f.loads++
	t, ok := f.all[d]
	if !ok {
		return nil, fmt.Errorf("no tree %s", d.Short())
	}
	return t, nil
}

// tree makes a tree of files, path to content, and returns its root.
func (f *trees) tree(files map[string]string) *image.Entry {
	root := f.dir("", files)
	return &root
}

func (f *trees) dir(name string, files map[string]string) image.Entry {
	below := map[string]map[string]string{}
	var t image.Tree
	for p, content := range files {
		first, rest, deeper := strings.Cut(p, "/")
		if deeper {
			if below[first] == nil {
				below[first] = map[string]string{}
			}
			below[first][rest] = content
			continue
		}
		t = append(t, image.Entry{
			Name: p, Type: image.Regular, Size: uint64(len(content)), Digest: image.Sum([]byte(content)), Nlink: 1,
		})
	}
	for sub, files := range below {
		t = append(t, f.dir(sub, files))
	}
	slices.SortFunc(t, func(a, b image.Entry) int { return strings.Compare(a.Name, b.Name) })
	b, err := t.Encode()
	if err != nil {
		panic(err)
	}
	d := image.Sum(b)
	f.all[d] = t
	return image.Entry{Name: name, Type: image.Directory, Digest: d, Nlink: 1}
}

func marks(t *testing.T, load Loader, old, new *image.Entry) []string {
	t.Helper()
	var got []string
	err := Diff(t.Context(), load, old, new, func(c Change) error {
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
	f := &trees{all: map[image.Digest]image.Tree{}}
	old := f.tree(map[string]string{
		"a": "1", "d/x": "1", "d/y": "1", "gone/p/q": "1", "same/a/b": "1", "turn": "1",
	})
	new := f.tree(map[string]string{
		"a": "2", "d/x": "1", "d/z": "1", "made/p/q": "1", "same/a/b": "1", "turn/in": "1",
	})
	f.loads = 0
	got := marks(t, f.load, old, new)
	want := []string{
		"~a", "-d/y", "+d/z", "-gone", "-gone/p", "-gone/p/q", "+made", "+made/p", "+made/p/q", "~turn", "+turn/in",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if f.loads != 9 {
		t.Errorf("%d trees were loaded; the roots, both d, made, made/p, gone, gone/p and turn are 9", f.loads)
	}
	if got := marks(t, f.load, old, old); got != nil {
		t.Errorf("a tree differs from itself: %q", got)
	}
}

func TestDiffYieldsADirectoryWhoseAttributesDiffer(t *testing.T) {
	f := &trees{all: map[image.Digest]image.Tree{}}
	old := f.tree(map[string]string{"a": "1"})
	new := f.tree(map[string]string{"a": "1"})
	new.Mode = 0o700
	if d := cmp.Diff([]string{"~"}, marks(t, f.load, old, new)); d != "" {
		t.Error(d)
	}
}

func TestDiffAgreesWithComparingListings(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &trees{all: map[image.Digest]image.Tree{}}
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
		slices.SortFunc(want, image.ComparePaths)
		var got []string
		err := Diff(t.Context(), f.load, f.tree(a), f.tree(b), func(c Change) error {
			if c.Old != nil && c.Old.Type == image.Regular || c.New != nil && c.New.Type == image.Regular {
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
