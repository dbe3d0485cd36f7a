package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"dim/e2e/agent"
)

// load is a load on a node.
type load struct {
	what  string
	files int // number of files that it visits; 0: the node is idle
	each  time.Duration
	read  bool
	list  bool
}

// calls counts the NFS calls of both mounts under the same loads, one mount after the other.
func (s *site) calls(o *options) error {
	files, err := regular(o.master)
	if err != nil {
		return err
	}
	r := random()
	r.Shuffle(len(files), func(i, k int) { files[i], files[k] = files[k], files[i] })
	for _, l := range []load{
		{what: "nothing runs"},
		{what: "idle: 20 files a second of 100 looked at", files: 100, each: 50 * time.Millisecond},
		{what: "busy: stat of 1,000 files a second", files: 1000, each: time.Millisecond},
		{what: "programs that start: 100 files a second of 2,000 opened, read and their directories listed",
			files: 2000, each: 10 * time.Millisecond, read: true, list: true},
	} {
		var made [2]int
		for i, root := range []string{told, polling} {
			if made[i], err = s.under(root, &l, files, o.lasts); err != nil {
				return fmt.Errorf("%s: %w", l.what, err)
			}
		}
		per := func(n int) float64 { return float64(n) / o.lasts.Seconds() }
		fmt.Printf("%s, for %v\n  told (actimeo=3600) %.1f calls a second, asking (actimeo=3) %.1f\n", l.what, o.lasts,
			per(made[0]), per(made[1]))
		if made[1] > 0 {
			fmt.Printf("  ratio   told/asking: calls %.3f\n", per(made[0])/per(made[1]))
		}
	}
	return nil
}

// under runs a load on the node, after one visit of all files, and returns the number of calls.
func (s *site) under(root string, l *load, files []string, lasts time.Duration) (int, error) {
	var paths []string
	for _, f := range files[:min(l.files, len(files))] {
		paths = append(paths, filepath.Join(root, f))
	}
	once := agent.VisitArgs{Paths: paths, Lasts: time.Duration(len(paths)) * 5 * time.Millisecond, Read: l.read,
		List: l.list}
	if err := s.call("Visit", once, new(int)); err != nil {
		return 0, err
	}
	before, err := s.counted(root)
	if err != nil {
		return 0, err
	}
	if len(paths) == 0 {
		time.Sleep(lasts)
	} else if err := s.call("Visit", agent.VisitArgs{Paths: paths, Each: l.each, Lasts: lasts, Read: l.read,
		List: l.list}, new(int)); err != nil {
		return 0, err
	}
	after, err := s.counted(root)
	return after - before, err
}

// counted returns how many calls a mount has made, of all kinds.
func (s *site) counted(root string) (int, error) {
	var text []byte
	if err := s.call("ReadFile", "/proc/self/mountstats", &text); err != nil {
		return 0, err
	}
	return parseCalls(string(text), root)
}

// parseCalls reads /proc/self/mountstats: of each kind the first number is that of the calls
// (net/sunrpc/stats.c, _print_name).
func parseCalls(text, root string) (n int, err error) {
	_, mine, ok := strings.Cut(text, " mounted on "+root+" with ")
	mine, _, _ = strings.Cut(mine, "\ndevice ")
	_, operations, ok2 := strings.Cut(mine, "per-op statistics\n")
	if !ok || !ok2 {
		return 0, fmt.Errorf("no statistics of %s", root)
	}
	for line := range strings.Lines(operations) {
		var kind string
		var calls int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%s %d", &kind, &calls); err == nil {
			n += calls
		}
	}
	return n, nil
}
