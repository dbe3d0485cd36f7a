package masters

import (
	"context"
	"slices"
	"time"

	"dim/internal/capture"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/masters/inspect"
	"dim/internal/versionfs"
)

// reviewer looks at a version that is about to be made by hand.
type reviewer struct {
	scan  *secretScan
	found []control.Warning
}

// review is capture.Options.Review.
func (v *reviewer) review(ctx context.Context, r *capture.Result) {
	v.scan.review(ctx, r)
	trees := v.scan.m.Store
	files := versionfs.New(trees, r.Version.Root)
	for _, w := range append(inspect.Attributes(files, &r.Version.Root), v.inspect(ctx, files, r.Changes == nil)...) {
		if w.Kind != control.WarnKernels || v.scan.im.Kernel.Version == "" {
			v.found = append(v.found, w)
		}
	}
	var changes inspect.Changes
	if r.Changes == nil {
		err := treediff.Walk(ctx, trees.Tree, &r.Version.Root, func(path string, e *image.Entry) error {
			changes.Add(path, nil, e, files)
			return nil
		})
		if err != nil {
			v.found = append(v.found, control.Warning{
				Kind: control.WarnOdd, Text: "capabilities were not looked for: " + err.Error(),
				Hint: "dim image verify",
			})
		}
	}
	before := versionfs.New(trees, r.Before.Root)
	for _, c := range r.Changes {
		if c.New != nil {
			changes.Add(c.Path, c.Old, c.New, before)
		}
	}
	v.found = append(v.found, changes.Warnings()...)
}

// inspectTask is the task of a process that inspects a version; its request says whether the databases of packages are
// read too.
const inspectTask = "inspect"

func inspectFiles(_ context.Context, c *confine.Child, root func(int) readfs.FS) (any, error) {
	var databases bool
	if err := c.Request(&databases); err != nil {
		return nil, err
	}
	list := inspect.Version(root(0))
	if databases {
		list = append(list, inspect.Databases(root(0))...)
	}
	return list, nil
}

// inspect returns what is odd in the files of a version.
func (v *reviewer) inspect(ctx context.Context, files *versionfs.FS, databases bool) (list []control.Warning) {
	call := readfs.Call{
		Program: v.scan.m.Reader, Task: inspectTask, Request: databases, Roots: []readfs.FS{files}, Most: 1 << 20,
		Limits: confine.Limits{Memory: 1 << 30, CPU: 2 * time.Minute, Silence: 2 * time.Minute},
	}
	if err := call.Do(ctx, &list); err != nil {
		return []control.Warning{{
			Kind: control.WarnOdd, Text: "nothing was looked for in the files: " + err.Error(),
			Hint: "look at the file that is named: no node may be able to read it",
		}}
	}
	return list
}

// OtherKernels returns the releases of kernels of a version that could be meant instead of the one that nodes boot.
func (m *Masters) OtherKernels(v *image.Version) []string {
	_, others := inspect.Kernels(versionfs.New(m.Store, v.Root))
	return others
}

// warnings returns all warnings of a capture, each once: what nodes will not have first.
func (v *reviewer) warnings(problems []capture.Problem) []control.Warning {
	list := []control.Warning{}
	for _, p := range problems {
		list = append(list, problemWarning(&p))
	}
	list = append(list, v.found...)
	list = append(list, v.scan.found...)
	slices.SortStableFunc(list, func(a, b control.Warning) int { return rank(a.Kind) - rank(b.Kind) })
	var once []control.Warning
	for _, w := range list {
		// A capture and its review may say in two ways that a link was replaced. What holds a capture says that
		// something is mounted.
		same := func(o control.Warning) bool {
			return o.Path == w.Path && (o.Kind == w.Kind && (o.Text == w.Text || w.Kind == control.WarnReplaced) ||
				o.Kind == control.WarnHeld && w.Kind == control.WarnLeftOut)
		}
		if !slices.ContainsFunc(once, same) {
			once = append(once, w)
		}
	}
	return once
}

// rank orders warnings: what nodes will not have, then what breaks them, then the rest.
func rank(k control.WarningKind) int {
	return slices.Index([]control.WarningKind{
		control.WarnHeld, control.WarnLeftOut, control.WarnCapabilities, control.WarnChanging, control.WarnBoot,
		control.WarnReplaced, control.WarnMode, control.WarnKernels, control.WarnSecret, control.WarnPackages,
		control.WarnOdd,
	}, k)
}

// problemWarning returns the warning of a problem of a capture.
func problemWarning(p *capture.Problem) control.Warning {
	w := control.Warning{Kind: control.WarnOdd, Path: "/" + p.Path, Text: string(p.Kind)}
	if p.Err != nil {
		w.Text += ": " + p.Err.Error()
	}
	switch p.Kind {
	case capture.LeftOut:
		w.Kind, w.Text = control.WarnLeftOut, p.Err.Error()+"; what is in it is left out"
		w.Hint = "to have it on nodes, copy it into the master itself, or make the master a tar file"
	case capture.Vanished:
		w.Kind, w.Text = control.WarnLeftOut, "it vanished while the master was read"
		w.Hint = "capture again when the master is quiet"
	case capture.Changing:
		w.Kind, w.Text = control.WarnChanging, "it changed each time it was read, and is captured as it was read last"
		w.Hint = "capture again when the master is quiet, or leave it out by an exclude rule"
	case capture.Covered, capture.Uncovered, capture.Emptied, capture.OtherDisk, capture.Shrunk:
		w.Kind, w.Hint = control.WarnHeld, "put it back as it was; if it is meant: --accept "+shellWord(w.Path)
	case capture.Replaced:
		w.Kind, w.Text = control.WarnReplaced, "a directory "+w.Text
		w.Hint = "put the files where the link led to"
	case capture.Odd:
		w.Text, w.Hint = p.Err.Error(), "make the archive with GNU tar: --format=pax --xattrs --acls"
		if p.Path == "" {
			w.Path, w.Hint = "", "make one archive of all"
		}
	case capture.Damaged:
		w.Path, w.Text = "", "an object of the store was damaged and has been replaced: "+p.Err.Error()
		w.Hint = "look at the disk and the memory of this server; dim image verify finds what else is damaged"
	case capture.Nothing:
		w.Text, w.Hint = p.Err.Error(), "dim image rm removes the version"
	}
	return w
}
