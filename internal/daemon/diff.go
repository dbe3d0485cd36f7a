package daemon

import (
	"context"
	"errors"
	"sync"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/pkgdb"
	"dim/internal/verdict"
	"dim/internal/versionfs"
)

// Diff implements control.Backend.
func (d *daemon) Diff(ctx context.Context, from, to string, yield func(control.Change) bool) (control.Comparison, error) {
	now := d.declared()
	a, err := now.resolve(from)
	if err != nil {
		return control.Comparison{}, err
	}
	b, err := now.resolve(to)
	if err != nil {
		return control.Comparison{}, err
	}
	out := control.Comparison{From: a.Ref().String(), To: b.Ref().String(), Counts: map[control.ChangeKind]int{}}
	v, err := d.compare(ctx, a, b, func(c image.Change) error {
		shown := changed(c)
		out.Counts[shown.Kind]++
		if !yield(shown) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return out, nil // nobody listens any more
	}
	out.Verdict, out.Packages, out.Warnings = meant(v), packages(v.Packages), unread(v)
	return out, err
}

// errEnough ends a walk whose caller wants no more.
var errEnough = errors.New("enough")

// compare calls each for every change between two versions, and returns what all of them mean.
func (d *daemon) compare(ctx context.Context, from, to image.Version, each func(image.Change) error) (verdict.Verdict, error) {
	judge := verdict.New(versionfs.New(d.store, from.Root), versionfs.New(d.store, to.Root))
	differ := image.Differ{Load: d.store.Tree}
	err := differ.Diff(ctx, &from.Root, &to.Root, func(c image.Change) error {
		judge.Add(c)
		return each(c)
	})
	if err != nil {
		return verdict.Verdict{}, err
	}
	return judge.Verdict(), nil
}

// verdicts remembers what changes between versions mean: a rollout asks for the same again and again.
type verdicts struct {
	mu    sync.Mutex
	known map[[2]image.Digest]verdict.Verdict
}

const verdictsKept = 256

// verdict tells what a change between two versions means for a node that runs the first.
func (d *daemon) verdict(ctx context.Context, from, to image.Version) (verdict.Verdict, error) {
	pair := [2]image.Digest{from.Digest, to.Digest}
	d.verdicts.mu.Lock()
	v, ok := d.verdicts.known[pair]
	d.verdicts.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := d.compare(ctx, from, to, func(image.Change) error { return nil })
	if err != nil {
		return v, err
	}
	d.verdicts.mu.Lock()
	defer d.verdicts.mu.Unlock()
	if d.verdicts.known == nil || len(d.verdicts.known) >= verdictsKept {
		d.verdicts.known = map[[2]image.Digest]verdict.Verdict{}
	}
	d.verdicts.known[pair] = v
	return v, nil
}

// meant returns v as the API shows it.
func meant(v verdict.Verdict) control.Verdict {
	out := control.Verdict{Data: v.Data, Programs: v.Programs, Boot: v.Boot, Init: v.Init, Reboot: v.Reboot()}
	for _, s := range v.Restart {
		out.Restart = append(out.Restart, control.Restart{Unit: s.Unit, Because: s.Because})
	}
	return out
}

func packages(list []pkgdb.Change) []control.PackageChange {
	out := make([]control.PackageChange, 0, len(list))
	for _, c := range list {
		out = append(out, control.PackageChange{Name: c.Name, Arch: c.Arch, From: c.From, To: c.To})
	}
	return out
}

func unread(v verdict.Verdict) []string {
	var list []string
	for _, text := range v.Unread {
		list = append(list, "packages are not compared: "+text)
	}
	return list
}
