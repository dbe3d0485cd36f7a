package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"dim/e2e/agent"
)

// largest is the size of the largest file that is edited.
const largest = 64 << 10

// rest is the least time between two edits.
const rest = 1200 * time.Millisecond

// mirror measures many edits of the master.
func (s *site) mirror(ctx context.Context, o *options) error {
	if _, err := s.Dim(ctx, "image", "watch", "compute", "--rollout", "now"); err != nil {
		return err
	}
	r := random()
	files, err := regular(o.master)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no files to edit in %s: %w", o.master, err)
	}
	copied := filepath.Join(o.dir, "copy")
	if err := rsync(o.master, copied); err != nil {
		return err
	}
	if err := s.settle(ctx, o); err != nil {
		return err
	}
	s.forgetLog(o)
	var pushed, polled, copies []time.Duration
	for i := range o.edits {
		path := files[r.IntN(len(files))]
		data, err := edit(o.master, &path, i, r)
		if err != nil {
			return err
		}
		closed := time.Now()
		slow := make(chan error, 1)
		if i%10 == 0 {
			go func() { slow <- s.await(polling, path, data) }()
		}
		if err := s.await(told, path, data); err != nil {
			return err
		}
		pushed = append(pushed, time.Since(closed))
		if i%10 == 0 {
			if err := <-slow; err != nil {
				return err
			}
			polled = append(polled, time.Since(closed))
			began := time.Now()
			if err := rsync(o.master, copied); err != nil {
				return err
			}
			copies = append(copies, time.Since(began))
		}
		time.Sleep(rest + time.Duration(r.Int64N(int64(rest))))
	}
	fmt.Printf("edits of a master with %d files until a node's kernel shows them, %d edits\n", len(files), o.edits)
	report("told (push)", pushed)
	report("asking every 3 s", polled)
	report("rsync of the tree to one directory", copies)
	fmt.Printf("  ratio   dim/rsync: %.3f, told/asking: %.3f\n", ratio(pushed, copies), ratio(pushed, polled))
	return s.shares(o, pushed)
}

// settle makes one edit that is not measured, so that every path has been requested once.
func (s *site) settle(ctx context.Context, o *options) error {
	data := []byte("it begins\n")
	if err := os.WriteFile(filepath.Join(o.master, "bench-mirror"), data, 0o644); err != nil {
		return err
	}
	if err := s.await(told, "bench-mirror", data); err != nil {
		return err
	}
	return s.until(ctx, "the node has looked", func(show string) bool { return strings.Contains(show, "current") })
}

func (s *site) await(root, path string, data []byte) error {
	return s.call("Await", agent.AwaitArgs{Path: filepath.Join(root, path), Data: data, Timeout: time.Minute},
		&agent.None{})
}

// edit changes a file in place, replaces it by rename, or makes a new one.
func edit(master string, path *string, i int, r *rand.Rand) ([]byte, error) {
	full := filepath.Join(master, *path)
	data, err := os.ReadFile(full)
	if err != nil {
		return nil, err
	}
	data = fmt.Appendf(data, "edit %d %x\n", i, r.Uint64())
	switch i % 4 {
	case 0, 1:
		return data, os.WriteFile(full, data, 0o644)
	case 2:
		temporary := full + ".bench~"
		if err := os.WriteFile(temporary, data, 0o644); err != nil {
			return nil, err
		}
		return data, os.Rename(temporary, full)
	}
	*path += fmt.Sprintf(".bench%d", i)
	return data, os.WriteFile(filepath.Join(master, *path), data, 0o644)
}

func regular(master string) (list []string, err error) {
	err = filepath.WalkDir(master, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fi, err := d.Info(); err == nil && fi.Size() <= largest {
			rel, _ := filepath.Rel(master, path)
			list = append(list, rel)
		}
		return nil
	})
	return list, err
}

func rsync(from, to string) error {
	if out, err := exec.Command("rsync", "-aHAX", "--delete", from+"/", to+"/").CombinedOutput(); err != nil {
		return fmt.Errorf("rsync: %w, %s", err, out)
	}
	return nil
}

func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func ratio(a, b []time.Duration) float64 {
	return quantile(a, 0.5).Seconds() / quantile(b, 0.5).Seconds()
}

func report(what string, times []time.Duration) {
	ms := func(q float64) float64 { return quantile(times, q).Seconds() * 1000 }
	fmt.Printf("  %-36s p50 %6.0f ms, p90 %6.0f ms, p99 %6.0f ms, most %6.0f ms, of %d\n", what, ms(0.5), ms(0.9),
		ms(0.99), ms(1), len(times))
}

// forgetLog empties the server's log, so that it then has only lines about the edits.
func (s *site) forgetLog(o *options) { _ = os.Truncate(s.ServerLog(), 0) }

var step = regexp.MustCompile(`(waited|capture|rollout|took)=(\S+)`)

// shares prints how long each step took, from the server's log.
func (s *site) shares(o *options, all []time.Duration) error {
	log, err := os.ReadFile(s.ServerLog())
	if err != nil {
		return err
	}
	steps := map[string][]time.Duration{}
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, "edit of a watched master followed") &&
			!strings.Contains(line, "replicas switched") {
			continue
		}
		for _, m := range step.FindAllStringSubmatch(line, -1) {
			if d, err := time.ParseDuration(m[2]); err == nil {
				steps[m[1]] = append(steps[m[1]], d)
			}
		}
	}
	var sum time.Duration
	for _, x := range []struct{ name, what string }{
		{"waited", "  quiet after the edit"}, {"capture", "  capture: read, hash, store, sync"},
		{"rollout", "  announce and roll out"}, {"took", "    of which the switch"},
	} {
		report(x.what, steps[x.name])
		if x.name != "took" {
			sum += quantile(steps[x.name], 0.5)
		}
	}
	fmt.Printf("    rest (events, push, statx, read)   p50 %6.0f ms\n", (quantile(all, 0.5)-sum).Seconds()*1000)
	return nil
}
