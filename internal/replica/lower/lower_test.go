package lower

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/image"
	"dim/internal/vfs"
)

// trees is a store of trees.
type trees map[image.Digest]image.Tree

func (s trees) load(d image.Digest, room image.Tree) (image.Tree, error) {
	t, ok := s[d]
	if !ok {
		return nil, errors.New("no such tree")
	}
	return append(room[:0], t...), nil
}

func (s trees) put(t image.Tree) image.Digest {
	enc, err := t.Encode()
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
		top = append(top, image.Entry{
			Name: fmt.Sprintf("d%03d", i), Type: image.Directory, Mode: 0o755, Digest: s.put(image.Tree{
				{Name: "a", Type: image.Regular, Size: 4, Digest: image.Sum([]byte(text)), Nlink: 2, Link: link},
				{Name: "b", Type: image.Regular, Size: 4, Digest: image.Sum([]byte(text)), Nlink: 2, Link: link},
				{
					Name: "c", Type: image.Symlink, Mode: 0o777, Target: "to/" + text, Nlink: 1,
					Xattrs: []image.Xattr{{Name: "user.x", Value: []byte("y")}},
				},
				{Name: "d", Type: image.CharDevice, Major: 5, Minor: uint32(i), Nlink: 1},
				{Name: "e", Type: image.Directory, Digest: s.put(nil)},
				{Name: "f", Type: image.Regular, Size: 1 << 20, Digest: image.Sum([]byte("f")), Nlink: 1,
					Mtime: image.Time{Sec: 1 << 40, Nsec: 1},
					Data:  []image.Extent{{Offset: 4096, Length: uint64(1 + i)}}},
			})})
	}
	root := image.Entry{Type: image.Directory, Mode: 0o755, Digest: s.put(top)}
	return image.Version{Image: "i", Number: 1, Files: uint64(7 * dirs), Root: root}
}

// describe lists everything in an index, by path.
func describe(x *Index) map[string]string {
	all := make(map[string]string)
	for r := Root; int(r) < x.Len(); r++ {
		var a vfs.Attr
		x.Attr(r, &a)
		data, sparse := x.Data(r)
		line := fmt.Sprint(a, x.Xattrs(r), len(x.Names(r)), data, sparse)
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
	if x.Len() != 701 {
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

func TestAnIndexLoadedOnTopOfAnotherIsTheSame(t *testing.T) {
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
	load := func(d image.Digest, room image.Tree) (image.Tree, error) {
		reads++
		return s.load(d, room)
	}
	on, err := Load(next, load, base)
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

// An index has for each entry what the tree has, also at the limits of what a row can hold.
func TestAnIndexHasWhatTheTreeHas(t *testing.T) {
	tree := image.Tree{
		{Name: "a", Type: image.Regular, Mode: 0o4755, UID: 1, GID: 2, Size: 5,
			Mtime: image.Time{Sec: 1700000000, Nsec: 999999999}},
		{Name: "b", Type: image.Regular, Size: 1, Mode: 0o4755, UID: 1, GID: 2,
			Mtime: image.Time{Sec: -1, Nsec: 999999999}},
		{Name: "c", Type: image.Regular, Size: 1, UID: 1 << 31, Nlink: 9, Link: "c",
			Mtime: image.Time{Sec: math.MinInt64}},
		{Name: "d", Type: image.Regular, Size: 1, Mtime: image.Time{Sec: math.MaxInt64, Nsec: 7}},
		{Name: "e", Type: image.Regular, Size: 1, Mtime: image.Time{Sec: int64(math.MaxInt64) / 1e9, Nsec: 999999999}},
		{Name: "f", Type: image.Regular, Size: 1, Mtime: image.Time{Sec: -int64(math.MaxInt64) / 1e9, Nsec: 1}},
		{Name: "g", Type: image.FIFO, Mode: 0o600, Xattrs: []image.Xattr{{Name: "user.a", Value: []byte("b")}}},
		{Name: "h", Type: image.FIFO, Mode: 0o600, Xattrs: []image.Xattr{{Name: "user.a", Value: []byte("c")}}},
		{Name: "i", Type: image.FIFO, Mode: 0o600, Xattrs: []image.Xattr{{Name: "user.ab", Value: nil}}},
		{Name: "j", Type: image.FIFO, Mode: 0o600},
		{Name: "k", Type: image.Regular, Size: 9000,
			Xattrs: []image.Xattr{{Name: "user.a", Value: []byte("b")}},
			Data:   []image.Extent{{Offset: 8192, Length: 1}}},
	}
	s := trees{}
	sub := image.Entry{Name: "sub", Type: image.Directory, Digest: s.put(tree)}
	fresh := s.index(t, nil, sub)
	copied := s.index(t, fresh, sub, image.Entry{Name: "z", Type: image.FIFO})
	for name, x := range map[string]*Index{"fresh": fresh, "copied": copied} {
		for _, e := range tree {
			r, ok := x.Find("sub/" + e.Name)
			if !ok {
				t.Fatalf("%s: %s is not found", name, e.Name)
			}
			var a vfs.Attr
			x.Attr(r, &a)
			data, sparse := x.Data(r)
			got := image.Entry{
				Name: x.Name(r), Type: x.Type(r), Mode: a.Mode, UID: a.UID, GID: a.GID, Size: a.Size,
				Mtime: image.Time(a.Mtime),
				Link:  e.Link, Nlink: a.Nlink, Data: data, Xattrs: x.Xattrs(r),
			}
			e.Nlink = max(e.Nlink, 1)
			diff := cmp.Diff(e, got, cmpopts.EquateEmpty())
			if diff != "" || a.Atime != a.Mtime || sparse != (e.Data != nil) {
				t.Errorf("%s: %s\n%s", name, e.Name, diff)
			}
		}
	}
}

// index makes an index of a version whose root has the given entries and that does not say how many there are. The
// memory that trees were loaded into is spoiled afterwards.
func (s trees) index(t *testing.T, base *Index, entries ...image.Entry) *Index {
	t.Helper()
	var room image.Tree
	load := func(d image.Digest, r image.Tree) (image.Tree, error) {
		tree, err := s.load(d, r)
		for i := range tree {
			tree[i].Xattrs, tree[i].Data = slices.Clone(tree[i].Xattrs), slices.Clone(tree[i].Data)
			for k := range tree[i].Xattrs {
				tree[i].Xattrs[k].Value = slices.Clone(tree[i].Xattrs[k].Value)
			}
		}
		room = tree
		return tree, err
	}
	x, err := Load(image.Version{Root: image.Entry{Type: image.Directory, Digest: s.put(entries)}}, load, base)
	if err != nil {
		t.Fatal(err)
	}
	for i := range room {
		for _, x := range room[i].Xattrs {
			clear(x.Value)
		}
		clear(room[i].Data)
	}
	clear(room)
	return x
}

// Names whose hashes are equal in the bits that a row holds are told apart, and a listing that begins between
// them starts at the right one.
func TestNamesWithSimilarHashes(t *testing.T) {
	short := make(map[uint32]string)
	var pair []string
	for i := 0; len(pair) == 0; i++ {
		name := fmt.Sprint(i)
		if other, ok := short[upper(Hash(name))]; ok && Hash(other) != Hash(name) {
			pair = []string{other, name}
		}
		short[upper(Hash(name))] = name
	}
	slices.Sort(pair)
	s := trees{}
	x := s.index(t, nil, image.Entry{Name: pair[0], Type: image.FIFO}, image.Entry{Name: pair[1], Type: image.FIFO})
	for _, name := range pair {
		r, ok := x.Find(name)
		if !ok || x.Name(r) != name {
			t.Errorf("%s: found %d, %v", name, r, ok)
		}
		if at := x.Seek(Root, Hash(name)); at != r {
			t.Errorf("%s: a listing from its hash begins at %d, want %d", name, at, r)
		}
		if at := x.Seek(Root, Hash(name)+1); at != r+1 {
			t.Errorf("%s: a listing from behind its hash begins at %d, want %d", name, at, r+1)
		}
	}
}

// The tables grow if there are more names than the version says.
func TestAnIndexGrows(t *testing.T) {
	s := trees{}
	var all image.Tree
	for i := range 1000 {
		all = append(all, image.Entry{Name: fmt.Sprintf("name%d", 1000+i), Type: image.FIFO})
	}
	x := s.index(t, nil, append(all, image.Entry{Name: "sub", Type: image.Directory, Digest: s.put(all)})...)
	for _, e := range all {
		for _, path := range []string{e.Name, "sub/" + e.Name} {
			if r, ok := x.Find(path); !ok || x.Path(r) != path {
				t.Errorf("%s: found %d, %v", path, r, ok)
			}
		}
	}
	if want := 4 + 1000*9; len(x.text) > want+1 {
		t.Errorf("the names take %d bytes, want %d: each is kept once", len(x.text), want)
	}
}

func TestLoadReportsAMissingTree(t *testing.T) {
	s := trees{}
	v := s.sample(3, "text")
	delete(s, v.Root.Digest)
	if _, err := Load(v, s.load, nil); err == nil {
		t.Error("no error")
	}
}

func TestADirectoryWhoseTreeIsMissingIsLostAlone(t *testing.T) {
	s := trees{}
	v := s.sample(3, "text")
	whole, err := Load(v, s.load, nil)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := whole.Find("d001")
	digest := *whole.Digest(at)
	kept := s[digest]
	delete(s, digest)
	x, err := Load(v, s.load, nil)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := x.Find("d001")
	if !ok || !x.Lost(at) || x.Lost(Root) {
		t.Errorf("d001: there %v, lost %v; root lost %v", ok, x.Lost(at), x.Lost(Root))
	}
	if _, ok := x.Find("d002/e"); !ok {
		t.Error("d002/e is not found")
	}
	if err := x.Damage(); err == nil || !strings.Contains(err.Error(), "what is in /d001 is lost: no such tree") {
		t.Errorf("damage: %v", err)
	}
	s[digest] = kept
	again, err := Load(v, s.load, x)
	if err != nil || again.Damage() != nil {
		t.Errorf("after a repair: %v, %v", err, again.Damage())
	}
	if _, ok := again.Find("d001/a"); !ok {
		t.Error("d001/a is not found after a repair")
	}
	if _, err := Load(v, func(d image.Digest, room image.Tree) (image.Tree, error) {
		if d == digest {
			return nil, syscall.EMFILE
		}
		return s.load(d, room)
	}, nil); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("too many open files: %v", err)
	}
}

// Nodes keep cookies with these hashes: the values must never change.
func TestHashNeverChanges(t *testing.T) {
	for name, want := range map[string]uint64{
		"a": 0x3b605c3786466800, "hostname": 0x1dabb3994056dd00, "": 0x3b2e8f7cb0ce0f00,
	} {
		if got := Hash(name); got != want || got%Spread != 0 || got < Spread || got>>62 != 0 {
			t.Errorf("Hash(%q) = %#x, want %#x", name, got, want)
		}
	}
}
