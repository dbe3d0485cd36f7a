package diskmark

import (
	"os"
	"path/filepath"
	"testing"

	"dim/internal/testkit"
)

func TestAnOldCopyOfADiskIsRecognized(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.json")
	shared := "" // what the shared state has
	record := func(d *Disk) bool {
		mark, before := d.Present()
		if shared == mark || shared != before {
			return false
		}
		shared = mark
		return true
	}
	start := func() *Disk {
		d := testkit.Value(Open(path))(t)
		if d.Compare(shared) {
			t.Fatal("the disk counts as an old one")
		}
		testkit.Must(t, d.Renew())
		return d
	}
	d := start()
	if !record(d) || d.Compare(shared) {
		t.Error("the first mark is not recorded")
	}
	copied := testkit.Value(os.ReadFile(path))(t)
	before := shared

	testkit.Must(t, d.Renew())
	first, _ := d.Present()
	testkit.Must(t, d.Renew())
	if second, _ := d.Present(); first != second {
		t.Error("a mark that is not recorded yet has been replaced")
	}
	d = start() // as after a crash, before it was recorded
	if mark, _ := d.Present(); mark != first || !record(d) {
		t.Errorf("after a restart the mark is %s, and was %s", mark, first)
	}
	d.Compare(shared)

	testkit.Must(t, os.WriteFile(path, copied, 0o600))
	old := testkit.Value(Open(path))(t)
	if !old.Compare(shared) || !old.Old() {
		t.Error("an old copy is not recognized")
	}
	testkit.Must(t, old.Renew())
	if record(old) {
		t.Error("the mark of an old copy is recorded")
	}
	if d.Compare(before) {
		t.Error("a shared state that is older than the disk makes the disk an old one")
	}
	if shared = ""; old.Compare(shared) {
		t.Error("an old copy is not taken although the shared state has no mark any more")
	}
	testkit.Must(t, old.Renew())
}

func TestTheListOfMarksIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.json")
	d := testkit.Value(Open(path))(t)
	for range kept + 5 {
		testkit.Must(t, d.Renew())
		mark, _ := d.Present()
		d.Compare(mark)
	}
	if again := testkit.Value(Open(path))(t); len(again.marks) != kept || again.last() != d.last() {
		t.Errorf("there are %d marks", len(again.marks))
	}
	for _, text := range []string{"", "{", `{"format":2}`, `{"format":1,"marks":[""]}`} {
		testkit.Must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := Open(path); err == nil {
			t.Errorf("%q is no error", text)
		}
	}
}

func FuzzMarks(f *testing.F) {
	f.Add([]byte(`{"format":1,"marks":["a","b"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if marks, err := parse(b); err == nil && len(marks) > kept {
			t.Errorf("%d marks", len(marks))
		}
	})
}
