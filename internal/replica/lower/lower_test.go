package lower

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/vfs"
)

// trees is a store of trees.
type trees map[image.Digest]image.Tree

func (s trees) load(d image.Digest) (image.Tree, error) {
	t, ok := s[d]
	if !ok {
		return nil, errors.New("no such tree")
	}
	return t, nil
}

func (s trees) put(t image.Tree) image.Digest {
	enc, err := image.EncodeTree(t)
	if err != nil {
		panic(err)
	}
	d := image.Sum(enc)
	s[d] = t
	return d
}

// sample makes a version with dirs directories; the file in one of them has the given content.
func (s trees) sample(dirs int, content string) image.Version {
	var top image.Tree
	for i := range dirs {
		text := "same"
		if i == dirs/2 {
			text = content
		}
		link := fmt.Sprintf("d%03d/a", i)
		top = append(top, image.Entry{Name: fmt.Sprintf("d%03d", i), Type: image.Directory, Mode: 0o755, Digest: s.put(image.Tree{
			{Name: "a", Type: image.Regular, Size: 4, Digest: image.Sum([]byte(text)), Nlink: 2, Link: link},
			{Name: "b", Type: image.Regular, Size: 4, Digest: image.Sum([]byte(text)), Nlink: 2, Link: link},
			{Name: "c", Type: image.Symlink, Mode: 0o777, Target: "to/" + text, Nlink: 1, Xattrs: []image.Xattr{{Name: "user.x", Value: []byte("y")}}},
			{Name: "d", Type: image.CharDevice, Major: 5, Minor: uint32(i), Nlink: 1},
			{Name: "e", Type: image.Directory, Digest: s.put(nil)},
		})})
	}
	return image.Version{Image: "i", Number: 1, Files: uint64(6 * dirs), Root: image.Entry{Type: image.Directory, Mode: 0o755, Digest: s.put(top)}}
}

// describe lists all that an index knows, by path.
func describe(x *Index) map[string]string {
	all := make(map[string]string)
	for r := Root; int(r) < x.Len(); r++ {
		var a vfs.Attr
		x.Attr(r, &a)
		line := fmt.Sprint(a, x.Xattrs(r), len(x.Names(r)))
		switch x.Type(r) {
		case image.Symlink:
			line += x.Target(r)
		case image.Regular, image.Directory:
			line += x.Digest(r).String()
		}
		all[x.Path(r)] = line
	}
	return all
}

func TestAnIndexFindsEveryEntryByPathAndID(t *testing.T) {
	s := trees{}
	x, err := Load(s.sample(100, "text"), s.load, nil)
	if err != nil {
		t.Fatal(err)
	}
	if x.Len() != 601 {
		t.Errorf("%d entries", x.Len())
	}
	for r := Root; int(r) < x.Len(); r++ {
		path := x.Path(r)
		if got, ok := x.Find(path); !ok || got != r {
			t.Errorf("find %q: %d, %v; want %d", path, got, ok, r)
		}
		got, ok := x.ByID(x.ID(r))
		if !ok || x.ID(got) != x.ID(r) || got != r && len(x.Names(r)) != 2 {
			t.Errorf("%q by its id: %d, %v", path, got, ok)
		}
	}
	for _, path := range []string{"none", "d001/none", "d001/a/b"} {
		if r, ok := x.Find(path); ok {
			t.Errorf("find %q: %d", path, r)
		}
	}
	if _, ok := x.ByID(12345); ok {
		t.Error("an id that is not there is found")
	}
}

func TestAnIndexMadeOnTopOfANeighbourIsTheSame(t *testing.T) {
	s := trees{}
	base, err := Load(s.sample(100, "text"), s.load, nil)
	if err != nil {
		t.Fatal(err)
	}
	next := s.sample(101, "else")
	fresh, err := Load(next, s.load, nil)
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	on, err := Load(next, func(d image.Digest) (image.Tree, error) { reads++; return s.load(d) }, base)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(describe(fresh), describe(on)); diff != "" {
		t.Error(diff)
	}
	if reads > 6 { // the root, the two that differ, the new one and what is in it
		t.Errorf("%d trees were read", reads)
	}
}

func TestLoadTellsOfAMissingTree(t *testing.T) {
	s := trees{}
	v := s.sample(3, "text")
	delete(s, v.Root.Digest)
	if _, err := Load(v, s.load, nil); err == nil {
		t.Error("no error")
	}
}

// The hash is part of what nodes remember: these values must never change.
func TestHashIsWhatItAlwaysWas(t *testing.T) {
	for name, want := range map[string]uint64{"a": 0x3b605c3786466800, "hostname": 0x1dabb3994056dd00, "": 0x3b2e8f7cb0ce0f00} {
		if got := Hash(name); got != want || got%Spread != 0 || got < Spread || got>>62 != 0 {
			t.Errorf("Hash(%q) = %#x, want %#x", name, got, want)
		}
	}
}
