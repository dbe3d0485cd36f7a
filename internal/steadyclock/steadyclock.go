// Package steadyclock tells the time by which old things are removed. The clock of a machine may be wrong by years when
// it starts, and what was removed by a wrong clock is lost.
//
// # Concepts
//
// A clock is believable if the kernel says that it is synchronised, or if it is at most a day ahead of the last known
// time. The last known time is kept on disk, and goes on while the program runs. While the clock is not believable, the
// last known time counts. It is late rather than early, which only delays a removal.
//
// # What it must not know
//
// What is removed.
package steadyclock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"dim/internal/durable"
	"dim/internal/problems"
)

// tolerance is how far the clock may be ahead of the last known time.
const tolerance = 24 * time.Hour

// saveInterval is the least time between two writes of Save.
const saveInterval = 10 * time.Minute

// Clock is a clock that is not moved by one that is wrong. Its methods may be called concurrently.
type Clock struct {
	path   string
	wall   func() time.Time // with a monotonic reading
	synced func() bool

	mu    sync.Mutex
	known time.Time // the last known time, at the monotonic reading of at
	at    time.Time
	saved time.Time // when Save wrote last
}

// file is the form of the file, docs/formats/data.md.
type file struct {
	Format int       `json:"format"`
	Time   time.Time `json:"time"`
}

// Open returns the clock that is kept in the file at path. Without a file the present time is the last known one. The
// error is that the file cannot be read; then the clock stands at the file's own time of change.
func Open(path string) (*Clock, error) { return open(path, time.Now, synchronised) }

func open(path string, wall func() time.Time, synced func() bool) (*Clock, error) {
	c := &Clock{path: path, wall: wall, synced: synced, at: wall()}
	c.known = c.at
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var f file
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Format != 1 {
		err = fmt.Errorf("format %d is not known, this program reads format 1", f.Format)
	}
	if err == nil {
		c.known = f.Time
		return c, nil
	}
	if st, serr := os.Stat(path); serr == nil {
		c.known = st.ModTime()
	}
	return c, fmt.Errorf("read %s: %w", path, err)
}

// synchronised reports whether the kernel's clock is synchronised.
func synchronised() bool {
	const (
		timeError = 5    // linux/timex.h: TIME_ERROR
		unsynced  = 0x40 // linux/timex.h: STA_UNSYNC
	)
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return err == nil && state != timeError && t.Status&unsynced == 0
}

// Now returns the present time if the clock is believable, else the last known time and what has passed since.
func (c *Clock) Now() time.Time {
	now, _ := c.now()
	return now
}

// now returns Now, and how far the clock is ahead of it: 0 if the clock is believable.
func (c *Clock) now() (now time.Time, ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.wall()
	known := c.known.Add(wall.Sub(c.at)) // by the monotonic clock
	wall = wall.Round(0)
	if ahead = wall.Sub(known.Round(0)); ahead <= tolerance || c.synced() {
		c.known, c.at = wall, c.wall()
		return wall, 0
	}
	return known.Round(0), ahead
}

// Problems is a problems.Source: a clock that is not believable.
func (c *Clock) Problems(context.Context) []problems.Problem {
	_, ahead := c.now()
	if ahead == 0 {
		return nil
	}
	return []problems.Problem{{
		About: problems.Of(problems.KindReplicas),
		Text: fmt.Sprintf("nothing is removed after its time: the clock is %d days ahead of the last known time, "+
			"and not synchronised", int(ahead.Hours()/24)),
		Hint: "let chrony or systemd-timesyncd set it; if it is right, remove " + c.path + " and restart the server",
	}}
}

// Save keeps Now on disk, at most once in a while.
func (c *Clock) Save() error {
	c.mu.Lock()
	due := c.saved.IsZero() || c.wall().Sub(c.saved) >= saveInterval
	if due {
		c.saved = c.wall()
	}
	c.mu.Unlock()
	if !due {
		return nil
	}
	b, err := json.Marshal(file{1, c.Now().UTC()})
	if err != nil {
		return err
	}
	return durable.WriteFile(c.path, b, 0o600)
}
