package watch

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhenChangesAreDue(t *testing.T) {
	now := time.Unix(1000, 0)
	start := now
	at := func(ms int) { now = start.Add(time.Duration(ms) * time.Millisecond) }
	const debounce = 200 * time.Millisecond
	for _, c := range []struct {
		what   string
		change func(p *pending)
		after  int // milliseconds after the start; -1: never
	}{
		{"nothing", func(*pending) {}, -1},
		{"one change", func(p *pending) { p.add(Changes{Dirs: []string{"a"}}) }, 40},
		{"a file that is open", func(p *pending) {
			p.add(Changes{Dirs: []string{"a"}})
			p.write(&event{mask: unix.FAN_MODIFY, dir: "h", name: "f"})
		}, 200},
		{"a second one", func(p *pending) {
			p.add(Changes{Dirs: []string{"a"}})
			at(150)
			p.add(Changes{Dirs: []string{"b"}})
		}, 300},
		{"changes that do not end", func(p *pending) {
			for i := range 12 {
				at(i * 100)
				p.add(Changes{Dirs: []string{"a"}})
			}
		}, 1000},
		{"a file that is being written", func(p *pending) {
			for i := range 200 {
				at(i * 100)
				p.add(Changes{Dirs: []string{"a"}})
				p.write(&event{mask: unix.FAN_MODIFY, dir: "h", name: "f"})
			}
		}, 10000},
		{"a file that was written", func(p *pending) {
			p.add(Changes{Dirs: []string{"a"}})
			p.write(&event{mask: unix.FAN_MODIFY, dir: "h", name: "f"})
			p.write(&event{mask: unix.FAN_CLOSE_WRITE, dir: "h", name: "f"})
			at(1100)
			p.add(Changes{Dirs: []string{"a"}})
		}, 1000},
		{"everything", func(p *pending) { p.add(Changes{All: true}) }, 0},
		{"more than is kept", func(p *pending) {
			for i := range maxPending + 2 {
				p.add(Changes{Inodes: []uint64{uint64(i)}})
			}
		}, 0},
	} {
		at(0)
		p := newPending(func() time.Time { return now })
		c.change(&p)
		due, any := p.due(debounce)
		if any != (c.after >= 0) || any && due.Sub(start) != time.Duration(c.after)*time.Millisecond {
			t.Errorf("%s: due %v, after %v", c.what, any, due.Sub(start))
		}
		if !p.drain().Since.Equal(start) && any {
			t.Errorf("%s: the first change has another time", c.what)
		}
		if _, any := p.due(debounce); any {
			t.Errorf("%s: due again after drain", c.what)
		}
	}
}

func TestTheDelayDependsOnEarlierChanges(t *testing.T) {
	now := time.Unix(1000, 0)
	start := now
	const debounce = 200 * time.Millisecond
	at := func(p *pending, ms int, c Changes) {
		now = start.Add(time.Duration(ms) * time.Millisecond)
		p.add(c)
	}
	here := Changes{Dirs: []string{"a"}}
	for _, c := range []struct {
		what   string
		change func(p *pending)
		after  int // milliseconds after the start
	}{
		{"one change after a rest", func(p *pending) {
			at(p, -1100, here)
			p.drain()
			at(p, 0, here)
		}, 40},
		{"one change soon after others", func(p *pending) {
			for _, ms := range []int{-900, -100} {
				at(p, ms, here)
				p.drain()
			}
			at(p, 0, here)
		}, 200},
		{"one change among others elsewhere", func(p *pending) {
			at(p, 0, here)
			for i := range 9 {
				at(p, 10*i, Changes{Inodes: []uint64{uint64(i)}})
			}
		}, 40},
		{"changes elsewhere", func(p *pending) {
			for i := range 9 {
				at(p, 100*i, Changes{Inodes: []uint64{uint64(i)}})
			}
		}, 200},
	} {
		p := newPending(func() time.Time { return now })
		c.change(&p)
		if due, any := p.due(debounce); !any || due.Sub(start) != time.Duration(c.after)*time.Millisecond {
			t.Errorf("%s: due %v, after %v", c.what, any, due.Sub(start))
		}
	}
}

func TestTheRateOfVersionsIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	var p rate
	made := 0
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Second) {
		if !p.next().After(now) {
			made++
			p.spend(now)
		}
	}
	if want := rateBurst + int(24*time.Hour/rateEvery); made < want-2 || made > want+2 {
		t.Errorf("%d versions in a day, want about %d", made, want)
	}
}
