package crash

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dim/internal/layers"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// versionNames has the content of the files in m by version; switched is the number of these files.
var versionNames = []string{"first version", "second version"}

const switched = 5

// packaged are the numbers of the files in m that are of one package. In every second switch that package stays the
// node's, as with dim rollout --on-conflict node.
var packaged = []int{3, 4}

// move is a switch of the replica.
type move struct {
	version int
	stay    bool // the package stays the node's
}

// String returns the form in which parseMove reads it.
func (m move) String() string {
	if m.stay {
		return fmt.Sprint(m.version, "+stay")
	}
	return strconv.Itoa(m.version)
}

// parseMove is the inverse of move.String.
func parseMove(text string) (m move, err error) {
	text, m.stay = strings.CutSuffix(text, "+stay")
	m.version, err = strconv.Atoi(text)
	return m, err
}

// stayPaths are the paths of the package.
func (m move) stayPaths() (paths []string) {
	if m.stay {
		for _, i := range packaged {
			paths = append(paths, fmt.Sprint("m/f", i))
		}
	}
	return paths
}

// masterRecords returns the content of m/records in a version. A switch merges this file.
func masterRecords(version string) string { return "release " + version + "\nend\n" }

// switcher writes to the files in m and switches the replica, by turns. What it wrote is set aside by each switch, but
// for its records, which are merged, and for what is of a package that stays.
type switcher struct {
	to func(move) error // switches the replica

	mu     sync.Mutex
	states []shown
	acked  int
}

// shown is the content of m, and the number of entries set aside until now.
type shown struct {
	version int
	own     map[int]string // the files that the layer has: what the node wrote, and what has stayed
	records string         // what the node added to m/records
	saved   int
}

// fileOfRecords returns the content of m/records.
func (s shown) fileOfRecords() string { return masterRecords(versionNames[s.version]) + s.records }

// to returns s after a switch.
func (s shown) to(m move) shown {
	if s.version == m.version {
		return s
	}
	next := shown{version: m.version, own: map[int]string{}, records: s.records, saved: s.saved}
	for i := range switched {
		text, own := s.own[i]
		switch {
		case m.stay && slices.Contains(packaged, i):
			if next.own[i] = text; !own {
				next.own[i] = versionNames[s.version]
			}
		case own && text == versionNames[m.version]: // equal files are no conflict
			next.own[i] = text
		case own:
			next.saved++
		}
	}
	if s.records != "" {
		next.saved++ // the file before the merge
	}
	return next
}

func (s shown) String() string {
	var b strings.Builder
	for i := range switched {
		text, ok := s.own[i]
		if !ok {
			text = versionNames[s.version]
		}
		fmt.Fprintf(&b, "f%d=%q ", i, text)
	}
	return fmt.Sprintf("%srecords=%q %d set aside", b.String(), s.fileOfRecords(), s.saved)
}

func newSwitcher(now shown, to func(move) error) *switcher {
	return &switcher{to: to, states: []shown{now}}
}

func (m *switcher) begin(s shown) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = append(m.states, s)
}

func (m *switcher) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked++
}

func (m *switcher) span() (acked, begun int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked, len(m.states) - 1
}

// version returns the version that the replica follows after change number k.
func (m *switcher) version(k int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[k].version
}

// work replaces two files, adds a record to another one, and switches.
func (m *switcher) work(fs vfs.FS, more func() bool) error {
	for i := 0; more(); i++ {
		m.mu.Lock()
		now := m.states[len(m.states)-1]
		m.mu.Unlock()
		next := shown{version: now.version, own: maps.Clone(now.own), records: now.records, saved: now.saved}
		if next.own == nil {
			next.own = make(map[int]string)
		}
		var err error
		switch i % 4 {
		case 0, 2:
			n := (i + i/4) % switched
			next.own[n] = fmt.Sprintf("the node's %d", i)
			m.begin(next)
			err = m.replace(fs, fmt.Sprint("f", n), next.own[n])
		case 1:
			next.records += fmt.Sprintf("node%d\n", strings.Count(next.records, "\n"))
			m.begin(next)
			err = m.replace(fs, "records", next.fileOfRecords())
		case 3:
			to := move{version: 1 - now.version, stay: i%8 == 3}
			next = now.to(to)
			m.begin(next)
			err = m.to(to)
		}
		if err != nil {
			return fmt.Errorf("change %d of m: %w", i, err)
		}
		m.end()
	}
	return nil
}

// replace replaces the content of a file in one step, as editors do.
func (m *switcher) replace(fs vfs.FS, name, content string) error {
	dir, err := find(fs, "m")
	if err != nil {
		return err
	}
	if _, err := fs.Remove(root, dir, "new"); err != nil && err != vfs.ENOENT { // it may be there after a crash
		return err
	}
	made, err := fs.Create(root, dir, "new", &vfs.Create{Mode: vfs.Guarded, Attr: mode(0o644)})
	if err == nil {
		_, err = fs.Write(root, made.Handle, []byte(content), 0, vfs.Unstable)
	}
	if err == nil {
		_, err = fs.Commit(root, made.Handle)
	}
	if err == nil {
		_, err = fs.Rename(root, dir, "new", dir, name)
	}
	return err
}

// check checks that m, attached with a version, is as after one of the changes from low to high, switched to
// that version. It returns the state of m.
func (m *switcher) check(r *replica.Replica, version, low, high int) (shown, error) {
	is, err := m.observe(r)
	if err != nil {
		return shown{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var could []string
	for k := low; k <= high; k++ {
		s := m.states[k].to(move{version: version})
		if could = append(could, s.String()); s.String() == is {
			return s, nil
		}
	}
	return shown{}, fmt.Errorf("m shows\n%s\nand could show\n%s", is, strings.Join(could, "\n"))
}

func (m *switcher) observe(r *replica.Replica) (string, error) {
	top, err := find(r, "m")
	if err != nil {
		return "", err
	}
	all := make(state)
	if err := observe(r, top, "", make(map[uint64]*entry), all); err != nil {
		return "", err
	}
	saved, err := layers.Of(r).Saved()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i := range switched {
		if e := all[fmt.Sprint("f", i)]; e != nil {
			fmt.Fprintf(&b, "f%d=%q ", i, e.content)
		}
	}
	if e := all["records"]; e != nil {
		fmt.Fprintf(&b, "records=%q ", e.content)
	}
	return fmt.Sprintf("%s%d set aside", b.String(), len(saved)), nil
}
