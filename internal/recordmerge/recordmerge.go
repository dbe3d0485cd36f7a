// Package recordmerge merges the changes of a node and of a master to a file that consists of records, such as
// /etc/passwd or dpkg's status. It compares three states of the file, record by record: the version that the node
// has changed, the node's file, and the next version.
//
//   - What only the node changed, added or removed stays so.
//   - What only the master changed, added or removed comes.
//   - What both changed alike is no difference.
//   - What both changed differently is a Conflict. The master's record is used.
//
// A merge is idempotent: merging the result with the same versions again yields the result. So a switch that was
// interrupted can be done again.
//
// The node's file is not trusted: its size is bounded, the time is proportional to it (but for one sort of ranges),
// and a file that does not parse is refused. Conflicts contain names and numbers, never a whole record, because
// records of /etc/shadow have secrets.
//
// The package must not know layers, versions or where a file lies.
package recordmerge

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Format tells what the records of a file are, and by what a record is known.
type Format string

// The formats. docs/reference/cluster.md describes them.
const (
	LineKey      Format = "line-key"     // lines, by the text before the first colon, equals sign, space or tab
	Passwd       Format = "passwd"       // /etc/passwd, by name
	Group        Format = "group"        // /etc/group, by name; members are a set
	Shadow       Format = "shadow"       // /etc/shadow, by name
	GShadow      Format = "gshadow"      // /etc/gshadow, by name; administrators and members are sets
	SubID        Format = "subid"        // /etc/subuid and /etc/subgid, by name
	Dpkg         Format = "dpkg"         // dpkg's status and apt's extended_states, by package
	StatOverride Format = "statoverride" // dpkg's statoverride, by path
	Diversions   Format = "diversions"   // dpkg's diversions, by path
)

// Formats returns all formats.
func Formats() []Format {
	return []Format{LineKey, Passwd, Group, Shadow, GShadow, SubID, Dpkg, StatOverride, Diversions}
}

// Builtin returns the format of each file that is merged without a rule of the cluster description, by its path
// without a leading slash.
func Builtin() map[string]Format {
	return map[string]Format{
		"etc/passwd": Passwd, "etc/group": Group, "etc/shadow": Shadow, "etc/gshadow": GShadow,
		"etc/subuid": SubID, "etc/subgid": SubID,
		"var/lib/dpkg/status": Dpkg, "var/lib/apt/extended_states": Dpkg,
		"var/lib/dpkg/statoverride": StatOverride, "var/lib/dpkg/diversions": Diversions,
	}
}

// MaxSize is the size in bytes up to which files are merged.
const MaxSize = 16 << 20

// ErrTooLarge tells that a file is larger than MaxSize.
var ErrTooLarge = errors.New("larger than 16 MiB")

// maxRecords and maxLine bound what a merge costs: some 100 MB for a file of tiny records.
const (
	maxRecords = 100_000
	maxLine    = 1 << 20
)

var errManyRecords = fmt.Errorf("it has more than %d records", maxRecords)

// Kind is the kind of a Conflict.
type Kind string

// The kinds of conflicts.
const (
	Changed   Kind = "changed"    // both changed the record; the master's is used
	Number    Kind = "number"     // the merged file has a number twice, by different names
	NotMerged Kind = "not merged" // the file could not be merged: the master's is used as a whole
)

// Conflict is what the merge could not decide, or what a person must know of its result.
type Conflict struct {
	Kind   Kind   `json:"kind"`
	Key    string `json:"key,omitempty"` // the record: a name, a package, a path; of the node's if it is a number
	Reason string `json:"reason"`        // a phrase such as "uid 1000 is also that of alice"
}

// String returns the conflict as a phrase.
func (c Conflict) String() string {
	if c.Key == "" {
		return c.Reason
	}
	return c.Key + ": " + c.Reason
}

// maxConflicts bounds the conflicts of one file that are reported one by one.
const maxConflicts = 50

// Result is a merged file.
type Result struct {
	Content   []byte
	Conflicts []Conflict // at most 51; the last one then says how many there are besides
}

// Files are the three states of a file. Old and New are empty if the version has no such file.
type Files struct {
	Old []byte // that the node has changed
	Own []byte // of the node
	New []byte // of the next version

	// Mine are the keys of records that stay as they are in Own, or missing as there, whatever the master has changed.
	// That is no conflict.
	Mine []string
}

// Merge merges the node's file with the next version's. It returns an error if one of the files does not parse or is
// too large, among them ErrTooLarge; the node's file is then not to be merged. It takes at most some seconds.
func Merge(f Format, in Files) (*Result, error) {
	s, ok := shapeOf(f)
	if !ok {
		return nil, fmt.Errorf("merge: unknown format %q", f)
	}
	if len(in.Own) == 0 && len(in.Old) > 0 {
		return nil, errors.New("the node's file is empty")
	}
	var files [3]*file
	for i, side := range []struct {
		whose string
		data  []byte
	}{{"the earlier version's", in.Old}, {"the node's", in.Own}, {"the new version's", in.New}} {
		if len(side.data) > MaxSize {
			return nil, fmt.Errorf("%s file is %w", side.whose, ErrTooLarge)
		}
		records, err := s.parse(side.data)
		if len(records) > maxRecords {
			err = errManyRecords
		}
		if err == nil {
			files[i], err = s.index(records)
		}
		if err != nil {
			return nil, fmt.Errorf("%s file: %w", side.whose, err)
		}
	}
	m := merger{shape: s, old: files[0], own: files[1], new: files[2], mine: make(map[string]bool, len(in.Mine))}
	for _, key := range in.Mine {
		m.mine[key] = true
	}
	m.merge()
	m.numbers()
	return m.result(), nil
}

// record is one record of a file, without the end of its last line.
type record struct {
	key  string
	text []byte
}

// file is the records of a file in their order.
type file struct {
	records []record
	at      map[string]int // by key
}

// index makes a file of records. If the format has several of one key, they become one record. Otherwise they are an
// error. Comments that are alike stay where they are; the merge treats them alike.
func (s *shape) index(records []record) (*file, error) {
	f := &file{at: make(map[string]int, len(records))}
	parts := make(map[int][][]byte)
	for _, r := range records {
		i, twice := f.at[r.key]
		if !twice || isComment(r.key) {
			f.records = append(f.records, r)
			if !twice {
				f.at[r.key] = len(f.records) - 1
			}
			continue
		}
		if !s.repeats {
			return nil, fmt.Errorf("%s is there twice", shown(r.key))
		}
		if parts[i] == nil {
			parts[i] = [][]byte{f.records[i].text}
		}
		parts[i] = append(parts[i], r.text)
	}
	for i, list := range parts {
		f.records[i].text = bytes.Join(list, []byte(s.end))
	}
	return f, nil
}

func (f *file) get(key string) (text []byte, ok bool) {
	i, ok := f.at[key]
	if !ok {
		return nil, false
	}
	return f.records[i].text, true
}

// merger merges three files. merged and conflicts are its result.
type merger struct {
	shape
	old, own, new *file
	mine          map[string]bool // see Files.Mine
	merged        []record
	conflicts     []Conflict
	more          int // conflicts that are only counted
}

// merge fills merged in the order of the new version. What the node has added follows the record that it follows in
// the node's file.
func (m *merger) merge() {
	added := m.additions()
	m.merged = append(m.merged, added[""]...)
	for _, r := range m.new.records {
		if text, stays := m.choose(r); stays {
			m.merged = append(m.merged, record{r.key, text})
		}
		m.merged = append(m.merged, added[r.key]...)
		delete(added, r.key)
	}
}

// additions returns the records that only the node has, by the key of the record that they follow.
func (m *merger) additions() map[string][]record {
	added := make(map[string][]record)
	after := ""
	for _, r := range m.own.records {
		if _, stays := m.new.at[r.key]; stays {
			after = r.key
			continue
		}
		before, had := m.old.get(r.key)
		switch {
		case !had || m.mine[r.key]:
			added[after] = append(added[after], r)
		case !bytes.Equal(before, r.text):
			m.conflict(r.key, "changed on the node, removed in the master")
		}
	}
	return added
}

// choose returns the text of the record that becomes of r, which is in the new version. stays is false if the node
// has removed it.
func (m *merger) choose(r record) (text []byte, stays bool) {
	before, had := m.old.get(r.key)
	mine, has := m.own.get(r.key)
	switch {
	case m.mine[r.key]:
		return mine, has
	case has && bytes.Equal(mine, r.text):
		return r.text, true
	case had && bytes.Equal(before, r.text): // only the node has changed it
		return mine, has
	case has == had && bytes.Equal(mine, before): // only the master has
		return r.text, true
	case !has:
		m.conflict(r.key, "removed on the node, changed in the master")
		return r.text, true
	}
	if m.join != nil {
		if text, ok := m.join(before, mine, r.text); ok {
			return text, true
		}
	}
	reason := "changed both on the node and in the master"
	if !had {
		reason = "added both on the node and in the master"
	}
	if m.describe != nil {
		if here, there := m.describe(mine), m.describe(r.text); here != there {
			reason += fmt.Sprintf(": %s on the node, %s in the master", here, there)
		}
	}
	m.conflict(r.key, reason)
	return r.text, true
}

func (m *merger) conflict(key, reason string) {
	m.add(Conflict{Kind: Changed, Key: shown(key), Reason: reason})
}

func (m *merger) add(c Conflict) {
	if len(m.conflicts) == maxConflicts {
		m.more++
		return
	}
	m.conflicts = append(m.conflicts, c)
}

func (m *merger) result() *Result {
	r := &Result{Conflicts: m.conflicts}
	if m.more > 0 {
		r.Conflicts = append(r.Conflicts, Conflict{Kind: Changed, Reason: strconv.Itoa(m.more) + " more conflicts"})
	}
	size := 0
	for _, x := range m.merged {
		size += len(x.text) + len(m.end)
	}
	r.Content = make([]byte, 0, size)
	for _, x := range m.merged {
		r.Content = append(append(r.Content, x.text...), m.end...)
	}
	return r
}

// numbers reports numbers that the merge has given to several names. It leaves alone what the node's file or the new
// version has alone: some systems have a second name for root.
func (m *merger) numbers() {
	if m.ranges == nil {
		return
	}
	merged := spans(m.ranges, m.merged)
	slices.SortStableFunc(merged, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	mine, masters := spanSet(m.ranges, m.own.records), spanSet(m.ranges, m.new.records)
	var last span // the one of those before that reaches farthest
	for _, s := range merged {
		known := mine[s] && mine[last] || masters[s] && masters[last]
		if last.to > s.from && last.name != s.name && !known {
			node, other := s, last
			if masters[s] {
				node, other = last, s
			}
			m.add(Conflict{
				Kind: Number, Key: shown(node.name),
				Reason: fmt.Sprintf("%s %s is also that of %s", m.unit, node, shown(other.name)),
			})
		}
		if s.to > last.to {
			last = s
		}
	}
}

// span is the numbers from one to another, the latter not included, that a name has.
type span struct {
	from, to uint64
	name     string
}

func (s span) String() string {
	if s.to == s.from+1 {
		return strconv.FormatUint(s.from, 10)
	}
	return fmt.Sprintf("%d to %d", s.from, s.to-1)
}

func spans(of func(record) []span, records []record) []span {
	var list []span
	for _, r := range records {
		list = append(list, of(r)...)
	}
	return list
}

func spanSet(of func(record) []span, records []record) map[span]bool {
	set := make(map[span]bool)
	for _, r := range records {
		for _, s := range of(r) {
			set[s] = true
		}
	}
	return set
}

// maxShown bounds the part of a key that messages contain.
const maxShown = 80

// shown returns a key for messages. A key comes from a node, and may be long and contain anything.
func shown(key string) string {
	cut := key[:min(len(key), maxShown)]
	for _, c := range cut {
		if !strconv.IsPrint(c) || c == '\uFFFD' {
			cut = strconv.Quote(cut)
			break
		}
	}
	if len(key) > maxShown {
		cut += "…"
	}
	return cut
}
