package steadyclock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/testkit"
)

// machine is a machine with a clock that a test sets.
type machine struct {
	path   string
	now    time.Time
	synced bool
}

func (m *machine) open(t *testing.T) *Clock {
	t.Helper()
	return testkit.Value(open(m.path, func() time.Time { return m.now }, func() bool { return m.synced }))(t)
}

func TestAClockThatIsYearsAheadIsNotBelieved(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := &machine{path: filepath.Join(t.TempDir(), "clock"), now: start}
	c := m.open(t)
	m.now = start.Add(time.Hour)
	testkit.Must(t, c.Save())

	m.now = start.AddDate(5, 0, 0)
	c = m.open(t)
	if got := c.Now(); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("right after the start it is %v", got)
	}
	m.now = m.now.Add(time.Minute)
	if got := c.Now(); !got.Equal(start.Add(time.Hour + time.Minute)) {
		t.Errorf("a minute later it is %v", got)
	}
	if list := c.Problems(t.Context()); len(list) != 1 || !strings.Contains(list[0].Text, "1825 days ahead") {
		t.Errorf("the problems are %v", list)
	}
	testkit.Must(t, c.Save())
	if c = m.open(t); c.Now().After(start.Add(2 * time.Hour)) {
		t.Errorf("after another start it is %v", c.Now())
	}
	m.synced = true
	if got := c.Now(); !got.Equal(m.now) || c.Problems(t.Context()) != nil {
		t.Errorf("once it is synchronised it is %v", got)
	}
}

func TestAClockIsBelieved(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, ahead := range map[string]time.Duration{
		"after a night": 12 * time.Hour, "when it is set back": -48 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{path: filepath.Join(t.TempDir(), "clock"), now: start}
			testkit.Must(t, m.open(t).Save())
			m.now = start.Add(ahead)
			if c := m.open(t); !c.Now().Equal(m.now) || c.Problems(t.Context()) != nil {
				t.Errorf("it is %v", c.Now())
			}
		})
	}
}

func TestAFileThatCannotBeReadDoesNotMoveTheClock(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "clock")
	testkit.Must(t, os.WriteFile(path, []byte("{"), 0o600), os.Chtimes(path, start, start))
	c, err := open(path, func() time.Time { return start.AddDate(9, 0, 0) }, func() bool { return false })
	if err == nil || !c.Now().Equal(start) {
		t.Errorf("it is %v, %v", c.Now(), err)
	}
}
