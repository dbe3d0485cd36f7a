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

// TestBrokenCodeIsFound builds the tests with one deliberate fault at a time, and checks that they fail: a test
// of durability that has never failed proves nothing.
func TestBrokenCodeIsFound(t *testing.T) {
	if os.Getenv("DIM_CRASH_MUTANTS") == "" {
		t.Skip("builds the tests several times over: set DIM_CRASH_MUTANTS=1")
	}
	const power, kill, shots = "PowerGoes", "ServerIsKilled", "SnapshotsAreWhole"
	for _, c := range []struct{ name, file, old, broken, test string }{
		{"names are not synced", "replica/op.go", "if len(o.dirty) == 0 && !o.others {", "if true {", power},
		{"content is not synced", "replica/write.go", "err := r.set.sync(commit.Changes{Data: []*fds.File{f}})",
			"_ = commit.Changes{}\n	var err error", power},
		{"a file has its name before its content", "replica/commit/commit.go", "return f.WriteOut()",
			"_ = f; return nil", power},
		{"the journal is not synced", "durable/log.go", "	if err == nil {\n		err = l.f.Sync()",
			"	if err == nil {\n		err = nil", power},
		{"a file is replaced in two steps", "replica/rename.go",
			"		return unix.Renameat(fromDir, from, toDir, to)",
			"		unix.Unlinkat(toDir, to, 0)\n		unix.Fsync(toDir)\n" +
				"		return unix.Renameat(fromDir, from, toDir, to)", kill},
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
			"if err := s.record(recordIntent, steps.at, list); err != nil {", "if err := error(nil); err != nil {",
			power},
		{"what stays is not in the journal", "replica/record.go", "r.Extra, r.Stay = t.extraPaths, t.stay",
			"r.Extra = t.extraPaths", kill},
		{"a snapshot has its name before it is whole", "replica/snapshot.go", `halfMade     = "#new-"`,
			`halfMade     = ""`, shots},
		{"a layer is put back in two steps", "replica/sift.go",
			"	err := unix.Renameat2(area, built, dir, upper, unix.RENAME_EXCHANGE)",
			"	unix.Renameat(dir, upper, area, stamp)\n	unix.Nanosleep(&unix.Timespec{Nsec: 1e8}, nil)\n" +
				"	err := unix.Renameat(area, built, dir, upper)\n	unix.Renameat(area, stamp, area, built)",
			shots},
		{"a snapshot has files of the one before", "replica/snapshot.go", "err == nil && bytes.Equal(v, of) {",
			"err == nil && (len(v) == len(of) || bytes.Equal(v, of)) {", shots},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := runBroken(t, filepath.Join("../../internal", c.file), c.old, c.broken, c.test)
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

// runBroken runs a test with old in a file replaced.
func runBroken(t *testing.T, file, old, broken, test string) ([]byte, error) {
	t.Helper()
	file, err := filepath.Abs(file)
	testkit.Must(t, err)
	code, err := os.ReadFile(file)
	testkit.Must(t, err)
	if !strings.Contains(string(code), old) {
		t.Fatalf("%s has no %q any more: break something else", file, old)
	}
	dir := t.TempDir()
	other, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	testkit.Must(t, os.WriteFile(other, []byte(strings.Replace(string(code), old, broken, 1)), 0o600))
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: other}})
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(overlay, b, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-overlay", overlay, "-run", test,
		".")
	cmd.Env = append(os.Environ(), "DIM_CRASH_MUTANTS=", "DIM_CRASH_ROUNDS=300")
	return cmd.CombinedOutput()
}
