package follow

import (
	"errors"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/testkit"
)

// want is an error of the API that a test expects; the zero want is none.
type want struct {
	code control.Code
	hint string
}

func (w want) check(t *testing.T, err error) {
	t.Helper()
	var got want
	if e, ok := errors.AsType[*control.Error](err); ok {
		got = want{e.Code, e.Hint}
	} else if err != nil {
		t.Fatalf("%v is no error of the API", err)
	}
	if got != w {
		t.Errorf("got the error %v with code %q and hint %q; want %q, %q", err, got.code, got.hint, w.code, w.hint)
	}
}

func TestAReferenceOfAPersonIsResolved(t *testing.T) {
	s := coord.State{Images: images(3)}
	s.Images["compute"].Tags = map[string]int{"stable": 2}
	s.Images["gone"] = &coord.Image{Last: 4}
	d := &Declared{State: s, Cluster: loaded(t, s).Cluster()}
	for _, tt := range []struct {
		ref    string
		number int
		err    want
	}{
		{ref: "compute", number: 3},
		{ref: "compute@1", number: 1},
		{ref: "compute@stable", number: 2},
		{ref: "compute@4", err: want{control.NotFound, "dim image log compute lists them"}},
		{ref: "compute@none", err: want{control.NotFound, "dim image log compute lists them"}},
		{ref: "other", err: want{control.NotFound, "dim image capture other makes the first"}},
		{ref: "none@1", err: want{control.NotFound, "dim image ls lists the images"}},
		{ref: "gone@4", err: want{control.NotFound, "dim image log gone lists them"}},
		{ref: "compute@", err: want{control.Invalid, ""}},
		{ref: "", err: want{control.Invalid, ""}},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			v, err := d.Resolve(tt.ref)
			tt.err.check(t, err)
			if v.Number != tt.number {
				t.Errorf("version %d, want %d", v.Number, tt.number)
			}
		})
	}
}

func TestANodeSetIsSelected(t *testing.T) {
	d := &Declared{Cluster: loaded(t, coord.State{}).Cluster()}
	for _, tt := range []struct {
		set   string
		count int
		err   want
	}{
		{set: "n[01-03]", count: 3},
		{set: "n[01-04]!n02", count: 3},
		{set: "n01-n04", err: want{control.NotFound, "write n[01-04]"}},
		{set: "n[01-", err: want{control.Invalid, ""}},
		{set: "n05", err: want{control.NotFound, `did you mean "n01"?`}},
		{set: "@none", err: want{control.NotFound, ""}},
	} {
		t.Run(tt.set, func(t *testing.T) {
			nodes, err := d.Select(tt.set)
			tt.err.check(t, err)
			if len(nodes) != tt.count {
				t.Errorf("%d nodes, want %d", len(nodes), tt.count)
			}
		})
	}
}

func TestTheVersionOfANode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		state   coord.State
		number  int
		missing bool // it is worth a problem that the node has no version
	}{
		{name: "it follows the current version", state: coord.State{Images: images(2)}, number: 1},
		{
			name:  "it follows a version of its own",
			state: coord.State{Images: images(2), Desired: coord.Refs{"n01": ref(2)}}, number: 2,
		},
		{name: "its image was not captured yet"},
		{
			name:  "its version does not exist",
			state: coord.State{Images: images(2), Desired: coord.Refs{"n01": ref(9)}}, missing: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Declared{State: tt.state, Cluster: loaded(t, coord.State{}).Cluster()}
			n, _ := d.Cluster.Node(cluster.NodeName("n01"))
			v, err := d.Version(n)
			if v.Number != tt.number || (err == nil) != (tt.number > 0) {
				t.Errorf("version %d, %v; want %d", v.Number, err, tt.number)
			}
			if err != nil && (d.Missing(n) != nil) != tt.missing {
				t.Errorf("missing: %v", d.Missing(n))
			}
		})
	}
}

func TestADescriptionIsTheSameWhereverItIs(t *testing.T) {
	f := newFollower(t, small)
	testkit.Must(t, f.Load())
	a, b := describe(t, small), describe(t, larger())
	if a.Digest != describe(t, small).Digest || a.Digest == b.Digest {
		t.Error("the digest does not tell one description from another")
	}
	c := testkit.Value(f.parse(a))(t)
	if again := Describe(c); again.Digest != a.Digest {
		t.Error("parsed from the shared state it has another digest")
	}
}
