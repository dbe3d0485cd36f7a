package daemon

import (
	"context"

	"dim/internal/control"
	"dim/internal/pkgdb"
	"dim/internal/verdict"
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
	changes, err := d.compare.Changes(ctx, &a, &b)
	if err != nil {
		return out, err
	}
	for _, c := range changes {
		shown := changed(c)
		out.Counts[shown.Kind]++
		if !yield(shown) {
			return out, nil // nobody listens any more
		}
	}
	v, err := d.compare.Verdict(ctx, &a, &b)
	out.Verdict, out.Packages, out.Warnings = meant(v), packages(v.Packages), unread(v)
	return out, err
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
