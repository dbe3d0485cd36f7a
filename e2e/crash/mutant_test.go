package crash

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// mutant is a deliberate fault: a text of a file in internal, which becomes another one, and the test that finds it.
type mutant struct{ name, file, old, broken, test string }

func mutants() []mutant {
	const power, kill, shots = "PowerGoes", "ServerIsKilled", "SnapshotsAreWhole"
	return []mutant{
		{"names are not synced", "replica/op.go", "if len(o.dirty) == 0 && !o.others {", "if true {", power},
		{"content is not synced", "replica/write.go", "err := r.set.sync(commit.Changes{Data: []*fds.File{f}})",
			"_ = commit.Changes{}\n	var err error", power},
		{"a file has its name before its content", "replica/commit/commit.go", "return f.WriteOut()",
			"_ = f; return nil", power},
		{"the journal is not synced", "durable/log.go", "	if err == nil {\n		err = l.f.Sync()",
			"	if err == nil {\n		err = nil", power},
		{"a file is replaced in two steps", "replica/move.go",
			"	if err = unix.Renameat(from.FD, from.Name, to.FD, to.Name); err != nil {",
			"	unix.Unlinkat(to.FD, to.Name, 0)\n	unix.Fsync(to.FD)\n" +
				"	if err = unix.Renameat(from.FD, from.Name, to.FD, to.Name); err != nil {", kill},
		{"a whiteout is put in two steps", "replica/remove.go", "		err = unix.Renameat(work, tmp, fd, p.name)",
			"		unix.Unlinkat(fd, p.name, 0)\n		unix.Fsync(fd)\n" +
				"		err = unix.Renameat(work, tmp, fd, p.name)", kill},
		{"a new file has its name before it is whole", "replica/create.go", "	if err := unix.Linkat(file, ",
			"	unix.Mknodat(fd, p.name, unix.S_IFREG|0o600, 0)\n	unix.Fsync(fd)\n" +
				"	unix.Unlinkat(fd, p.name, 0)\n	if err := unix.Linkat(file, ", kill},
		{"a merged file is put in two steps", "replica/merge.go",
			"	if err = unix.Renameat(merged.FD, merged.Name, from, name); err != nil {",
			"	unix.Unlinkat(from, name, 0)\n	unix.Nanosleep(&unix.Timespec{Nsec: 1e7}, nil)\n" +
				"	if err = unix.Renameat(merged.FD, merged.Name, from, name); err != nil {", kill},
		{"a switch is not announced", "replica/switch.go",
			"if err := s.record(recordIntent, steps.at, ready); err != nil {", "if err := error(nil); err != nil {",
			power},
		{"what stays is not in the journal", "replica/record.go", "r.Extra, r.Stay = t.extraPaths, t.stay",
			"r.Extra = t.extraPaths", kill},
		{"a snapshot has its name before it is whole", "replica/snapshot.go", "newSnapshot+t.name()",
			"t.name()", shots},
		{"a layer is put back in two steps", "layer/swap.go",
			"	err := unix.Renameat2(area, built, dir, upper, unix.RENAME_EXCHANGE)",
			"	unix.Renameat(dir, upper, area, stamp)\n	unix.Nanosleep(&unix.Timespec{Nsec: 1e8}, nil)\n" +
				"	err := unix.Renameat(area, built, dir, upper)\n	unix.Renameat(area, stamp, area, built)",
			shots},
		{"a snapshot has files of the one before", "layer/snapshot.go",
			"return e.text(xattrOrigin, make([]byte, 64)) == string(origin(st))",
			"return len(e.text(xattrOrigin, make([]byte, 64))) == len(origin(st))", shots},
	}
}

// The faults follow the code: one that changes nothing is not found.
func TestTheCodeToBreakIsThere(t *testing.T) {
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) { m.code(t) })
	}
}

// code returns the path of the file that is changed, and the text that it then has.
func (m *mutant) code(t *testing.T) (file, broken string) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("../../internal", m.file))
	testkit.Must(t, err)
	b, err := os.ReadFile(file)
	testkit.Must(t, err)
	if !strings.Contains(string(b), m.old) {
		t.Fatalf("%s has no %q any more: break something else", file, m.old)
	}
	return file, strings.ReplaceAll(string(b), m.old, m.broken)
}

// TestBrokenCodeIsFound builds the tests with one deliberate fault at a time, and checks that they fail: a test
// of durability that has never failed proves nothing.
func TestBrokenCodeIsFound(t *testing.T) {
	if os.Getenv("DIM_CRASH_MUTANTS") == "" {
		t.Skip("builds the tests several times over: set DIM_CRASH_MUTANTS=1")
	}
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			out, err := m.run(t)
			if err == nil {
				t.Error("it was not found")
			}
			if !bytes.Contains(out, []byte("never showed")) && !bytes.Contains(out, []byte("could show")) &&
				!bytes.Contains(out, []byte("after the cut")) {
				t.Errorf("something else failed: %v\n%s", err, out)
			}
		})
	}
}

// run runs the test on the broken code.
func (m *mutant) run(t *testing.T) ([]byte, error) {
	t.Helper()
	file, code := m.code(t)
	dir := t.TempDir()
	other, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	testkit.Must(t, os.WriteFile(other, []byte(code), 0o600))
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: other}})
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(overlay, b, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-overlay", overlay, "-run",
		m.test, ".")
	cmd.Env = append(os.Environ(), "DIM_CRASH_MUTANTS=", "DIM_CRASH_ROUNDS=300")
	return cmd.CombinedOutput()
}
