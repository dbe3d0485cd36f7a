package recordmerge

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// text joins lines, each with its end.
func text(lines ...string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

const (
	rootLine = "root:x:0:0:root:/root:/bin/bash"
	nodeUser = "localuser:x:1000:1000::/home/localuser:/bin/sh"
	alice    = "alice:x:1000:1000::/home/alice:/bin/bash"
)

func TestMerge(t *testing.T) {
	for _, tt := range slices.Concat(accountCases(), otherCases()) {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Merge(tt.format, Files{Old: []byte(tt.old), Own: []byte(tt.own), New: []byte(tt.new)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(r.Content)); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
			var got []string
			for _, c := range r.Conflicts {
				got = append(got, c.String())
			}
			if !slices.Equal(tt.conflicts, got) {
				t.Errorf("conflicts %q, want %q", got, tt.conflicts)
			}
		})
	}
}

// Of a package that is the node's as a whole, the record is as on the node, or missing as there.
func TestRecordsThatStayTheNodes(t *testing.T) {
	pkg := func(name, version string) string { return "Package: " + name + "\nVersion: " + version + "\n\n" }
	in := Files{
		Old:  []byte(pkg("dropped", "1") + pkg("other", "1") + pkg("removed", "1") + pkg("tool", "1")),
		Own:  []byte(pkg("dropped", "2") + pkg("other", "2") + pkg("tool", "2")),
		New:  []byte(pkg("other", "3") + pkg("removed", "3") + pkg("tool", "3")),
		Mine: []string{"dropped", "removed", "tool"},
	}
	want := pkg("dropped", "2") + pkg("other", "3") + pkg("tool", "2")
	for range 2 { // the second time with the result of the first
		r, err := Merge(Dpkg, in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(r.Content)); diff != "" {
			t.Errorf("merged (-want +got):\n%s", diff)
		}
		in.Own = r.Content
	}
}

// mergeCase is three states of a file, and what comes of them.
type mergeCase struct {
	name          string
	format        Format
	old, own, new string
	want          string
	conflicts     []string
}

func accountCases() []mergeCase {
	return []mergeCase{
		{
			"the node's user stays and the master's comes, and their one number is told", Passwd,
			text(rootLine), text(rootLine, nodeUser), text(rootLine, alice), text(rootLine, nodeUser, alice),
			[]string{"localuser: uid 1000 is also that of alice"},
		},
		{
			"what both added alike is nothing", Passwd,
			text(rootLine), text(rootLine, alice), text(rootLine, alice), text(rootLine, alice), nil,
		},
		{
			"a second name for root is the node's own affair", Passwd,
			text(rootLine), text(rootLine, "toor:x:0:0::/root:/bin/sh"), text(rootLine, alice),
			text(rootLine, "toor:x:0:0::/root:/bin/sh", alice), []string{},
		},
		{
			"both added a user of one name", Passwd,
			text(rootLine),
			text(rootLine, "munge:x:998:998::/:/bin/false"), text(rootLine, "munge:x:997:997::/:/bin/false"),
			text(rootLine, "munge:x:997:997::/:/bin/false"),
			[]string{"munge: added both on the node and in the master: uid 998 on the node, uid 997 in the master"},
		},
		{
			"removals", Passwd,
			text(rootLine, "games:x:5:60::/:/bin/false", "news:x:9:9::/:/bin/false", "uucp:x:10:10::/:/bin/false"),
			text(rootLine, "news:x:9:9::/:/bin/sh", "uucp:x:10:10::/:/bin/false"),
			text(rootLine, "games:x:5:60::/:/bin/false"),
			text(rootLine), []string{"news: changed on the node, removed in the master"},
		},
		{
			"a removal on the node of what the master changed", Passwd,
			text(rootLine, "games:x:5:60::/:/bin/false"), text(rootLine), text(rootLine, "games:x:5:60::/:/bin/sh"),
			text(rootLine, "games:x:5:60::/:/bin/sh"), []string{"games: removed on the node, changed in the master"},
		},
		{
			"the line of NIS stays the last one", Passwd,
			text(rootLine, "+::::::"),
			text(rootLine, nodeUser, "+::::::"), text(rootLine, "bob:x:1001:1001::/:/bin/sh", "+::::::"),
			text(rootLine, nodeUser, "bob:x:1001:1001::/:/bin/sh", "+::::::"), nil,
		},
		{
			"members are a set", Group,
			text("docker:x:103:a,b"), text("docker:x:103:b,localuser"), text("docker:x:103:a,b,alice"),
			text("docker:x:103:b,alice,localuser"), nil,
		},
		{
			"members of a group that both made", Group,
			text("root:x:0:"), text("root:x:0:", "hpc:x:500:n"), text("root:x:0:", "hpc:x:500:m"),
			text("root:x:0:", "hpc:x:500:m,n"), nil,
		},
		{
			"a group with two numbers", Group,
			text("root:x:0:"), text("root:x:0:", "hpc:x:500:n"), text("root:x:0:", "hpc:x:501:m"),
			text("root:x:0:", "hpc:x:501:m"),
			[]string{"hpc: added both on the node and in the master: gid 500 on the node, gid 501 in the master"},
		},
		{
			"secrets are not in conflicts", Shadow,
			text("root:*:1:0:99999:7:::"), text("root:$y$node:1:0:99999:7:::"), text("root:$y$master:1:0:99999:7:::"),
			text("root:$y$master:1:0:99999:7:::"), []string{"root: changed both on the node and in the master"},
		},
		{
			"administrators and members", GShadow,
			text("g:!:a:x"), text("g:!:a,n:x,n"), text("g:!:a,m:x,m"), text("g:!:a,m,n:x,m,n"), nil,
		},
		{
			"ranges that overlap", SubID,
			text(), text("localuser:100000:65536"), text("alice:165535:65536", "alice:300000:1"),
			text("localuser:100000:65536", "alice:165535:65536", "alice:300000:1"),
			[]string{"localuser: range 100000 to 165535 is also that of alice"},
		},
	}
}

func otherCases() []mergeCase {
	tool := func(version string) string {
		return "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: " + version + "\n\n"
	}
	const only = "Package: nodeonly\nStatus: install ok installed\nVersion: 1.0\n\n"
	return []mergeCase{
		{
			"the node's packages stay and the master's come", Dpkg,
			tool("1.0"), tool("1.0") + only, tool("1.1"), tool("1.1") + only, nil,
		},
		{
			"a package that both changed is the master's", Dpkg,
			tool("1.0"), tool("2.0"), tool("1.1"), tool("1.1"),
			[]string{"tool: changed both on the node and in the master: 2.0 on the node, 1.1 in the master"},
		},
		{
			"architectures of a package are one record", Dpkg,
			tool("1"), tool("1") + strings.ReplaceAll(tool("1"), "amd64", "i386"), tool("1") + only,
			tool("1") + strings.ReplaceAll(tool("1"), "amd64", "i386") + only, nil,
		},
		{
			"statoverride", StatOverride,
			text("root root 4755 /a"), text("root root 4755 /a", "root n 2755 /n x"), text("root root 755 /a"),
			text("root root 755 /a", "root n 2755 /n x"), nil,
		},
		{
			"diversions", Diversions,
			text("/a", "/a.d", ":"), text("/a", "/a.d", ":", "/n", "/n.d", "p"), text(), text("/n", "/n.d", "p"), nil,
		},
		{
			"lines by key, with comments", LineKey,
			text("# head", "a = 1", "b = 1"),
			text("# head", "# mine", "a = 1", "b = 2"), text("# new", "a = 2", "b = 1", "c 3"),
			text("# mine", "# new", "a = 2", "b = 2", "c 3"), nil,
		},
	}
}

func TestMergeRefusesWhatDoesNotParse(t *testing.T) {
	for _, tt := range []struct {
		format Format
		own    string
		want   string
	}{
		{Passwd, "", "the node's file is empty"},
		{Passwd, "root:x:0:0:root:/root", "the node's file: line 1 has 6 fields, not 7"},
		{Passwd, text(rootLine, rootLine), "the node's file: root is there twice"},
		{Passwd, "a:x:b:0:::\n", "the node's file: line 1 has no number in field 3"},
		{Passwd, ":x:1:0:::\n", "the node's file: line 1 has no name"},
		{Passwd, "a\x00b\n", "the node's file: line 1 contains a zero byte"},
		{Group, "g:x:1\n", "the node's file: line 1 has 3 fields, not 4"},
		{Dpkg, "Version: 1\n", "the node's file: the stanza at line 1 names no package"},
		{Dpkg, " x\n", "the node's file: line 1 continues nothing"},
		{Dpkg, "Package: a\nx\n", "the node's file: line 2 is no field"},
		{Dpkg, "Package: a\nPackage: b\n", "the node's file: line 2 names a second package"},
		{Diversions, "a\nb\n", "the node's file: has 2 lines, not three for each diversion"},
		{StatOverride, "root root 1\n", "the node's file: line 1 does not have an owner, a group, a mode and a path"},
		{LineKey, "=1\n", "the node's file: line 1 has no key"},
		{"rpm", "", `merge: unknown format "rpm"`},
	} {
		old := ""
		if tt.own == "" {
			old = text(rootLine)
		}
		_, err := Merge(tt.format, Files{Old: []byte(old), Own: []byte(tt.own)})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s %q: %v, want %s", tt.format, tt.own, err, tt.want)
		}
	}
	if _, err := Merge(LineKey, Files{Own: make([]byte, MaxSize+1)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large file: %v", err)
	}
	many := bytes.Repeat([]byte("\n"), MaxSize)
	for _, f := range []Format{LineKey, Diversions} {
		if _, err := Merge(f, Files{Own: many}); !errors.Is(err, errManyRecords) {
			t.Errorf("%s, many lines: %v", f, err)
		}
	}
	long := append([]byte("root:x:0:"), bytes.Repeat([]byte(","), maxLine)...)
	if _, err := Merge(Group, Files{Own: long}); err == nil || err.Error() != "the node's file: line 1 is too long" {
		t.Errorf("a long line: %v", err)
	}
}

func TestConflictsAreBoundedAndPrintable(t *testing.T) {
	var own, new strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&own, "\x1b%0100d n\n", i)
		fmt.Fprintf(&new, "\x1b%0100d m\n", i)
	}
	r, err := Merge(LineKey, Files{Own: []byte(own.String()), New: []byte(new.String())})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Conflicts) != maxConflicts+1 || r.Conflicts[maxConflicts].Reason != "950 more conflicts" {
		t.Errorf("%d conflicts, the last: %v", len(r.Conflicts), r.Conflicts[len(r.Conflicts)-1])
	}
	if k := r.Conflicts[0].Key; strings.ContainsRune(k, '\x1b') || len(k) > 2*maxShown {
		t.Errorf("key %q", k)
	}
}

// An update that is undone leaves the node with what it had, if there was no conflict.
func TestAMergeThatIsUndoneGivesTheNodesRecordsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		old := randomGroups(rng, nil)
		own, new := randomGroups(rng, old), randomGroups(rng, old)
		r, err := Merge(Group, Files{Old: old, Own: own, New: new})
		if err != nil || len(own) == 0 || len(r.Content) == 0 || len(r.Conflicts) > 0 {
			continue
		}
		back, err := Merge(Group, Files{Old: new, Own: r.Content, New: old})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sorted(own), sorted(back.Content)); diff != "" && !bothChanged(old, own, new) {
			t.Fatalf("from\n%sthe node's\n%sby\n%sand back (-want +got):\n%s", old, own, new, diff)
		}
	}
}

// bothChanged reports whether own and new have changed a record of one name. Undoing the new version undoes on the node
// what both have changed alike.
func bothChanged(old, own, new []byte) bool {
	byName := func(b []byte) map[string]string {
		m := map[string]string{}
		for _, line := range splitLines(b) {
			m[field(line, 0)] = string(line)
		}
		return m
	}
	before, mine, next := byName(old), byName(own), byName(new)
	for name := range before {
		if mine[name] != before[name] && next[name] != before[name] {
			return true
		}
	}
	for name := range mine {
		if before[name] == "" && next[name] != "" {
			return true
		}
	}
	return false
}

// sorted returns the lines of a file, with sorted members.
func sorted(b []byte) []string {
	var list []string
	for _, line := range splitLines(b) {
		m := strings.Split(field(line, 3), ",")
		slices.Sort(m)
		list = append(list, field(line, 0)+field(line, 2)+strings.Join(m, ","))
	}
	slices.Sort(list)
	return list
}

// randomGroups makes a file, or changes one.
func randomGroups(rng *rand.Rand, from []byte) []byte {
	lines := map[string]string{}
	for _, l := range splitLines(from) {
		lines[field(l, 0)] = string(l)
	}
	for range 1 + rng.IntN(4) {
		name := string(rune('a' + rng.IntN(6)))
		if _, has := lines[name]; has && rng.IntN(3) == 0 {
			delete(lines, name)
			continue
		}
		var members []string
		for m := range 4 {
			if rng.IntN(2) == 0 {
				members = append(members, fmt.Sprint("m", m))
			}
		}
		lines[name] = fmt.Sprintf("%s:x:%d:%s", name, 10+rng.IntN(3), strings.Join(members, ","))
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		b.WriteString(lines[name] + "\n")
	}
	return b.Bytes()
}

// FuzzMerge checks what holds for all files: a merge does not fail on its own result, which it does not change again,
// and what only one side has changed is the result.
func FuzzMerge(f *testing.F) {
	f.Add(byte(1), text(rootLine), text(rootLine, nodeUser), text(rootLine, alice))
	f.Add(byte(2), "g:x:1:a\n", "g:x:1:a,n,,n\n", "g:x:1:m,a\n")
	f.Add(byte(5), "", "a:1:5\nb:2:2\n", "c:3:3\na:9:9\n")
	f.Add(byte(6), "Package: a\nVersion: 1\n\n", "Package: a\nVersion: 2\n x\n\nPackage: b\n\n", "Package: a\nA: 3\n")
	f.Add(byte(8), "/a\n/b\n:\n", "/a\n/c\n:\n", "")
	f.Add(byte(0), "# x\n\na=1\n", "a=1\n\n#y\n", "a 2\n")
	f.Fuzz(func(t *testing.T, format byte, old, own, new string) {
		kind := Formats()[int(format)%len(Formats())]
		files := Files{Old: []byte(old), Own: []byte(own), New: []byte(new)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := Merge(kind, files)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(1<<20+1000*(len(old)+len(own)+len(new))) {
			t.Errorf("%d bytes were allocated for %d", took, len(old)+len(own)+len(new))
		}
		if err != nil {
			return
		}
		if len(r.Conflicts) > maxConflicts+1 {
			t.Errorf("%d conflicts", len(r.Conflicts))
		}
		if len(r.Content) > len(old)+len(own)+2*len(new)+64 && kind != Dpkg {
			t.Errorf("%d bytes of %d, %d and %d", len(r.Content), len(old), len(own), len(new))
		}
		if len(r.Content) > 0 || len(old) == 0 {
			again, err := Merge(kind, Files{Old: []byte(old), Own: r.Content, New: []byte(new)})
			if err != nil {
				t.Fatalf("the result does not merge: %v\n%q", err, r.Content)
			}
			if !bytes.Equal(again.Content, r.Content) {
				t.Errorf("merged again: %q, was %q", again.Content, r.Content)
			}
		}
		same, err := Merge(kind, Files{Old: []byte(new), Own: []byte(own), New: []byte(new)})
		if err == nil && len(same.Conflicts) > 0 {
			t.Errorf("a master that changed nothing conflicts: %v", same.Conflicts)
		}
	})
}

// BenchmarkMergeOfAPackageDatabase merges a status file of 2,000 packages, 2 MB.
func BenchmarkMergeOfAPackageDatabase(b *testing.B) {
	status := func(changed string) []byte {
		var s strings.Builder
		for i := range 2000 {
			version := "1.0"
			if fmt.Sprint(i%100) == changed {
				version = "1.1"
			}
			fmt.Fprintf(&s, "Package: p%d\nStatus: install ok installed\nVersion: %s\nDescription: %s\n\n", i, version,
				strings.Repeat("a long line\n ", 75))
		}
		return []byte(s.String())
	}
	old, own, new := status(""), status("3"), status("7")
	b.SetBytes(int64(len(old) + len(own) + len(new)))
	for b.Loop() {
		if _, err := Merge(Dpkg, Files{Old: old, Own: own, New: new}); err != nil {
			b.Fatal(err)
		}
	}
}
