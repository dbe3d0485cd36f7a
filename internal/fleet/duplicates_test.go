package fleet

import (
	"strings"
	"testing"
	"time"
)

func TestTwoMachinesThatReportAsOneServerAreFound(t *testing.T) {
	f := newFleet()
	begin := time.Now()
	arrive := func(start string, after time.Duration) (standing, error) {
		started := map[string]time.Time{"a": begin, "b": begin.Add(time.Minute), "c": begin.Add(2 * time.Minute)}
		r := &Report{Start: start, Started: started[start], Mark: "mark"}
		return f.noteOrigin("is1", r, "address of "+start, begin.Add(after))
	}
	steps := []struct {
		start string
		after time.Duration
		is    standing
		taken bool
	}{
		{"a", 0, alone, true},
		{"a", 5 * time.Second, alone, true},
		{"b", 6 * time.Second, inDoubt, true}, // as after a restart
		{"a", 10 * time.Second, copied, true},
		{"b", 11 * time.Second, inDoubt, false},
		{"a", 15 * time.Second, copied, true},
		{"b", 16 * time.Second, inDoubt, false},
		{"b", 35 * time.Second, alone, true}, // the other one has ended
		{"c", 36 * time.Second, inDoubt, true},
		{"c", 52 * time.Second, alone, true}, // b was restarted as c
	}
	for _, s := range steps {
		is, err := arrive(s.start, s.after)
		if is != s.is || (err == nil) != s.taken {
			t.Errorf("%s after %v: %v, %v", s.start, s.after, is, err)
		}
		if err != nil && !strings.Contains(err.Error(), "address of a, started") {
			t.Errorf("%s after %v: %v", s.start, s.after, err)
		}
	}
	found, ok := f.Duplicate("is1")
	if !ok || !strings.HasPrefix(found.Older, "address of a") || !strings.HasPrefix(found.Younger, "address of b") ||
		!found.Since.Equal(begin.Add(10*time.Second)) {
		t.Errorf("the duplicate is %+v, %v", found, ok)
	}
	if _, ok := f.Duplicate("is2"); ok {
		t.Error("another server is a duplicate")
	}
}

// Three machines report as one server. One of the others has the mark of the oldest one's disk.
func TestAnyOtherMachineMayHaveACopyOfTheDisk(t *testing.T) {
	begin := time.Now()
	for _, tt := range []struct {
		first, second string // marks of the disks of the younger machines
		want          standing
	}{
		{"mark", "other", copied}, {"other", "mark", copied}, {"other", "another", older}, {"", "other", older},
	} {
		f := newFleet()
		arrive := func(start, mark string, started, after time.Duration) standing {
			r := &Report{Start: start, Started: begin.Add(started), Mark: mark}
			is, _ := f.noteOrigin("is1", r, start, begin.Add(after))
			return is
		}
		arrive("a", "mark", 0, 0)
		arrive("b", tt.first, time.Minute, time.Second)
		arrive("c", tt.second, 2*time.Minute, 2*time.Second)
		if is := arrive("a", "mark", 0, 3*time.Second); is != tt.want {
			t.Errorf("the others have the marks %q and %q: %v, want %v", tt.first, tt.second, is, tt.want)
		}
	}
}
